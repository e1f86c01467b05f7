//! Rules about the image itself: the form of the SIGSTRUCT, signer, signature, hash, offsets inside
//! the module.

use super::facts::{Facts, SeamldrVersion};
use super::finding::{FieldMismatch, Refusal, Unknown};
use super::Findings;
use crate::abi::{SeamSigstruct, INTEL_VENDOR_ID, MAX_CPUID_ENTRIES, PAGE_SIZE};
use crate::crypto::Crypto;
use crate::image::TdxImage;

/// Bytes of the 32 fault wrappers in an image: 16 bytes for each exception vector.
const FAULT_WRAPPERS_SIZE: u32 = 32 * 16;

/// The first P-SEAMLDR that reads images of the 2.0 line.
const FIRST_OF_LINE_2_0: SeamldrVersion = SeamldrVersion { major: 2, minor: 0 };

/// Checks the form of the SIGSTRUCT (SEAMLDR.INSTALL, firmware rules 8.5.13-18).
pub(super) fn check_form(findings: &mut Findings<'_>, image: &TdxImage<'_>, facts: &Facts) {
    let sigstruct = image.sigstruct();
    findings
        .refuse_if(image.sigstruct_pages() != 1, Refusal::SigstructPages(image.sigstruct_pages()));
    check_line(findings, sigstruct, facts);
    let reserved: [(u32, &[u8]); 3] = [
        (40, &sigstruct.reserved0),
        (978, &sigstruct.reserved1),
        (989, core::slice::from_ref(&sigstruct.reserved2)),
    ];
    for (start, bytes) in reserved {
        check_zero(findings, start, bytes);
    }

    let module_type = sigstruct.module_type.get() & !SeamSigstruct::MODULE_TYPE_DEBUG;
    let fields = [
        ("header_type", sigstruct.header_type.get(), 6),
        ("header_length", sigstruct.header_length.get(), 0xe1),
        ("header_version", sigstruct.header_version.get(), 0x10000),
        ("key_size", sigstruct.key_size.get(), 0x60),
        ("exponent_size", sigstruct.exponent_size.get(), 1),
        ("modulus_size", sigstruct.modulus_size.get(), 0x60),
        ("module_vendor", sigstruct.module_vendor.get(), INTEL_VENDOR_ID),
        ("module_type", module_type, 0),
        ("size", sigstruct.size.get(), 0x200),
        ("exponent", sigstruct.exponent.get(), 0x10001),
    ];
    for (name, found, wanted) in fields {
        check_field(findings, name, found.into(), wanted.into());
    }
    check_field(findings, "attributes", sigstruct.attributes.get(), 0);

    let entries = sigstruct.cpuid_table_size.get();
    let too_many = usize::try_from(entries).map_or(true, |entries| entries > MAX_CPUID_ENTRIES);
    findings.refuse_if(too_many, Refusal::CpuListLength(entries));

    let (min_update_hv, module_hv) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
    findings.refuse_if(
        min_update_hv > module_hv,
        Refusal::HandoffVersionsReversed { min_update_hv, module_hv },
    );
    let (gdt_idt, fault_wrapper) =
        (sigstruct.gdt_idt_offset.get(), sigstruct.fault_wrapper_offset.get());
    findings.refuse_if(gdt_idt % 4096 != 0, Refusal::GdtOffsetMisaligned(gdt_idt));
    findings.refuse_if(
        (gdt_idt == 0) != (fault_wrapper == 0),
        Refusal::GdtWithoutFaultWrapper { gdt_idt, fault_wrapper },
    );
}

/// Checks `reserved3`. The 2.0 modules have data there, which only P-SEAMLDR 2.0 or later takes.
fn check_line(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    if sigstruct.reserved3.iter().all(|byte| *byte == 0) {
        return;
    }
    let Some(found) = findings.known(facts.p_seamldr, Unknown::SeamldrVersion) else { return };
    if found < FIRST_OF_LINE_2_0 {
        // Byte 1003 is the major version in images of the 2.0 line.
        let is_of_line_2_0 = sigstruct.reserved3.get(3).is_some_and(|major| *major >= 2);
        if is_of_line_2_0 {
            findings.refuse(Refusal::SeamldrTooOld { found });
        } else {
            check_zero(findings, 1000, &sigstruct.reserved3);
        }
    }
}

/// Reports the first byte that is not zero. `start` is the offset of the bytes in the SIGSTRUCT.
fn check_zero(findings: &mut Findings<'_>, start: u32, bytes: &[u8]) {
    if let Some((offset, &found)) = (start..u32::MAX).zip(bytes).find(|(_, byte)| **byte != 0) {
        findings.refuse(Refusal::SigstructReserved { offset, found });
    }
}

fn check_field(findings: &mut Findings<'_>, name: &'static str, found: u64, wanted: u64) {
    findings
        .refuse_if(found != wanted, Refusal::SigstructField(FieldMismatch { name, found, wanted }));
}

/// Checks the signer (firmware rule 8.5.19).
pub(super) fn check_signer<C: Crypto + ?Sized>(
    findings: &mut Findings<'_>,
    sigstruct: &SeamSigstruct,
    facts: &Facts,
    crypto: &C,
) {
    match (crypto.sha384(&[&sigstruct.modulus]), facts.signer) {
        (Ok(found), Some(trusted)) => {
            findings.refuse_if(found != trusted, Refusal::Signer { found, wanted: trusted });
        }
        _ => findings.unknown(Unknown::Signer),
    }
}

/// Checks that GDT and fault wrappers lie inside the image (firmware rule 8.5.24).
pub(super) fn check_ranges(findings: &mut Findings<'_>, image: &TdxImage<'_>) {
    let size = u32::try_from(image.module().len()).unwrap_or(u32::MAX);
    let limit = size.saturating_sub(u32::try_from(PAGE_SIZE).unwrap_or(u32::MAX));
    let found = image.sigstruct().gdt_idt_offset.get();
    findings.refuse_if(found > limit, Refusal::GdtOutside { found, limit });
    let limit = size.saturating_sub(FAULT_WRAPPERS_SIZE);
    let found = image.sigstruct().fault_wrapper_offset.get();
    findings.refuse_if(found > limit, Refusal::FaultWrapperOutside { found, limit });
}

/// Checks the signature (firmware rule 8.5.27).
pub(super) fn check_signature<C: Crypto + ?Sized>(
    findings: &mut Findings<'_>,
    sigstruct: &SeamSigstruct,
    crypto: &C,
) {
    let verified = crypto.sha384(&sigstruct.signed_parts()).and_then(|digest| {
        crypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &digest)
    });
    match verified {
        Ok(valid) => findings.refuse_if(!valid, Refusal::Signature),
        Err(_) => findings.unknown(Unknown::Signature),
    }
}

/// Checks the module's hash (firmware rule 8.5.33).
pub(super) fn check_hash<C: Crypto + ?Sized>(
    findings: &mut Findings<'_>,
    image: &TdxImage<'_>,
    crypto: &C,
) {
    match crypto.sha384(&[image.module()]) {
        Ok(found) => {
            let wanted = image.sigstruct().seamhash;
            findings.refuse_if(found != wanted, Refusal::ImageHash { found, wanted });
        }
        Err(_) => findings.unknown(Unknown::ImageHash),
    }
}
