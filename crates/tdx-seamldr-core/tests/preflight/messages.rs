//! The message and the code of each finding.

use std::fmt::Display;

use tdx_seamldr_core::abi::{Svn, TdxFeatures0};
use tdx_seamldr_core::preflight::elf::ElfRefusal;
use tdx_seamldr_core::preflight::{
    FieldMismatch, Finding, HandoffRange, NotPassed, Refusal, SeamldrVersion, Unknown,
};

/// Asserts that each message contains this text.
fn say(rows: &[(&dyn Display, &str)]) {
    for (message, text) in rows {
        assert!(message.to_string().contains(text), "{message} does not contain {text}");
    }
}

#[test]
fn refusals_name_the_value_found_and_the_value_expected() {
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
        (R::CpuListLength(256), "cpu-list-length", "has 256 entries, but should have at most 255"),
        (
            R::HandoffVersionsReversed { min_update_hv: 4, module_hv: 3 },
            "handoff-versions-reversed",
            "is 4, but should be at most its highest version, 3",
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
            "the GDT is at offset 0x2 of the image, but should be at 0x1 at most",
        ),
        (
            R::FaultWrapperOutside { found: 2, limit: 1 },
            "fault-wrapper-outside",
            "wrappers are at offset 0x2 of the image, but should be at 0x1 at most",
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
            "is 2.0, but the running module's is 1.5: the major SVN must be the same",
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
            "the image's SVN is 1.4, but the module in place has 1.5: P-SEAMLDR loads",
        ),
        (
            R::SeamldrWithoutHandoff { found: SeamldrVersion { major: 1, minor: 0 } },
            "seamldr-without-handoff",
            "P-SEAMLDR 1.0 cannot keep TDs in an update, but 1.5 and later can",
        ),
        (R::NoRemainingUpdates, "no-remaining-updates", "0 left, 1 needed"),
        (R::NoModule, "no-module", "no module can hand TDs over"),
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
            "TDX_FEATURES0 is 0x1, but bit 1 (TD_PRESERVING) should be set",
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
        (R::SameModule, "same-module", "the image is the running module"),
        (
            R::Memory { found: 1, wanted: 2 },
            "memory",
            "the module needs 2 bytes in the SEAM range, but only 1 are available",
        ),
        (
            R::PageTables { found: 1, wanted: 2 },
            "page-tables",
            "its page tables need 2 bytes in the SEAM range, but only 1 are available",
        ),
        (
            R::Elf(ElfRefusal::TooShort { found: 7 }),
            "elf",
            "P-SEAMLDR cannot relocate the module: the image has 7 bytes, but an ELF header has 64",
        ),
        (
            R::HandoffPages { found: 1, wanted: 2 },
            "handoff-pages",
            "has 1 page for handoff data, but the running module leaves 2",
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
        (
            &ElfRefusal::EntrySize(3),
            "the relocations of section 3 have 0 bytes, but should have 24",
        ),
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
fn unknowns_name_the_open_question() {
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
