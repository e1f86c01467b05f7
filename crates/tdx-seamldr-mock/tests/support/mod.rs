//! A platform, an image for it, and an update to this image.
#![allow(dead_code, clippy::as_conversions)] // not every test file uses all of it

use std::sync::LazyLock;

use tdx_seamldr_core::abi::{Scenario, SeamldrLeaf, SeamldrStatus, TdxFeatures0, TdxLeaf};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, Finding, HandoffRange, NotPassed, PassedUpdate, Policy,
    PreparedImage, Purpose, Unknown, Unknowns,
};
use tdx_seamldr_core::update::{NextStep, Outcome, RunningModule, TdFate, Update, UpdateError};
use tdx_seamldr_core::{
    CurrentVmcs, InstallRequest, SeamcallBackend, SeamcallRegs, Seamldr, SpinLock, TdxImage, Trap,
};
use tdx_seamldr_core::{Host, MachineId, Patience, PhysAddr};
use tdx_seamldr_core::{NoCrypto, SharedInfo};
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, PhysMemory};
use tdx_seamldr_mock::{run_stepped, Answer, Builder, PageBuf, SimLp, SimPlatform, TestImage};
use tdx_seamldr_verify::RustCrypto;

/// RAX of each call of an update.
pub(crate) const INSTALL: u64 = SeamldrLeaf::Install.rax();
pub(crate) const INFO: u64 = SeamldrLeaf::Info.rax();
pub(crate) const TDMR_INIT: u64 = TdxLeaf::SYS_TDMR_INIT.0 as u64;
pub(crate) const SYS_RD: u64 = TdxLeaf::SYS_RD.0 as u64;
pub(crate) const SHUTDOWN: u64 = TdxLeaf::SYS_SHUTDOWN.0 as u64;
pub(crate) const SYS_INIT: u64 = TdxLeaf::SYS_INIT.0 as u64;
pub(crate) const LP_INIT: u64 = TdxLeaf::SYS_LP_INIT.0 as u64;
pub(crate) const UPDATE: u64 = TdxLeaf::SYS_UPDATE.0 as u64;

/// Returns the module after the one that platforms boot with.
pub(crate) fn newer() -> TestImage {
    TestImage { svn_minor: 6, ..TestImage::default() }
}

/// Returns a module that counts compatibility-sensitive operations, for handoff versions 0 and 1.
pub(crate) fn counting(svn_minor: u8) -> TestImage {
    let build = ModuleBuild {
        features0: ModuleBuild::V1_5_01.features0 | TdxFeatures0::UPDATE_COMPATIBILITY,
        module_hv: 1,
        handoff_form: HandoffForm::Counting,
        ..ModuleBuild::V1_5_01
    };
    TestImage { svn_minor, module_hv: 1, module_build: Some(build), ..TestImage::default() }
}

/// Boots the default image, and starts 3 TDs.
pub(crate) fn boot(builder: Builder) -> SimPlatform {
    static IMAGE: LazyLock<PageBuf> = LazyLock::new(|| TestImage::default().build());
    boot_file(builder, &IMAGE)
}

/// Boots this image, and starts 3 TDs.
pub(crate) fn boot_from(builder: Builder, image: &TestImage) -> SimPlatform {
    boot_file(builder, &image.build())
}

fn boot_file(builder: Builder, file: &PageBuf) -> SimPlatform {
    let platform = builder.boot(&TdxImage::parse(file.as_bytes()).unwrap()).unwrap();
    for _ in 0..3 {
        platform.create_td().unwrap();
    }
    platform
}

/// Runs `with` on a request to install this image.
pub(crate) fn with_request<R>(
    platform: &SimPlatform,
    image: &PageBuf,
    scenario: Scenario,
    with: impl FnOnce(InstallRequest<'_>) -> R,
) -> R {
    let image = TdxImage::parse(image.as_bytes()).unwrap();
    let mut params = PageBuf::zeroed(1);
    with(InstallRequest::build(params.as_params(), &image, scenario, &platform.lp(0)).unwrap())
}

/// A policy that allows unknown facts, for updates that firmware is to refuse.
pub(crate) fn reckless() -> Policy {
    let allow_unknowns = Unknown::ALL.into_iter().fold(Unknowns::NONE, Unknowns::with);
    Policy { allow_unknowns, ..Policy::default() }
}

/// Options of an unchecked update.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Handoff version. `None`: the update reads the module's highest version.
    pub(crate) handoff_version: Option<u16>,
    pub(crate) avoid_compat_sensitive: bool,
    pub(crate) detect_compat_damage: bool,
}

/// Passes an image on a platform of which only the number of LPs is known.
pub(crate) fn pass<'a>(
    platform: &SimPlatform,
    image: &TdxImage<'a>,
    options: Options,
) -> Result<PassedUpdate<'a>, NotPassed> {
    let only = |hv| HandoffRange { module_hv: hv, min_update_hv: hv, no_downgrade: false };
    let counts = TdxFeatures0::TD_PRESERVING | TdxFeatures0::UPDATE_COMPATIBILITY;
    let facts = Facts {
        num_lps: u32::try_from(platform.online().count()).ok(),
        handoff: options.handoff_version.map(only),
        features0: options.avoid_compat_sensitive.then_some(counts),
        ..Facts::new()
    };
    preflight(image, &facts, &NoCrypto, reckless(), &mut |_| {})
}

/// Runs `with` on an unchecked update to this image, by all online LPs.
pub(crate) fn with_update<R>(
    platform: &SimPlatform,
    file: &PageBuf,
    options: Options,
    with: impl FnOnce(&Update<'_>) -> R,
) -> R {
    with_fallbacks(platform, file, &[], options, with)
}

/// Runs `with` on an unchecked update to this image with fallbacks, by all online LPs.
pub(crate) fn with_fallbacks<R>(
    platform: &SimPlatform,
    file: &PageBuf,
    fallbacks: &[PageBuf],
    options: Options,
    with: impl FnOnce(&Update<'_>) -> R,
) -> R {
    let host = platform.lp(0);
    let image = TdxImage::parse_without_checksum(file.as_bytes()).unwrap();
    let passed = pass(platform, &image, options).unwrap();
    let mut pages: Vec<_> = fallbacks.iter().map(|_| PageBuf::zeroed(1)).collect();
    let fallbacks: Vec<_> = fallbacks
        .iter()
        .zip(&mut pages)
        .map(|(file, page)| {
            prepare(platform, page, file, Purpose::TakeOver { handoff_version: None })
        })
        .collect();
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    let update =
        Update::new(&passed, params.as_params(), &info, &host, platform.module_state()).unwrap();
    let update = update.with_fallbacks(&fallbacks).unwrap();
    let update = if options.detect_compat_damage { update.detecting_damage() } else { update };
    with(&update)
}

/// Prepares an image without checks.
pub(crate) fn prepare<'a>(
    platform: &SimPlatform,
    page: &'a mut PageBuf,
    file: &'a PageBuf,
    purpose: Purpose,
) -> PreparedImage<'a> {
    let image = TdxImage::parse_without_checksum(file.as_bytes()).unwrap();
    let facts = Facts::new();
    let passed =
        preflight_image(&image, &facts, purpose, &NoCrypto, reckless(), &mut |_| {}).unwrap();
    passed.prepare(page.as_params(), &platform.lp(0)).unwrap()
}

/// Updates to this image, with all LPs in one thread.
pub(crate) fn update_to(platform: &SimPlatform, image: &TestImage) -> Outcome {
    update_to_file(platform, &image.build())
}

/// Updates to the image in this file, with all LPs in one thread.
pub(crate) fn update_to_file(platform: &SimPlatform, file: &PageBuf) -> Outcome {
    with_update(platform, file, Options::default(), |update| run_stepped(platform, update, 1))
}

/// Returns an image for other processors.
pub(crate) fn unsuitable() -> PageBuf {
    TestImage { cpus: vec![0xa06d0], ..newer() }.build()
}

/// Returns an image with a wrong signature.
pub(crate) fn with_wrong_signature() -> PageBuf {
    let module = newer().module();
    let mut sigstruct = newer().sigstruct(&module);
    sigstruct.signature[0] ^= 1;
    newer().file(&sigstruct, &module)
}

/// Returns an image whose module does not have the hash that was signed.
pub(crate) fn with_wrong_hash() -> PageBuf {
    let mut module = newer().module();
    let sigstruct = newer().sigstruct(&module);
    *module.last_mut().unwrap() ^= 1;
    newer().file(&sigstruct, &module)
}

/// Resumes an ended update with this image.
pub(crate) fn resume(platform: &SimPlatform, file: &PageBuf) -> Outcome {
    with_resumed(platform, file, |update| run_stepped(platform, update, 1))
}

/// Runs `with` on a resumed update with this image, by all online LPs.
pub(crate) fn with_resumed<R>(
    platform: &SimPlatform,
    file: &PageBuf,
    with: impl FnOnce(&Update<'_>) -> R,
) -> R {
    let mut page = PageBuf::zeroed(1);
    let image = prepare(platform, &mut page, file, Purpose::TakeOver { handoff_version: None });
    let update = Update::resume(image, &platform.lp(0), platform.module_state()).unwrap();
    with(&update)
}

/// Returns an update that brings up the installed module.
pub(crate) fn finishing(platform: &SimPlatform) -> Result<Update<'_>, UpdateError> {
    Update::finish(&platform.lp(0), platform.module_state())
}

/// Brings up the installed module.
pub(crate) fn finish(platform: &SimPlatform) -> Outcome {
    run_stepped(platform, &finishing(platform).unwrap(), 1)
}

pub(crate) fn state(outcome: &Outcome) -> (TdFate, RunningModule, NextStep) {
    (outcome.tds, outcome.running, outcome.next)
}

/// Returns an answer with this status in RAX.
pub(crate) fn returns(status: u64) -> Answer {
    Answer::Return { rax: status, rdx: 0 }
}

/// INSTALL's answer after it destroyed the old module.
pub(crate) const LOST: Answer = Answer::Return { rax: SeamldrStatus::EBADHASH.0, rdx: 1 };

/// Returns an LP of a host that reports this number of LPs.
pub(crate) fn counting_lps(lp: SimLp<'_>, lps: u32) -> impl Host + '_ {
    let mut host = Intercepted::new(lp, |lp: &SimLp<'_>, regs: &mut SeamcallRegs| {
        // SAFETY: as promised by the caller.
        unsafe { lp.seamcall(regs) }
    });
    host.lps = Some(lps);
    host
}

/// Returns P-SEAMLDR on this host.
pub(crate) fn seamldr<'a, H: Host>(host: &'a H, lock: &'a SpinLock) -> Seamldr<'a, H, SpinLock> {
    Seamldr::new(host, lock, CurrentVmcs::Preserved).unwrap()
}

/// An LP whose calls go through a function.
pub(crate) struct Intercepted<'a, F> {
    lp: SimLp<'a>,
    call: F,
    /// Number of LPs that the host reports, if not the real one.
    lps: Option<u32>,
}

impl<'a, F: Fn(&SimLp<'a>, &mut SeamcallRegs) -> Result<(), Trap>> Intercepted<'a, F> {
    pub(crate) fn new(lp: SimLp<'a>, call: F) -> Self {
        Self { lp, call, lps: None }
    }
}

// SAFETY: the functions of the tests pass each call to the simulated LP at most once.
unsafe impl<'a, F: Fn(&SimLp<'a>, &mut SeamcallRegs) -> Result<(), Trap>> SeamcallBackend
    for Intercepted<'a, F>
{
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        (self.call)(&self.lp, regs)
    }
}

// SAFETY: the simulated LP itself answers.
unsafe impl<'a, F: Fn(&SimLp<'a>, &mut SeamcallRegs) -> Result<(), Trap>> Host
    for Intercepted<'a, F>
{
    fn current_lp(&self) -> u32 {
        self.lp.current_lp()
    }

    fn num_lps(&self) -> u32 {
        self.lps.unwrap_or_else(|| self.lp.num_lps())
    }

    fn relax(&self) -> Patience {
        self.lp.relax()
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        self.lp.phys_addr(address)
    }

    fn machine(&self) -> MachineId {
        self.lp.machine()
    }
}

/// Returns the number of calls with this RAX.
pub(crate) fn count(platform: &SimPlatform, rax: u64) -> usize {
    platform.trace().iter().filter(|entry| entry.input.rax == rax).count()
}

/// Returns preflight's findings about an update of this platform to this image.
pub(crate) fn findings(platform: &SimPlatform, image: &PageBuf, policy: Policy) -> Vec<Finding> {
    let image = TdxImage::parse(image.as_bytes()).unwrap();
    let facts = platform.facts().unwrap();
    let mut findings = Vec::new();
    let passed =
        preflight(&image, &facts, &RustCrypto, policy, &mut |finding| findings.push(finding));
    match passed {
        Ok(_) => assert_eq!(findings, []),
        Err(NotPassed { refusals, unknowns }) => {
            assert_eq!(usize::try_from(refusals + unknowns).unwrap(), findings.len());
        }
    }
    findings
}

/// Makes one call on one LP; takes and returns all registers.
pub(crate) fn call_regs(
    platform: &SimPlatform,
    lp: u32,
    mut regs: SeamcallRegs,
) -> Result<SeamcallRegs, Trap> {
    // SAFETY: the tests pass addresses of their own buffers, or of missing memory.
    unsafe { platform.lp(lp).seamcall(&mut regs) }.map(|()| regs)
}

/// Makes one call with RCX on one LP; returns RAX.
pub(crate) fn rax(platform: &SimPlatform, lp: u32, rax: u64, rcx: u64) -> Result<u64, Trap> {
    call_regs(platform, lp, SeamcallRegs { rax, rcx, ..SeamcallRegs::default() })
        .map(|regs| regs.rax)
}

/// Calls INSTALL on one LP with parameters at this address; returns status and RDX.
pub(crate) fn install_on(platform: &SimPlatform, lp: u32, params: u64) -> (SeamldrStatus, u64) {
    let regs = SeamcallRegs { rax: INSTALL, rcx: params, rdx: 7, ..SeamcallRegs::default() };
    let regs = call_regs(platform, lp, regs).unwrap();
    (SeamldrStatus(regs.rax), regs.rdx)
}

/// Calls `run` with the address of SEAMLDR_PARAMS for this file.
pub(crate) fn with_params<R>(
    platform: &SimPlatform,
    file: &PageBuf,
    scenario: Scenario,
    run: impl FnOnce(u64) -> R,
) -> R {
    with_request(platform, file, scenario, |request| run(request.params().get().0))
}

/// Calls INSTALL on all online LPs with this file; returns the last LP's status and RDX.
pub(crate) fn install_all(
    platform: &SimPlatform,
    file: &PageBuf,
    scenario: Scenario,
) -> (SeamldrStatus, u64) {
    with_params(platform, file, scenario, |params| {
        platform.online().map(|lp| install_on(platform, lp, params)).last().unwrap()
    })
}

/// Memory that reads as zeros.
pub(crate) struct Nothing;

impl PhysMemory for Nothing {
    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}
