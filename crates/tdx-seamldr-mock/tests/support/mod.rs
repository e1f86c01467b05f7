//! A platform, an image for it, and an update between them.
#![allow(dead_code)] // not every test file uses all of it

use std::sync::LazyLock;

use tdx_seamldr_core::abi::{
    PSysInfoBuffer, Scenario, SeamldrInfoBuffer, SeamldrLeaf, SeamldrStatus, TdxFeatures0, TdxLeaf,
};
use tdx_seamldr_core::preflight::{preflight, Facts, Finding, Policy};
use tdx_seamldr_core::update::{NextStep, Options, Outcome, RunningModule, TdFate, Update};
use tdx_seamldr_core::{
    CurrentVmcs, InstallRequest, SeamcallBackend, SeamcallRegs, Seamldr, SpinLock, TdxImage, Trap,
};
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, PhysMemory};
use tdx_seamldr_mock::{run_stepped, Answer, Builder, PageBuf, SimLp, SimPlatform, TestImage};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros;

/// RAX of each call of an update, by its leaf.
pub(crate) const INSTALL: u64 = SeamldrLeaf::Install.rax();
pub(crate) const SYS_RD: u64 = TdxLeaf::SYS_RD.0 as u64;
pub(crate) const SHUTDOWN: u64 = TdxLeaf::SYS_SHUTDOWN.0 as u64;
pub(crate) const SYS_INIT: u64 = TdxLeaf::SYS_INIT.0 as u64;
pub(crate) const LP_INIT: u64 = TdxLeaf::SYS_LP_INIT.0 as u64;
pub(crate) const UPDATE: u64 = TdxLeaf::SYS_UPDATE.0 as u64;

/// The module after the one that platforms boot with.
pub(crate) fn newer() -> TestImage {
    TestImage { svn_minor: 6, ..TestImage::default() }
}

/// A module that counts what an update must not come in between of, for handoff versions 0 and 1.
pub(crate) fn counting(svn_minor: u8) -> TestImage {
    let build = ModuleBuild {
        features0: ModuleBuild::V1_5_01.features0 | TdxFeatures0::UPDATE_COMPATIBILITY,
        module_hv: 1,
        handoff_form: HandoffForm::Counting,
        ..ModuleBuild::V1_5_01
    };
    TestImage { svn_minor, module_hv: 1, module_build: Some(build), ..TestImage::default() }
}

/// Boots with the default image, and starts three TDs.
pub(crate) fn boot(builder: Builder) -> SimPlatform {
    static IMAGE: LazyLock<PageBuf> = LazyLock::new(|| TestImage::default().build());
    boot_file(builder, &IMAGE)
}

/// Boots with this image, and starts three TDs.
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

/// Runs `with` on an update to this image by all LPs that are online.
pub(crate) fn with_update<R>(
    platform: &SimPlatform,
    image: &PageBuf,
    options: Options,
    with: impl FnOnce(&Update<'_>) -> R,
) -> R {
    let lps = u32::try_from(platform.online().count()).unwrap();
    with_request(platform, image, Scenario::Update, |request| {
        with(&Update::new(request, platform.module_state(), options, lps).unwrap())
    })
}

/// Updates to this image, all LPs by hand in one thread.
pub(crate) fn update_to(platform: &SimPlatform, image: &TestImage) -> Outcome {
    with_update(platform, &image.build(), Options::default(), |update| run_stepped(platform, update, 1))
}

/// An image for other processors.
pub(crate) fn unsuitable() -> PageBuf {
    TestImage { cpus: vec![0xa06d0], ..newer() }.build()
}

/// Goes on with this image where an update has ended.
pub(crate) fn resume(platform: &SimPlatform, file: &PageBuf) -> Outcome {
    with_resumed(platform, file, |update| run_stepped(platform, update, 1))
}

/// Runs `with` on an update that goes on with this image, by all LPs that are online.
pub(crate) fn with_resumed<R>(
    platform: &SimPlatform,
    file: &PageBuf,
    with: impl FnOnce(&Update<'_>) -> R,
) -> R {
    let lps = u32::try_from(platform.online().count()).unwrap();
    with_request(platform, file, Scenario::Update, |request| {
        with(&Update::resume(request, platform.module_state(), Options::default(), lps).unwrap())
    })
}

/// Lets the module that is in place come up.
pub(crate) fn finish(platform: &SimPlatform) -> Outcome {
    let lps = u32::try_from(platform.online().count()).unwrap();
    let update = Update::finish(platform.module_state(), Options::default(), lps).unwrap();
    run_stepped(platform, &update, 1)
}

pub(crate) fn state(outcome: &Outcome) -> (TdFate, RunningModule, NextStep) {
    (outcome.tds, outcome.running, outcome.next)
}

/// A status in RAX.
pub(crate) fn returns(status: u64) -> Answer {
    Answer::Return { rax: status, rdx: 0 }
}

/// P-SEAMLDR as one LP reaches it.
pub(crate) fn seamldr<'a>(lp: &'a SimLp<'a>, lock: &'a SpinLock) -> Seamldr<'a, SimLp<'a>, SpinLock> {
    Seamldr::new(lp, lock, CurrentVmcs::Preserved).unwrap()
}

/// How many calls with this RAX were made.
pub(crate) fn count(platform: &SimPlatform, rax: u64) -> usize {
    platform.trace().iter().filter(|entry| entry.input.rax == rax).count()
}

/// What preflight has to say about an update of this platform to this image.
pub(crate) fn findings(platform: &SimPlatform, image: &PageBuf, policy: Policy) -> Vec<Finding> {
    let image = TdxImage::parse(image.as_bytes()).unwrap();
    let (lp, lock) = (platform.lp(0), SpinLock::new());
    let (mut info, mut sysinfo) = (SeamldrInfoBuffer::zeroed(), Box::new(PSysInfoBuffer::new_zeroed()));
    let signer = platform.with_model(|model| model.config().signer);
    let mut facts = Facts::gather(&seamldr(&lp, &lock), &lp, &mut info, &mut sysinfo, &signer).unwrap();
    platform.complete(&mut facts);
    let mut findings = Vec::new();
    let verdict = preflight(&image, &facts, &RustCrypto, policy, &mut |finding| findings.push(finding));
    let count = usize::try_from(verdict.refusals + verdict.unknowns).unwrap();
    assert_eq!((verdict.passed(), count), (findings.is_empty(), findings.len()));
    findings
}

/// One call on one LP, with all registers.
pub(crate) fn call_regs(
    platform: &SimPlatform,
    lp: u32,
    mut regs: SeamcallRegs,
) -> Result<SeamcallRegs, Trap> {
    // SAFETY: the addresses that tests pass are those of their own buffers, or of nothing.
    unsafe { platform.lp(lp).seamcall(&mut regs) }.map(|()| regs)
}

/// One call on one LP with RCX: RAX.
pub(crate) fn rax(platform: &SimPlatform, lp: u32, rax: u64, rcx: u64) -> Result<u64, Trap> {
    call_regs(platform, lp, SeamcallRegs { rax, rcx, ..SeamcallRegs::default() }).map(|regs| regs.rax)
}

/// One call of INSTALL with the parameters at this address: status and RDX.
pub(crate) fn install_on(platform: &SimPlatform, lp: u32, params: u64) -> (SeamldrStatus, u64) {
    let regs = SeamcallRegs { rax: INSTALL, rcx: params, rdx: 7, ..SeamcallRegs::default() };
    let regs = call_regs(platform, lp, regs).unwrap();
    (SeamldrStatus(regs.rax), regs.rdx)
}

/// Gives `run` the address of SEAMLDR_PARAMS for this file.
pub(crate) fn with_params<R>(
    platform: &SimPlatform,
    file: &PageBuf,
    scenario: Scenario,
    run: impl FnOnce(u64) -> R,
) -> R {
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let mut page = PageBuf::zeroed(1);
    let request = InstallRequest::build(page.as_params(), &image, scenario, &platform.lp(0)).unwrap();
    run(request.params().get().0)
}

/// INSTALL by all LPs that are online, with this file: what the last of them hears.
pub(crate) fn install_all(
    platform: &SimPlatform,
    file: &PageBuf,
    scenario: Scenario,
) -> (SeamldrStatus, u64) {
    with_params(platform, file, scenario, |params| {
        platform.online().map(|lp| install_on(platform, lp, params)).last().unwrap()
    })
}

/// Memory in which there is nothing.
pub(crate) struct Nothing;

impl PhysMemory for Nothing {
    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}
