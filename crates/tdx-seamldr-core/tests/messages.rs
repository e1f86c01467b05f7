//! What errors and outcomes say, to people and by their codes: what was found, and what was wanted.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Display;

use tdx_seamldr_core::abi::{
    FieldId, Scenario, SeamldrLeaf, SeamldrStatus, Svn, TdxFeatures0, TdxLeaf, TdxStatus,
};
use tdx_seamldr_core::image::{ImageError, ImageFormat, Need, WriteError};
use tdx_seamldr_core::preflight::elf::ElfRefusal;
use tdx_seamldr_core::preflight::{
    FieldMismatch, Finding, HandoffRange, NotPassed, Refusal, SeamldrVersion, Unknown,
};
use tdx_seamldr_core::update::linux::UploadError;
use tdx_seamldr_core::update::{Call, Failure, FailureCause, NextStep, Outcome, RunningModule};
use tdx_seamldr_core::update::{Stage, TdFate, UpdateError};
use tdx_seamldr_core::{BuildError, CryptoUnavailable, InstallError, PageAddr, Part, PhysAddr};
use tdx_seamldr_core::{NotShared, SeamldrError, TdxError, TdxVersion, Trap, VmcsErratum};

/// Each message contains this text.
fn say(rows: &[(&dyn Display, &str)]) {
    for (message, text) in rows {
        assert!(message.to_string().contains(text), "{message} does not contain {text}");
    }
}

#[test]
fn images_say_what_is_wrong_with_them() {
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
        (
            E::Length { found: 1, wanted: 2 },
            "image-length",
            "announces 1 bytes, but the file has 2",
        ),
        (
            E::ModuleOffset { found: 1, wanted: "2" },
            "image-module-offset",
            "is 0x1, but should be 2",
        ),
        (
            E::ModuleLength { found: 1 },
            "image-module-length",
            "has 1 bytes, but should have a multiple of 4096",
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
        (&WriteError::Buffer { found: 1, wanted: 2 }, "has 1 bytes, but the file needs exactly 2"),
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
fn refusals_say_what_was_found_and_wanted() {
    use Refusal as R;
    let (digest, other) = ([0xab; 48], [0xcd; 48]);
    let svn = |major, minor| Svn { major, minor };
    let running = HandoffRange { module_hv: 3, min_update_hv: 1, no_downgrade: false };
    let field = FieldMismatch { name: "size", found: 1, wanted: 0x200 };
    let rows: [(R, &str, &str); 36] = [
        (R::SigstructPages(2), "sigstruct-pages", "has 2 pages, but P-SEAMLDR takes 1"),
        (R::SigstructField(field), "sigstruct-field", "size is 0x1, but should be 0x200"),
        (
            R::SigstructReserved { offset: 978, found: 7 },
            "sigstruct-reserved-not-zero",
            "the reserved byte at offset 978 of the SIGSTRUCT is 0x07, but should be 0",
        ),
        (
            R::SeamldrTooOld { found: SeamldrVersion { major: 1, minor: 5 } },
            "seamldr-too-old",
            "the image needs P-SEAMLDR 2.0 or later, but the machine has 1.5: use an image of the \
             1.5 line",
        ),
        (R::CpuListLength(256), "cpu-list-length", "has 256 entries, but at most 255 are possible"),
        (
            R::HandoffVersionsReversed { min_update_hv: 4, module_hv: 3 },
            "handoff-versions-reversed",
            "is 4, above its highest, 3",
        ),
        (
            R::GdtOffsetMisaligned(1),
            "gdt-offset-misaligned",
            "is 0x1, but should be a multiple of 4096",
        ),
        (
            R::GdtWithoutFaultWrapper { gdt_idt: 0x1000, fault_wrapper: 0 },
            "gdt-without-fault-wrapper",
            "GDT (0x1000) and fault wrappers (0x0)",
        ),
        (
            R::GdtOutside { found: 2, limit: 1 },
            "gdt-outside",
            "the GDT is at offset 0x2 of the image, but at most 0x1 is possible",
        ),
        (
            R::FaultWrapperOutside { found: 2, limit: 1 },
            "fault-wrapper-outside",
            "wrappers are at offset 0x2 of the image, but at most 0x1 is possible",
        ),
        (R::Signer { found: digest, wanted: other }, "signer", "abab, but P-SEAMLDR trusts cdcd"),
        (R::Signature, "signature", "the signature does not match the SIGSTRUCT"),
        (
            R::ImageHash { found: digest, wanted: other },
            "image-hash",
            "abab, but the SIGSTRUCT has cdcd",
        ),
        (R::DebugModule, "debug-module", "not unlocked for debug modules"),
        (R::MajorSvnZero, "major-svn-zero", "major SVN is 0, but should be at least 1"),
        (
            R::MajorSvn { found: svn(2, 0), running: svn(1, 5) },
            "major-svn",
            "is 2.0 and the running module's is 1.5",
        ),
        (
            R::MinorSvn { found: svn(1, 4), running: svn(1, 5) },
            "minor-svn",
            "SVN 1.4 is older than the running module's 1.5: P-SEAMLDR refuses downgrades",
        ),
        (R::Cpu { socket: 1, cpuid: 0x806f8 }, "cpu", "0x000806f0 of socket 1"),
        (R::NoCpuList, "no-cpu-list", "no list of CPUs"),
        (
            R::CleanupRequired { found: svn(1, 4), running: svn(1, 5) },
            "cleanup-required",
            "the image's SVN is 1.4 and that of the module in place is 1.5",
        ),
        (
            R::SeamldrWithoutHandoff { found: SeamldrVersion { major: 1, minor: 0 } },
            "seamldr-without-handoff",
            "P-SEAMLDR 1.0 cannot keep TDs in an update, but 1.5 and later can",
        ),
        (R::NoRemainingUpdates, "no-remaining-updates", "0 left, 1 needed"),
        (R::NoModule, "no-module", "no module hands TDs over"),
        (
            R::LpsMissing { found: 3, wanted: 4 },
            "lps-missing",
            "LPs that take part: 3, but P-SEAMLDR waits for 4: bring all LPs online",
        ),
        (
            R::LpsMissing { found: 5, wanted: 4 },
            "lps-missing",
            "LPs that take part: 5, but P-SEAMLDR waits for 4: check the count",
        ),
        (
            R::LpId { found: 1024, limit: 1023 },
            "lp-id",
            "an LP has the x2APIC ID 1024, but P-SEAMLDR takes at most 1023",
        ),
        (
            R::NotTdPreserving(TdxFeatures0::TD_MIGRATION),
            "not-td-preserving",
            "TDX_FEATURES0 is 0x1, without bit 1",
        ),
        (
            R::HandoffVersion { running, min_update_hv: 5, module_hv: 6 },
            "handoff-version",
            "versions 1 to 3, but the image takes 5 to 6",
        ),
        (
            R::HandoffVersion {
                running: HandoffRange { no_downgrade: true, ..running },
                min_update_hv: 5,
                module_hv: 6,
            },
            "handoff-version",
            "versions 3 to 3",
        ),
        (
            R::HandoffDataVersion { found: 3, min_update_hv: 0, module_hv: 1 },
            "handoff-data-version",
            "the handoff data has version 3, but the image takes 0 to 1",
        ),
        (R::SameModule, "same-module", "the image is the module that runs"),
        (
            R::Memory { found: 1, wanted: 2 },
            "memory",
            "needs 2 bytes of the SEAM range, which has 1 for modules",
        ),
        (
            R::PageTables { found: 1, wanted: 2 },
            "page-tables",
            "its page tables need 2 bytes of the SEAM range, which has 1 for modules",
        ),
        (
            R::Elf(ElfRefusal::TooShort { found: 7 }),
            "elf",
            "cannot be relocated: the image has 7 bytes, but an ELF header has 64",
        ),
        (
            R::HandoffPages { found: 1, wanted: 2 },
            "handoff-pages",
            "has 1 pages for handoff data, but the running module leaves 2",
        ),
        (
            R::SensitiveOperations(2),
            "sensitive-operations",
            "TDs in build or interrupted migrations: 2, which the update would damage",
        ),
    ];
    for (refusal, code, text) in rows {
        let finding = Finding::Refusal(refusal);
        assert_eq!((refusal.code(), finding.code()), (code, code));
        say(&[(&refusal, text), (&finding, text)]);
    }
    say(&[
        (
            &ElfRefusal::Ident { found: [0x90; 16] },
            "90909090, but a 64-bit little-endian ELF file begins with 7f454c46020101",
        ),
        (
            &ElfRefusal::SectionOutside { section: 3, found: 0x50, limit: 0x40 },
            "the header of section 3 lies at offset 0x50, but should lie at 0x40 at most",
        ),
        (&ElfRefusal::EntrySize(3), "section 3 has relocations of size 0"),
        (
            &ElfRefusal::RelocationOutside { section: 1, index: 3, found: 0x50, limit: 0x40 },
            "relocation 3 of section 1 lies at offset 0x50, but should lie at 0x40 at most",
        ),
        (
            &ElfRefusal::RelocationType { section: 1, index: 3, found: 0x100 },
            "relocation 3 of section 1 has the type 0x100, but should have 0x8 (R_X86_64_RELATIVE)",
        ),
        (
            &ElfRefusal::TargetOutside { section: 1, index: 3, found: 0x50, limit: 0x40 },
            "relocation 3 of section 1 changes offset 0x50, but should change 0x40 at most",
        ),
        (
            &ElfRefusal::AddendOutside { section: 1, index: 3, found: 0x50, limit: 0x40 },
            "relocation 3 of section 1 refers to offset 0x50, but should refer to 0x40 at most",
        ),
        (
            &ElfRefusal::TargetInUse { section: 1, index: 3, found: 0x50, begin: 0x40, end: 0x80 },
            "relocation 3 of section 1 changes the 8 bytes at offset 0x50, but P-SEAMLDR reads \
             0x40 to 0x80",
        ),
        (&ElfRefusal::TooManyRelocations { limit: 32768 }, "takes more than 32768 steps"),
    ]);
}

#[test]
fn unknowns_say_what_could_not_be_found_out() {
    let rows = [
        (Unknown::Signer, "unknown-signer", "the signer could not be checked"),
        (Unknown::Signature, "unknown-signature", "the signature could not be checked"),
        (Unknown::ImageHash, "unknown-image-hash", "the module's hash could not be checked"),
        (
            Unknown::DebugUnlocked,
            "unknown-debug-unlocked",
            "the platform is unlocked for debug modules",
        ),
        (Unknown::SeamldrVersion, "unknown-seamldr-version", "the version of P-SEAMLDR is unknown"),
        (
            Unknown::RemainingUpdates,
            "unknown-remaining-updates",
            "the number of remaining updates is unknown",
        ),
        (Unknown::RunningModule, "unknown-running-module", "whether a module runs"),
        (Unknown::RunningSvn, "unknown-running-svn", "the SVN of the running module is unknown"),
        (Unknown::SameModule, "unknown-same-module", "it may be this image"),
        (Unknown::Features, "unknown-features", "(TDX_FEATURES0) are unknown"),
        (
            Unknown::HandoffVersions,
            "unknown-handoff-versions",
            "the handoff versions of the running module",
        ),
        (Unknown::HandoffData, "unknown-handoff-data", "whether the handoff data fits"),
        (Unknown::Lps, "unknown-lps", "the number of LPs that take part"),
        (Unknown::LpIds, "unknown-lp-ids", "the highest x2APIC ID of the LPs is unknown"),
        (Unknown::Sockets, "unknown-sockets", "the processors of the sockets are unknown"),
        (Unknown::Memory, "unknown-memory", "the room in the SEAM range is unknown"),
        (
            Unknown::SensitiveOperations,
            "unknown-sensitive-operations",
            "the number of TDs in build",
        ),
        (Unknown::Cleanup, "unknown-cleanup", "before a SEAMLDR.CLEANUP is unknown"),
    ];
    assert_eq!(rows.map(|(unknown, ..)| unknown), Unknown::ALL);
    for (unknown, code, text) in rows {
        let finding = Finding::Unknown(unknown);
        assert_eq!((unknown.code(), finding.code()), (code, code));
        say(&[(&unknown, text), (&finding, text)]);
    }
    let text = "preflight did not pass: refusals 2, unknowns 1";
    say(&[(&NotPassed { refusals: 2, unknowns: 1 }, text)]);
}

#[test]
fn calls_say_what_the_firmware_answered() {
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
fn failures_say_where_and_why() {
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
            "a TDX module is ready and may have TDs: not touched",
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
            "2 LPs take part, but preflight saw 3",
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
        (&UpdateError::Lps(0), "0 LPs take part in the update, but it takes 1 to 1024"),
        (
            &UpdateError::Scenario { found: Scenario::Load, wanted: Scenario::Update },
            "an image is prepared for scenario Load, but the update needs Update",
        ),
        (
            &UpdateError::LpsChanged { found: 2, wanted: 3 },
            "2 LPs take part, but preflight saw 3: keep LPs",
        ),
        (
            &UpdateError::Fallbacks(8),
            "there are 8 images to fall back on, but at most 7 are possible",
        ),
        (
            &UpdateError::HandoffVersion { found: 2, wanted: 0 },
            "passed preflight for handoff version 2, but the update asks for 0",
        ),
        (&UpdateError::OtherMachine, "an image is prepared for another machine"),
        (&UpdateError::Busy, "another update of this module is not over"),
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
fn outcomes_say_what_became_of_the_tds_and_what_comes_next() {
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
    // With an image to fall back on that was not reached.
    assert!(!Outcome { image: 1, ..outcome(TdFate::Held, NextStep::InstallAgain) }.is_updated());
}

#[test]
fn outcomes_name_both_failures() {
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
    assert_eq!(outcome(TdFate::Preserved, NextStep::Done).overcome(), None);
    let held = outcome(TdFate::Held, NextStep::Finish);
    let once = Outcome { failure: Some(failure(1)), last_failure: Some(failure(1)), ..held };
    let told = once.to_string();
    assert_eq!(
        told.matches("LP 1: the LP gave up").count(),
        1,
        "the same failure is not told twice: {told}"
    );
    assert!(!told.contains("overcome") && once.overcome().is_none(), "{told}");
    let twice = Outcome { last_failure: Some(failure(2)), ..updated };
    assert!(twice
        .to_string()
        .ends_with("; last failure: stage CpuInit, LP 2: the LP gave up waiting for another LP"));
}

#[test]
fn outcomes_count_the_lps_of_each_stage() {
    let outcome = outcome(TdFate::Held, NextStep::Finish);
    assert_eq!(outcome.finished(Stage::CpuInstall), 8);
    assert_eq!(outcome.finished(Stage::CpuInit), 3);
    assert_eq!(outcome.finished(Stage::RunUpdate), 0);
}

#[test]
fn an_outcome_tells_why_the_old_module_refused_to_shut_down() {
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
