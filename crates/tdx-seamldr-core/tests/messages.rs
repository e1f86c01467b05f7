//! The messages and codes of errors and outcomes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Display;

use tdx_seamldr_core::abi::{
    FieldId, Scenario, SeamldrLeaf, SeamldrStatus, Svn, TdxLeaf, TdxStatus,
};
use tdx_seamldr_core::image::{ImageError, ImageFormat, Need, WriteError};
use tdx_seamldr_core::update::linux::UploadError;
use tdx_seamldr_core::update::{Call, Failure, FailureCause, NextStep, Outcome, RunningModule};
use tdx_seamldr_core::update::{Stage, TdFate, UpdateError};
use tdx_seamldr_core::{BuildError, CryptoUnavailable, InstallError, PageAddr, Part, PhysAddr};
use tdx_seamldr_core::{NotShared, SeamldrError, TdxError, TdxVersion, Trap, VmcsErratum};

/// Asserts that each message contains this text.
fn say(rows: &[(&dyn Display, &str)]) {
    for (message, text) in rows {
        assert!(message.to_string().contains(text), "{message} does not contain {text}");
    }
}

#[test]
fn image_errors_have_message_and_code() {
    use ImageError as E;
    let rows: [(E, &str, &str); 11] = [
        (
            E::TooShort { found: 7, wanted: 4096 },
            "image-too-short",
            "has 7 bytes, but needs at least 4096",
        ),
        (
            E::Version { found: 0x300, wanted: None },
            "image-version",
            "0x0300, but should be 0x0100 (tdx_blob) or 0x0200 (tdx_image)",
        ),
        (
            E::Version { found: 0x200, wanted: Some(ImageFormat::BlobV1) },
            "image-version",
            "0x0200, but should be 0x0100 (tdx_blob)",
        ),
        (
            E::Signature { found: *b"tdx-blob" },
            "image-signature-string",
            "\"tdx-blob\", but should be \"TDX-BLOB\"",
        ),
        (
            E::ReservedNotZero { offset: 20, found: 1 },
            "image-reserved-not-zero",
            "offset 20 of the header is 0x01",
        ),
        (E::Length { found: 1, wanted: 2 }, "image-length", "announces 1 byte, but the file has 2"),
        (
            E::ModuleOffset { found: 1, wanted: "2" },
            "image-module-offset",
            "is 0x1, but should be 2",
        ),
        (
            E::ModuleLength { found: 1 },
            "image-module-length",
            "has 1 byte, but should have a multiple of 4096",
        ),
        (
            E::SigstructPages { found: 5, wanted: Need::AtMost(4) },
            "image-sigstruct-pages",
            "5 pages, but should have at most 4",
        ),
        (
            E::ModulePages { found: 0, wanted: Need::AtLeast(1) },
            "image-module-pages",
            "0 pages, but should have at least 1",
        ),
        (E::Checksum { found: 1, wanted: 2 }, "image-checksum", "is 0x0001, but should be 0x0002"),
    ];
    for (error, code, text) in rows {
        assert_eq!(error.code(), code);
        say(&[(&error, text)]);
        assert_eq!(format!("{error:?}"), format!("ImageError({error})"));
    }
    say(&[
        (&ImageFormat::BlobV1, "tdx_blob"),
        (&ImageFormat::ImageV2, "tdx_image"),
        (&WriteError::SigstructLength { found: 7 }, "7 bytes, but should have at least 2048"),
        (
            &WriteError::SigstructPages { found: 2, wanted: Need::AtMost(1) },
            "2 pages, but should have at most 1",
        ),
        (&WriteError::ModuleLength { found: 7 }, "7 bytes, but should have a multiple of 4096"),
        (
            &WriteError::ModulePages { found: 497, wanted: Need::AtMost(496) },
            "497 pages, but should have at most 496",
        ),
        (&WriteError::TooLong, "would have 4 GiB or more, but should have less"),
        (&WriteError::Buffer { found: 1, wanted: 2 }, "has 1 byte, but the file needs 2"),
        (&BuildError::SigstructTooLong(4), "has 4 pages, but P-SEAMLDR takes 1"),
        (&BuildError::NotMapped(Part::Sigstruct), "the SIGSTRUCT has no physical address"),
        (&BuildError::NotMapped(Part::Params), "the page for SEAMLDR_PARAMS has no"),
        (
            &BuildError::Misaligned(Part::Module(7), PhysAddr(0x1234)),
            "page 7 of the module lies at physical address 0x1234",
        ),
        (
            &BuildError::NotShared(Part::Params, PhysAddr(0x1000), NotShared::InSeamRange),
            "the page for SEAMLDR_PARAMS lies at physical address 0x1000, inside the SEAM range: \
             P-SEAMLDR reads only",
        ),
        (
            &BuildError::NotShared(Part::Sigstruct, PhysAddr(0x1000), NotShared::AboveMaxAddress),
            "0x1000, above the processor's highest address",
        ),
        (
            &BuildError::NotShared(Part::Module(1), PhysAddr(0x1000), NotShared::PrivateKeyId),
            "0x1000, with a KeyID of TDX",
        ),
        (&BuildError::NotMapped(Part::Info), "the buffer for SEAMLDR_INFO has no physical address"),
    ]);
}

#[test]
fn call_errors_show_the_answer_of_the_firmware() {
    let refused = |rdx| InstallError::Refused { status: SeamldrStatus::EBADSIG, rdx };
    say(&[
        (&CryptoUnavailable, "could not compute SHA-384 or RSA-3072"),
        (&VmcsErratum, "loses its current-VMCS pointer"),
        (&Trap::VmFailInvalid, "VMfailInvalid"),
        (&Trap::GeneralProtection, "#GP"),
        (&Trap::UndefinedOpcode, "#UD"),
        (&SeamldrError::NotMapped, "no physical address"),
        (&SeamldrError::Trap(Trap::UndefinedOpcode), "#UD"),
        (
            &SeamldrError::Status(SeamldrStatus::EBADCALL),
            "P-SEAMLDR refused: EBADCALL (0x8000000000000003): the call comes",
        ),
        (&InstallError::OtherMachine, "the request was built for another machine than this host's"),
        (&InstallError::Trap(Trap::GeneralProtection), "#GP"),
        (&refused(0), "kept the old one (RDX 0): EBADSIG"),
        (&refused(1), "the old one is gone (RDX 1): EBADSIG"),
        (&TdxError::Trap(Trap::VmFailInvalid), "VMfailInvalid"),
        (
            &TdxError::Status(TdxStatus::SYS_BUSY),
            "the TDX module refused: SYS_BUSY (0x8000020200000000): another LP",
        ),
        (&TdxStatus(TdxStatus::OPERAND_INVALID.0 | 1), "(RCX)"),
        (&TdxStatus(TdxStatus::OPERAND_BUSY.0 | 0xa9), "(TD EPOCH)"),
        (&TdxStatus(0x8000_0001_2345_6789), "unknown TDX module status 0x8000000123456789"),
        (&TdxVersion { major: 1, minor: 5, update: 6 }, "1.5.06"),
        (&Svn { major: 1, minor: 5 }, "1.5"),
        (&PhysAddr(0x1000), "0x1000"),
        (&PageAddr::new(PhysAddr(0x1000)).unwrap(), "0x1000"),
    ]);
    let rows = [
        (format!("{:?}", TdxStatus::SYS_BUSY), "SYS_BUSY"),
        (format!("{:?}", TdxStatus(TdxStatus::OPERAND_INVALID.0 | 1)), "OPERAND_INVALID|0x1"),
        (format!("{:?}", TdxStatus(1)), "SUCCESS|0x1"),
        (format!("{:?}", TdxStatus(1 << 50)), "TdxStatus(0x0004000000000000)"),
        (format!("{:?}", TdxLeaf::SYS_UPDATE), "TDH.SYS.UPDATE"),
        (format!("{:?}", TdxLeaf(999)), "TdxLeaf(999)"),
        (format!("{:?}", FieldId::MODULE_HV), "MODULE_HV"),
        (format!("{:?}", FieldId(1)), "FieldId(0x0000000000000001)"),
        (format!("{:?}", Svn { major: 2, minor: 7 }), "2.7"),
        (format!("{:?}", PageAddr::new(PhysAddr(0x2000)).unwrap()), "0x2000"),
    ];
    for (shown, wanted) in rows {
        assert_eq!(shown, wanted);
    }
}

#[test]
fn failures_name_stage_lp_and_cause() {
    let install = SeamldrLeaf::Install;
    let call = Call::Seamldr(install);
    let status = SeamldrStatus(0x8000_0000_0000_0099);
    let rows = [
        (
            FailureCause::UnknownLp,
            "unknown-lp",
            "the module state has no bits for this LP: make it as large",
        ),
        (FailureCause::GaveUp, "gave-up", "the LP gave up waiting for another LP"),
        (
            FailureCause::StillReady,
            "still-ready",
            "a TDX module is ready and may have TDs, so the update left it unchanged",
        ),
        (
            FailureCause::LpsMissing,
            "lps-missing",
            "the session of SEAMLDR.INSTALL waits for more LPs: bring all LPs of the platform \
             online",
        ),
        (
            FailureCause::LpsChanged { found: 2, wanted: 3 },
            "lps-changed",
            "LPs that take part: 2, but preflight counted 3: keep the number",
        ),
        (
            FailureCause::ModuleChanged,
            "module-changed",
            "not the one that preflight saw: repeat preflight",
        ),
        (FailureCause::NoRemainingUpdates, "no-remaining-updates", "no updates remain"),
        (FailureCause::OtherMachine, "other-machine", "prepared for another machine"),
        (
            FailureCause::Trap(call, Trap::VmFailInvalid),
            "VMFAILINVALID",
            "SEAMLDR.INSTALL: SEAMCALL failed with VMfailInvalid",
        ),
        (
            FailureCause::Trap(call, Trap::GeneralProtection),
            "GP",
            "SEAMLDR.INSTALL: SEAMCALL raised #GP",
        ),
        (
            FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_INIT), Trap::UndefinedOpcode),
            "UD",
            "TDH.SYS.INIT: SEAMCALL raised #UD",
        ),
        (
            FailureCause::Tdx(TdxLeaf::SYS_INIT, TdxStatus::SYS_BUSY),
            "SYS_BUSY",
            "TDH.SYS.INIT: SYS_BUSY",
        ),
        (
            FailureCause::Seamldr { leaf: install, status: SeamldrStatus::ENOMEM, rdx: 1 },
            "ENOMEM",
            "SEAMLDR.INSTALL: ENOMEM (0x8000000000010002): the module does not fit into the SEAM \
             range, RDX 1",
        ),
        (
            FailureCause::Seamldr { leaf: install, status, rdx: 0 },
            "unknown-status",
            "0x8000000000000099",
        ),
    ];
    for (cause, code, text) in rows {
        assert_eq!(cause.code(), code);
        say(&[(&cause, text)]);
    }
    say(&[
        (
            &Failure { stage: Stage::CpuInit, lp: 7, cause: FailureCause::GaveUp },
            "stage CpuInit, LP 7: the LP gave up",
        ),
        (&UpdateError::Lps(0), "the number of LPs is 0, but should be 1 to 1024"),
        (
            &UpdateError::Scenario { found: Scenario::Load, wanted: Scenario::Update },
            "an image is prepared for scenario Load, but should be for Update",
        ),
        (
            &UpdateError::LpsChanged { found: 2, wanted: 3 },
            "LPs that take part: 2, but preflight counted 3: keep the number",
        ),
        (&UpdateError::Fallbacks(8), "the number of fallback images is 8, but should be at most 7"),
        (
            &UpdateError::HandoffVersion { found: 2, wanted: 0 },
            "passed preflight for handoff version 2, but the update asks the running module for 0",
        ),
        (&UpdateError::OtherMachine, "an image is prepared for another machine"),
        (&UpdateError::Busy, "another update uses the module state"),
        (
            &UpdateError::Build(BuildError::NotMapped(Part::Params)),
            "the page for SEAMLDR_PARAMS has no",
        ),
        (&UploadError::Wearout, "flash-wearout"),
        (&UploadError::RwError, "read-write-error"),
    ]);
}

fn outcome(tds: TdFate, next: NextStep) -> Outcome {
    Outcome {
        tds,
        running: RunningModule::Old,
        next,
        image: 0,
        failure: None,
        last_failure: None,
        stage: Stage::CpuInit,
        rounds: 1,
        lps: 8,
        finished_last_stage: 3,
    }
}

#[test]
fn outcomes_name_the_fate_of_the_tds_and_the_next_step() {
    let rows = [
        (
            TdFate::NeverAtRisk,
            NextStep::Retry,
            "refused",
            "not updated; this update shut nothing down, and the TDs are as before; next: repeat \
             preflight and the update",
        ),
        (
            TdFate::NeverAtRisk,
            NextStep::RetryLater,
            "refused",
            "next: repeat preflight and the update later",
        ),
        (TdFate::Preserved, NextStep::Done, "updated", "updated; the TDs live on"),
        (
            TdFate::Held,
            NextStep::InstallAgain,
            "held",
            "the TDs are paused and their handoff data is intact; next: install a module again, \
             on every LP",
        ),
        (
            TdFate::Held,
            NextStep::CompleteSession,
            "held",
            "next: call SEAMLDR.INSTALL on the LPs that have not called it",
        ),
        (TdFate::Held, NextStep::Finish, "held", "next: initialise the module that is in place"),
        (
            TdFate::Lost,
            NextStep::Load,
            "lost",
            "not updated; the TDs are lost; next: load a module afresh",
        ),
        (TdFate::Lost, NextStep::Configure, "lost", "next: configure the module"),
        (
            TdFate::Unknown,
            NextStep::Reboot,
            "unknown",
            "the fate of the TDs is unknown; next: reboot",
        ),
    ];
    for (tds, next, code, text) in rows {
        let outcome = outcome(tds, next);
        assert_eq!(outcome.code(), code);
        assert_eq!(outcome.is_updated(), tds == TdFate::Preserved);
        assert_eq!(outcome.tds_live_on(), tds == TdFate::Preserved);
        say(&[(&outcome, text)]);
    }
    let updated = outcome(TdFate::Preserved, NextStep::Done);
    assert_eq!(updated.to_string(), "updated; the TDs live on");
    let fallback = Outcome { image: 1, ..updated };
    assert!(fallback.tds_live_on() && !fallback.is_updated());
    assert_eq!(fallback.code(), "fallback");
    assert_eq!(fallback.to_string(), "not updated; the TDs live on under a fallback module");
    let lp_2 = Failure { stage: Stage::CpuInit, lp: 2, cause: FailureCause::GaveUp };
    let after_failure = Outcome { failure: Some(lp_2), rounds: 2, ..fallback };
    assert_eq!(after_failure.overcome(), None, "the update's own image does not run");
    assert!(after_failure.to_string().contains("fallback module; stage CpuInit, LP 2: "));
    // The update was about to install a fallback image when it ended.
    assert!(!Outcome { image: 1, ..outcome(TdFate::Held, NextStep::InstallAgain) }.is_updated());
}

#[test]
fn outcome_names_the_first_and_the_last_failure() {
    let failure = |lp| Failure { stage: Stage::CpuInit, lp, cause: FailureCause::GaveUp };
    let updated = Outcome {
        failure: Some(failure(1)),
        rounds: 2,
        ..outcome(TdFate::Preserved, NextStep::Done)
    };
    assert_eq!(
        updated.to_string(),
        "updated; the TDs live on; a failure was overcome in 2 rounds: stage CpuInit, LP 1: the LP \
         gave up waiting for another LP"
    );
    assert_eq!(updated.overcome(), Some(failure(1)));
    let in_first_round = Outcome { rounds: 1, ..updated };
    assert!(in_first_round.to_string().contains("; a failure was overcome in 1 round: stage"));
    assert_eq!(outcome(TdFate::Preserved, NextStep::Done).overcome(), None);
    let held = outcome(TdFate::Held, NextStep::Finish);
    let once = Outcome { failure: Some(failure(1)), last_failure: Some(failure(1)), ..held };
    let told = once.to_string();
    assert_eq!(
        told.matches("LP 1: the LP gave up").count(),
        1,
        "the message contains the failure once: {told}"
    );
    assert!(!told.contains("overcome") && once.overcome().is_none(), "{told}");
    let twice = Outcome { last_failure: Some(failure(2)), ..updated };
    assert!(twice
        .to_string()
        .ends_with("; last failure: stage CpuInit, LP 2: the LP gave up waiting for another LP"));
}

#[test]
fn outcome_counts_the_lps_that_finished_each_stage() {
    let outcome = outcome(TdFate::Held, NextStep::Finish);
    assert_eq!(outcome.finished(Stage::CpuInstall), 8);
    assert_eq!(outcome.finished(Stage::CpuInit), 3);
    assert_eq!(outcome.finished(Stage::RunUpdate), 0);
}

#[test]
fn outcome_tells_why_the_old_module_refused_the_shutdown() {
    let with = |leaf, status| Outcome {
        last_failure: Some(Failure {
            stage: Stage::Shutdown,
            lp: 0,
            cause: FailureCause::Tdx(leaf, status),
        }),
        ..outcome(TdFate::NeverAtRisk, NextStep::RetryLater)
    };
    let in_build = TdxStatus(TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0 | 3 << 16);
    assert_eq!(with(TdxLeaf::SYS_SHUTDOWN, in_build).sensitive(), in_build.sensitive());
    assert!(in_build.sensitive().is_some());
    assert_eq!(with(TdxLeaf::SYS_UPDATE, in_build).sensitive(), None);
    assert_eq!(with(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY).sensitive(), None);
    assert_eq!(outcome(TdFate::NeverAtRisk, NextStep::RetryLater).sensitive(), None);
}
