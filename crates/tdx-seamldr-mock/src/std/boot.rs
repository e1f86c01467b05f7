//! Boots a platform with the calls that firmware and kernel make, until the module is ready.

use std::collections::BTreeSet;
use std::fmt;

use tdx_seamldr_core::abi::{
    Scenario, SeamldrLeaf, SeamldrParams, TdxLeaf, MAX_MODULE_PAGES, PAGE_SIZE,
};
use tdx_seamldr_core::{SeamcallRegs, TdxImage, Trap};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::sparse_memory::SparseMemory;
use crate::model::{AnswerName, LeafName, ModuleState, Platform, SeamMemory};

/// A call that did not succeed although it had to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CallFailed {
    /// The LP, by its place in the platform's list.
    pub lp: u32,
    /// RAX before the call.
    pub rax: u64,
    /// RAX after the call, or why the instruction failed.
    pub answer: Result<u64, Trap>,
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaf = LeafName(self.rax);
        write!(f, "{leaf} on LP {} gives ", self.lp)?;
        match self.answer {
            Ok(rax) => write!(f, "{}", AnswerName { leaf, rax }),
            Err(trap) => write!(f, "{trap:?}"),
        }
    }
}

/// Why a platform was not booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotBooted {
    /// A module is in place: the platform was booted before.
    #[error("a module is in place: a platform is booted once")]
    ModuleIsThere,
    /// Firmware hit a fatal error before, or an LP is inside a call.
    #[error("firmware hit a fatal error before, or an LP is in the middle of a SEAMCALL")]
    Busy,
    /// The image has more pages than SEAMLDR_PARAMS has room for, or its length is not a whole
    /// number of pages.
    #[error("the module in the image has {0} bytes, but should have 1 to 496 pages of 4096 bytes")]
    Pages(usize),
    /// A call of the boot did not succeed.
    #[error(transparent)]
    Call(#[from] CallFailed),
}

type Owned = Platform<Box<SeamMemory>>;

/// Boots a platform. Firmware loads the module of `image` with all checks of P-SEAMLDR. Then a
/// kernel initialises the module on every LP until the module reaches the state `until`. Planned
/// faults do not affect these calls, and RDRAND always succeeds.
///
/// # Errors
///
/// See [`NotBooted`]. The effects of earlier calls remain.
pub fn boot(
    platform: &mut Owned,
    image: &TdxImage<'_>,
    until: ModuleState,
) -> Result<(), NotBooted> {
    if platform.module().is_some() {
        return Err(NotBooted::ModuleIsThere);
    }
    if platform.is_dead() || (0..platform.config().num_lps).any(|lp| platform.is_in_call(lp)) {
        return Err(NotBooted::Busy);
    }
    undisturbed(platform, |platform| {
        load(platform, image)?;
        let all: Vec<u32> = (0..platform.config().num_lps).collect();
        Ok(bring_up(platform, &all, until)?)
    })
}

/// Runs `run` without faults and with an RDRAND that succeeds.
fn undisturbed<R>(platform: &mut Owned, run: impl FnOnce(&mut Owned) -> R) -> R {
    let faults = std::mem::take(platform.faults_mut());
    let config = platform.config_mut();
    let rdrand = (config.rdrand_ok, config.rdrand_value, config.rdrand_failures);
    // The module takes 32 bits of the number, and refuses a seed of 0.
    let value = if config.rdrand_value & 0xffff_ffff == 0 { 1 } else { config.rdrand_value };
    (config.rdrand_ok, config.rdrand_value, config.rdrand_failures) = (true, value, 0);
    let result = run(platform);
    let config = platform.config_mut();
    (config.rdrand_ok, config.rdrand_value, config.rdrand_failures) = rdrand;
    *platform.faults_mut() = faults;
    result
}

/// Installs the image with SEAMLDR.INSTALL on all LPs, as firmware does.
fn load(platform: &mut Owned, image: &TdxImage<'_>) -> Result<(), NotBooted> {
    const PARAMS: u64 = 0x20_0000;
    const SIGSTRUCT: u64 = 0x20_1000;
    const MODULE: u64 = 0x20_2000;
    let module = image.module();
    let pages = module.len() / PAGE_SIZE;
    if !(1..=MAX_MODULE_PAGES).contains(&pages) || module.len() % PAGE_SIZE != 0 {
        return Err(NotBooted::Pages(module.len()));
    }
    let mut params = SeamldrParams::new_zeroed();
    params.scenario = U32::new(Scenario::Load.value());
    params.sigstruct_pa = U64::new(SIGSTRUCT);
    params.num_module_pages = U64::new(u64::try_from(pages).unwrap_or(0));
    let addresses = (MODULE..).step_by(PAGE_SIZE);
    for (slot, address) in params.module_page_pa.iter_mut().take(pages).zip(addresses) {
        *slot = U64::new(address);
    }
    let memory = SparseMemory::default();
    memory.put(PARAMS, params.as_bytes());
    memory.put(SIGSTRUCT, image.sigstruct().as_bytes());
    memory.put(MODULE, module);
    let regs =
        SeamcallRegs { rax: SeamldrLeaf::Install.rax(), rcx: PARAMS, ..SeamcallRegs::default() };
    for lp in 0..platform.config().num_lps {
        call(platform, &memory, lp, regs)?;
    }
    Ok(())
}

/// Makes one call that has to succeed.
fn call(
    platform: &mut Owned,
    memory: &SparseMemory,
    lp: u32,
    regs: SeamcallRegs,
) -> Result<(), CallFailed> {
    let mut out = regs;
    match platform.seamcall(lp, &mut out, memory, &RustCrypto) {
        Ok(()) if out.rax == 0 => Ok(()),
        result => Err(CallFailed { lp, rax: regs.rax, answer: result.map(|()| out.rax) }),
    }
}

/// Brings a module up with a kernel's calls: 1 TDMR of 1 GiB at 4 GiB, global KeyID 0x20. Only the
/// LPs in `lps` are initialised.
pub(crate) fn bring_up(
    platform: &mut Owned,
    lps: &[u32],
    until: ModuleState,
) -> Result<(), CallFailed> {
    const LIST: u64 = 0x10_0000;
    const INFO: u64 = 0x10_1000;
    const TDMR: [u64; 8] = [
        0x1_0000_0000,
        0x4000_0000,
        0x2_0000_0000,
        0x1000,
        0x2_0000_1000,
        0x2000,
        0x2_0040_0000,
        0x40_0000,
    ];
    if until == ModuleState::SysInitPending {
        return Ok(());
    }
    let leaf = |leaf: TdxLeaf| SeamcallRegs { rax: leaf.0.into(), ..SeamcallRegs::default() };
    let memory = &SparseMemory::default();
    undisturbed(platform, |platform| {
        call(platform, memory, 0, leaf(TdxLeaf::SYS_INIT))?;
        lps.iter().try_for_each(|lp| call(platform, memory, *lp, leaf(TdxLeaf::SYS_LP_INIT)))
    })?;
    if until == ModuleState::SysInitDone {
        return Ok(());
    }
    memory.put(LIST, &INFO.to_le_bytes());
    memory.put(INFO, &TDMR.map(u64::to_le_bytes).concat());
    call(
        platform,
        memory,
        0,
        SeamcallRegs { rcx: LIST, rdx: 1, r8: 0x20, ..leaf(TdxLeaf::SYS_CONFIG) },
    )?;
    if until == ModuleState::SysConfigDone {
        return Ok(());
    }
    let shift = platform.config().package_shift;
    let mut packages = BTreeSet::new();
    for lp in 0..platform.config().num_lps {
        let id = platform.x2apic_id(lp).unwrap_or(0);
        if packages.insert(id.checked_shr(shift)) {
            call(platform, memory, lp, leaf(TdxLeaf::SYS_KEY_CONFIG))?;
        }
    }
    if until == ModuleState::Shutdown {
        let hv = platform.module().map_or(0, |module| module.sysinfo().module_hv);
        call(platform, memory, 0, SeamcallRegs { rcx: hv.into(), ..leaf(TdxLeaf::SYS_SHUTDOWN) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Answer, Config, Fault, LoaderProfile, SeamDb};
    use crate::std::builder::seam_memory;
    use crate::{TestImage, TEST_SIGNER};

    fn platform(num_lps: u32, sockets: u32) -> Owned {
        let config =
            Config::new(num_lps, sockets, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).unwrap();
        Platform::new(
            config,
            SeamDb { size: 64, used: 0, insert_failures: 0 },
            seam_memory().unwrap(),
        )
    }

    #[test]
    fn a_platform_is_booted_to_each_state_of_its_module() {
        let file = TestImage::default().build();
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        for (state, name) in ModuleState::ALL {
            let mut platform = platform(4, 2);
            boot(&mut platform, &image, state).unwrap();
            assert_eq!(platform.module().unwrap().state(), state, "{name}");
            assert_eq!(platform.loader().num_remaining_updates(), 63, "LOAD counts the database");
            assert_eq!(boot(&mut platform, &image, state), Err(NotBooted::ModuleIsThere));
        }
    }

    #[test]
    fn faults_and_rdrand_stay_as_they_were_planned_but_do_not_disturb_the_boot() {
        let file = TestImage::default().build();
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let mut platform = platform(2, 1);
        let fault = platform
            .faults_mut()
            .add(Fault::nth(0, Answer::Trap(Trap::GeneralProtection)))
            .unwrap();
        (platform.config_mut().rdrand_ok, platform.config_mut().rdrand_failures) = (false, 7);
        boot(&mut platform, &image, ModuleState::Ready).unwrap();
        assert_eq!(platform.faults_mut().times_left(fault), Some(1));
        assert_eq!((platform.config().rdrand_ok, platform.config().rdrand_failures), (false, 7));
    }

    #[test]
    fn an_image_that_p_seamldr_refuses_is_named_with_the_call_and_the_status() {
        let file = TestImage { cpus: vec![0x906f0], ..TestImage::default() }.build();
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let error = boot(&mut platform(2, 1), &image, ModuleState::Ready).unwrap_err();
        assert_eq!(error.to_string(), "SEAMLDR.INSTALL on LP 1 gives EUNSUPCPU");
    }
}
