//! The processor under the firmware: which firmware SEAMCALL reaches, which memory an address
//! selects, and planned faults.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod addresses;
mod faults;
mod processors;
mod reach;
#[path = "../support/mod.rs"]
mod support;

use support::*;
use tdx_seamldr_core::abi::{FieldId, SeamldrLeaf, SeamldrStatus as S};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{Config, LoaderProfile, Platform, SeamDb, SeamMemory};
use tdx_seamldr_mock::{SimPlatform, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros;

pub(crate) const SEAMINFO: u64 = SeamldrLeaf::SeamInfo.rax();
pub(crate) const END: u64 = SeamldrLeaf::Shutdown.rax();
pub(crate) const OK: (S, u64) = (S::SUCCESS, 0);
/// A valid address of missing memory.
pub(crate) const HOLE: u64 = 0x7fff_f000;
/// The first and the last address of the SEAM range, and the width of an address without its KeyID.
pub(crate) const SEAMRR: u64 = 0x20_0000_0000;
pub(crate) const SEAMRR_END: u64 = SEAMRR + (256 << 20);
pub(crate) const ADDRESS_BITS: u32 = 40;

/// Reads a field that every module has, on this LP; returns RAX.
pub(crate) fn read(platform: &SimPlatform, lp: u32) -> Result<u64, Trap> {
    let regs = SeamcallRegs { rax: SYS_RD, rdx: FieldId::VENDOR_ID.0, ..SeamcallRegs::default() };
    call_regs(platform, lp, regs).map(|regs| regs.rax)
}

/// Returns a platform as firmware leaves it, without a module.
pub(crate) fn without_module(lps: u32) -> Platform<Box<SeamMemory>> {
    let config = Config::new(lps, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).unwrap();
    let seamdb = SeamDb { size: 4, used: 0, insert_failures: 0 };
    Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap())
}

pub(crate) fn model_call(
    model: &mut Platform<Box<SeamMemory>>,
    lp: u32,
    rax: u64,
    rcx: u64,
) -> Result<u64, Trap> {
    let mut regs = SeamcallRegs { rax, rcx, rdx: u64::MAX, ..SeamcallRegs::default() };
    model.seamcall(lp, &mut regs, &Nothing, &RustCrypto).map(|()| regs.rax)
}

pub(crate) fn set_seam_ready(platform: &SimPlatform, ready: u8) {
    platform.with_model(|model| {
        let mut state = model.loader().state();
        state.seamextend.seam_ready = ready;
        model.restore_loader(&state);
    });
}
