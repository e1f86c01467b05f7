//! Scenarios: a platform, the file of an update, and a defect in one of them.

use anyhow::{bail, Result};
use tdx_seamldr_core::abi::{SeamSigstruct, TdxLeaf, TdxStatus, PAGE_SIZE};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::Crypto;
use tdx_seamldr_mock::model::ModuleBuild;
use tdx_seamldr_mock::{sign, PageBuf, SimPlatform, TestImage};
use tdx_seamldr_qemu::change::Change;
use tdx_seamldr_qemu::fault::{FaultText, NumberOrName};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U16, U32};

use crate::world::{boot, old_image};

/// A scenario.
#[derive(Debug)]
pub struct Case {
    /// Number of LPs that firmware counts.
    pub lps: u32,
    /// The LP that is offline, if any.
    pub offline: Option<u32>,
    /// The module that runs.
    pub old: TestImage,
    /// File of the update.
    pub file: PageBuf,
    /// Defects of the platform.
    pub changes: Vec<Change>,
    /// Whether a return from P-SEAMLDR clears the current VMCS.
    pub erratum: bool,
}

pub(super) fn v2(image: TestImage) -> TestImage {
    TestImage { format: ImageFormat::ImageV2, ..image }
}

/// Returns a newer module as a file for Linux.
pub(crate) fn newer() -> TestImage {
    v2(crate::world::new_image())
}

/// Returns a newer module that accepts handoff data of every version used here, as a file for
/// Linux.
pub fn rescue() -> PageBuf {
    with_versions(newer(), 0, 2).build()
}

/// Returns the file of the newer module with changed bytes.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> PageBuf {
    let mut bytes = newer().build().as_bytes().to_vec();
    change(&mut bytes);
    PageBuf::copy_of(&bytes)
}

/// Returns the file of the newer module with a SIGSTRUCT that was changed before signing.
pub(crate) fn signed(change: impl FnOnce(&mut SeamSigstruct)) -> PageBuf {
    let module = newer().module();
    let mut sigstruct = newer().sigstruct(&module);
    change(&mut sigstruct);
    sign(&mut sigstruct);
    newer().file(&sigstruct, &module)
}

fn xor(bytes: &mut [u8], offset: usize, mask: u8) {
    bytes.iter_mut().skip(offset).take(1).for_each(|byte| *byte ^= mask);
}

/// Offset of the module in the file.
const MODULE: usize = 2 * PAGE_SIZE;
/// An MSR that has to be the same on all LPs.
const MSR: u32 = 0xfe;

/// Returns a fault: the next calls of this leaf return this status.
fn faults(leaf: TdxLeaf, times: u32, status: TdxStatus) -> Vec<Change> {
    vec![Change::Fault(FaultText {
        leaf: Some(NumberOrName::Number(leaf.0.into())),
        times: Some(times),
        status: Some(NumberOrName::Number(status.0)),
        ..FaultText::default()
    })]
}

/// Returns the image with these handoff versions, in its SIGSTRUCT and in its module.
pub(crate) fn with_versions(image: TestImage, min_update_hv: u16, module_hv: u16) -> TestImage {
    let build = ModuleBuild { module_hv, min_update_hv, ..ModuleBuild::V1_5_01 };
    TestImage { module_hv, min_update_hv, module_build: Some(build), ..image }
}

/// Returns the scenario with this name, as recorded with this number of CPUs on a platform with
/// this number of LPs.
///
/// # Errors
///
/// There is no such scenario.
pub fn scenario(name: &str, cpus: u32, platform_lps: u32) -> Result<Case> {
    let good = || newer().build();
    let nothing = Vec::new;
    let (init, lp_init) = (TdxLeaf::SYS_INIT, TdxLeaf::SYS_LP_INIT);
    let no_entropy = TdxStatus::RND_NO_ENTROPY;
    let old = old_image();
    let (old, file, changes): (TestImage, PageBuf, Vec<Change>) = match name {
        "good" | "handoff-pages-14" | "gdt-inside-image" | "higher-minor-svn" => {
            let pages = if name == "handoff-pages-14" { 13 } else { 15 };
            (old, signed(|s| s.num_handoff_pages = U16::new(pages)), nothing())
        }
        "same-version" => (old.clone(), v2(old).build(), nothing()),
        "wrong-checksum" => (old, changed(|file| xor(file, 2, 1)), nothing()),
        "496-pages" => (old, TestImage { pages: 496, ..newer() }.build(), nothing()),
        "hv-old1-new1" => {
            (with_versions(old, 0, 1), with_versions(newer(), 0, 1).build(), nothing())
        }
        "hv-old1-new2" => {
            (with_versions(old, 0, 1), with_versions(newer(), 1, 2).build(), nothing())
        }
        "hv-old1-new0" => {
            (with_versions(old, 0, 1), with_versions(newer(), 0, 0).build(), nothing())
        }
        "hv-old0-new1-min1" => (old, with_versions(newer(), 1, 1).build(), nothing()),
        "bad-magic" => (old, changed(|file| xor(file, 4, 1)), nothing()),
        "bad-version" => (old, changed(|file| xor(file, 1, 1)), nothing()),
        "v1-file" => (old, crate::world::new_image().build(), nothing()),
        "too-long" => {
            (old, changed(|file| file.resize(file.len().saturating_add(PAGE_SIZE), 0)), nothing())
        }
        "too-short" => {
            (old, changed(|file| file.truncate(file.len().saturating_sub(1))), nothing())
        }
        "header-only-part" => (old, changed(|file| file.truncate(2000)), nothing()),
        "reserved-byte" => (old, changed(|file| xor(file, 100, 1)), nothing()),
        "497-pages" => {
            let file = changed(|file| {
                file.resize(MODULE.saturating_add(497 * PAGE_SIZE), 0);
                file.splice(16..20, 497u32.to_le_bytes());
            });
            (old, file, nothing())
        }
        "two-sig-pages" => {
            let file = changed(|file| {
                file.splice(12..16, 2u32.to_le_bytes());
                file.splice(MODULE..MODULE, [0; PAGE_SIZE]);
            });
            (old, file, nothing())
        }
        "zero-sig-pages" => {
            let file = changed(|file| {
                file.splice(12..16, 0u32.to_le_bytes());
                file.drain(PAGE_SIZE..MODULE);
            });
            (old, file, nothing())
        }
        "zero-module-pages" => {
            let file = changed(|file| {
                file.splice(16..20, 0u32.to_le_bytes());
                file.truncate(MODULE);
            });
            (old, file, nothing())
        }
        "zero-module-pages-empty-hash" => {
            let empty = RustCrypto.sha384(&[])?;
            let mut bytes = signed(|s| s.seamhash = empty).as_bytes().to_vec();
            bytes.splice(16..20, 0u32.to_le_bytes());
            bytes.truncate(MODULE);
            (old, PageBuf::copy_of(&bytes), nothing())
        }
        "bad-signature" => (old, changed(|file| xor(file, PAGE_SIZE + 600, 1)), nothing()),
        "sigstruct-field-flipped" => (old, changed(|file| xor(file, PAGE_SIZE + 20, 1)), nothing()),
        "untrusted-signer" => (old, changed(|file| xor(file, PAGE_SIZE + 130, 2)), nothing()),
        "module-byte-flipped" => (old, changed(|file| xor(file, MODULE + 5000, 1)), nothing()),
        "first-module-byte-flipped" => (old, changed(|file| xor(file, MODULE, 1)), nothing()),
        "signed-not-elf" => {
            let module = vec![0x90; 8 * PAGE_SIZE];
            (old, newer().file(&newer().sigstruct(&module), &module), nothing())
        }
        "lower-minor-svn" => (old, signed(|s| s.svn_minor = 4), nothing()),
        "other-major-svn" => (old, signed(|s| s.svn_major = 2), nothing()),
        "cpu-not-listed" => (old, TestImage { cpus: vec![0xc06f0], ..newer() }.build(), nothing()),
        "cpu-list-empty" => (old, TestImage { cpus: Vec::new(), ..newer() }.build(), nothing()),
        "gdt-beyond-image" => (old, signed(|s| s.gdt_idt_offset = U32::new(0x8000)), nothing()),
        "memory-too-small" => {
            (old, signed(|s| s.num_global_data_pages = U16::new(65535)), nothing())
        }
        "debug-module" => (old, TestImage { debug: true, ..newer() }.build(), nothing()),
        "remaining-0" => (old, good(), vec![Change::RemainingUpdates(0)]),
        "remaining-0-full" => {
            (old, good(), vec![Change::SeamdbUsed(64), Change::RemainingUpdates(0)])
        }
        "full-but-remembered" => {
            let full = [
                Change::SeamdbUsed(64),
                Change::FullSeamdbIsFatal(true),
                Change::RemainingUpdates(5),
            ];
            (old, good(), full.to_vec())
        }
        "cpu-offline-1" | "cpu-offline-2" | "cpu-offline-4" | "erratum" => (old, good(), nothing()),
        "rdrand-install" => (old, good(), vec![Change::Rdrand(false)]),
        "rdrand-first-entry" => (old, good(), vec![Change::Rdrand(false), Change::NeverEntered]),
        "rdrand-first-entry-once" => {
            (old, good(), vec![Change::RdrandFailures(1), Change::NeverEntered])
        }
        "seamdb-4" => (old, good(), vec![Change::SeamdbInsertFailures(4)]),
        "seamdb-5" => (old, good(), vec![Change::SeamdbInsertFailures(5)]),
        "seamdb-always" => (old, good(), vec![Change::SeamdbInsertFailures(u32::MAX)]),
        "handoff-pages-13" => (old, signed(|s| s.num_handoff_pages = U16::new(12)), nothing()),
        "sigstruct-hv-not-built" => (old, signed(|s| s.module_hv = U16::new(1)), nothing()),
        "msr-other-lp" => (old, good(), vec![Change::Msr { lp: 1, msr: MSR, bits: 1 }]),
        "msr-init-lp" => (old, good(), vec![Change::Msr { lp: 0, msr: MSR, bits: 1 }]),
        "busy-at-init" => (old, good(), faults(init, 1, TdxStatus::SYS_BUSY)),
        "busy-at-lp.init" => (old, good(), faults(lp_init, 1, TdxStatus::SYS_BUSY)),
        "busy-at-update" => (old, good(), faults(TdxLeaf::SYS_UPDATE, 1, TdxStatus::SYS_BUSY)),
        "lpinit-entropy-1" => (old, good(), faults(lp_init, 1, no_entropy)),
        "lpinit-entropy-9" => (old, good(), faults(lp_init, 9, no_entropy)),
        "lpinit-entropy-10" => (old, good(), faults(lp_init, 10, no_entropy)),
        "lpinit-entropy-always" => (old, good(), faults(lp_init, u32::MAX, no_entropy)),
        "init-entropy-1" => (old, good(), faults(init, 1, no_entropy)),
        "init-entropy-always" => (old, good(), faults(init, u32::MAX, no_entropy)),
        "lp-busy" => (old, good(), vec![Change::InModule { lp: 1, inside: true }]),
        "lock-held" => (old, good(), vec![Change::ModuleLocked(true)]),
        _ => bail!("there is no scenario {name}"),
    };
    let offline = (platform_lps > cpus).then_some(cpus);
    Ok(Case { lps: platform_lps, offline, old, file, changes, erratum: name == "erratum" })
}

impl Case {
    /// Returns the platform before the update.
    pub(super) fn world(&self, old: &PageBuf) -> Result<SimPlatform> {
        let mut builder =
            SimPlatform::builder().lps(self.lps).sockets(if self.lps > 3 { 2 } else { 1 });
        if let Some(lp) = self.offline {
            builder = builder.offline(lp);
        }
        let platform = boot(builder, old)?;
        platform.with_model(|model| {
            model.seamdb_mut().used = 3;
            model.config_mut().seamret_clears_vmcs = self.erratum;
        });
        for change in &self.changes {
            platform.with_model(|model| change.apply(model)).map_err(anyhow::Error::msg)?;
        }
        Ok(platform)
    }
}

/// Repairs all defects.
pub(super) fn repair(platform: &SimPlatform) {
    // A repair cannot fail.
    let _ = platform.with_model(|model| Change::Repair.apply(model));
}
