//! A platform with TDs, and an update of it by this library, up to what its outcome says should come next.

use anyhow::{Context, Result};
use tdx_seamldr_core::abi::{PSysInfoBuffer, Scenario, SeamldrInfoBuffer, TdxFeatures0};
use tdx_seamldr_core::preflight::{preflight, Facts, Policy};
use tdx_seamldr_core::update::{Cpu, NextStep, Options, Outcome, Progress, RunningModule, TdFate, Update};
use tdx_seamldr_core::{CurrentVmcs, InstallRequest, Seamldr, SpinLock, TdxImage};
use tdx_seamldr_mock::model::{ModuleBuild, ModuleState};
use tdx_seamldr_mock::{Builder, PageBuf, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros;

/// TDs on a platform.
const TDS: usize = 3;

/// The module that runs before: 1.5.01, with room for 16 pages of handoff data.
pub(crate) fn old_image() -> TestImage {
    TestImage { num_handoff_pages: 15, module_build: Some(ModuleBuild::V1_5_01), ..TestImage::default() }
}

/// The module that is to run.
pub(crate) fn new_image() -> TestImage {
    TestImage { svn_minor: 6, ..old_image() }
}

/// Boots with this image and starts the TDs.
pub(crate) fn boot(builder: Builder, image: &PageBuf) -> Result<SimPlatform> {
    let platform = builder.patience(1000).boot(&TdxImage::parse(image.as_bytes())?)?;
    for _ in 0..TDS {
        platform.create_td()?;
    }
    platform.clear_trace();
    Ok(platform)
}

/// Whether every TD finds its memory as it was, and its measurement.
pub(crate) fn all_alive(platform: &SimPlatform) -> bool {
    let truth = platform.truth();
    truth.tds_alive == truth.tds
}

/// An LP that makes no more calls after so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absent {
    pub(crate) lp: u32,
    pub(crate) after: usize,
}

/// Lets all LPs step in turn; if none can go on, one gives up. `None`: they never come to an end.
pub(crate) fn drive(platform: &SimPlatform, update: &Update<'_>, absent: Option<Absent>) -> Option<Outcome> {
    let lock = SpinLock::new();
    let before = platform.trace().len();
    let calls_of = |lp: u32| platform.trace().iter().skip(before).filter(|entry| entry.lp == lp).count();
    let is_away = |lp: u32| absent.is_some_and(|absent| absent.lp == lp && calls_of(lp) >= absent.after);
    let lps: Vec<_> = platform.online().map(|lp| (lp, platform.lp(lp))).collect();
    let mut cpus: Vec<_> = lps
        .iter()
        .filter_map(|(lp, host)| {
            Some((*lp, Cpu::new(update, Seamldr::new(host, &lock, CurrentVmcs::Preserved).ok()?, host)))
        })
        .collect();
    for _ in 0..100_000 {
        let mut stuck = true;
        cpus.retain_mut(|(lp, cpu)| {
            if is_away(*lp) {
                return true;
            }
            let progress = cpu.step();
            stuck &= progress == Progress::Waiting;
            progress != Progress::Finished
        });
        match cpus.iter().find(|(lp, _)| !is_away(*lp)) {
            None => return Some(update.outcome()),
            Some((_, cpu)) if stuck => cpu.abandon(),
            Some(_) => {}
        }
    }
    None
}

/// Whether the TDs live on under another module than the outcome says.
pub(crate) fn wrong_image(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let named = if outcome.image == 0 { new_image() } else { old_image() }.svn_minor;
    let found = platform.truth().svn.minor;
    (outcome.tds_live_on() && found != named)
        .then(|| format!("{outcome}: its image has SVN {named}, but {found} is there"))
}

/// What an update of this library came to.
#[derive(Clone, Debug)]
pub(crate) enum Ours {
    /// Refused before anything was shut down.
    Refused(String),
    /// It ran.
    Ran(Outcome),
    /// It did not end.
    Hang,
}

/// What the embedder does with an image file: checks, and an update with the module that runs as the one to fall back on.
pub(crate) fn update(
    platform: &SimPlatform,
    file: &PageBuf,
    old: &PageBuf,
    policy: Policy,
    absent: Option<Absent>,
) -> Result<Ours> {
    update_by(platform, file, old, policy, |update| drive(platform, update, absent))
}

/// The same, with LPs that `drive` takes through the update; it says how that ended, if it did.
pub(crate) fn update_by(
    platform: &SimPlatform,
    file: &PageBuf,
    old: &PageBuf,
    policy: Policy,
    drive: impl FnOnce(&Update<'_>) -> Option<Outcome>,
) -> Result<Ours> {
    let image = match TdxImage::parse(file.as_bytes()) {
        Ok(image) => image,
        Err(error) => return Ok(Ours::Refused(error.to_string())),
    };
    let mut buffers = (SeamldrInfoBuffer::zeroed(), Box::new(PSysInfoBuffer::new_zeroed()));
    let (lp, lock) = (platform.lp(platform.online().next().unwrap_or(0)), SpinLock::new());
    let current_vmcs = platform.with_model(|model| {
        if model.config().seamret_clears_vmcs {
            CurrentVmcs::Invalidated
        } else {
            CurrentVmcs::Preserved
        }
    });
    let seamldr = match Seamldr::new(&lp, &lock, current_vmcs) {
        Ok(seamldr) => seamldr,
        Err(error) => return Ok(Ours::Refused(error.to_string())),
    };
    let mut facts = match Facts::gather(&seamldr, &lp, &mut buffers.0, &mut buffers.1, &TEST_SIGNER) {
        Ok(facts) => facts,
        Err(error) => return Ok(Ours::Refused(error.to_string())),
    };
    platform.complete(&mut facts);
    let mut reasons = Vec::new();
    let verdict =
        preflight(&image, &facts, &RustCrypto, policy, &mut |finding| reasons.push(finding.to_string()));
    if !verdict.passed() {
        return Ok(Ours::Refused(reasons.join("; ")));
    }
    let options = Options {
        handoff_version: facts.handoff.and_then(|running| running.negotiate(image.sigstruct())),
        avoid_compat_sensitive: facts
            .features0
            .is_some_and(|features| features.contains(TdxFeatures0::UPDATE_COMPATIBILITY)),
        ..Options::default()
    };
    let mut params = [PageBuf::zeroed(1), PageBuf::zeroed(1)];
    let [params, fallback_params] = &mut params;
    let request = InstallRequest::build(params.as_params(), &image, Scenario::Update, &lp)?;
    let old = TdxImage::parse(old.as_bytes())?;
    let fallbacks = [InstallRequest::build(fallback_params.as_params(), &old, Scenario::Update, &lp)?];
    let update =
        Update::new(request, platform.module_state(), options, facts.num_lps)?.with_fallbacks(&fallbacks)?;
    Ok(drive(&update).map_or(Ours::Hang, Ours::Ran))
}

/// Does what the outcome says, now that whatever was wrong is over, with an image that is good. Says how that ended.
pub(crate) fn go_on(platform: &SimPlatform, outcome: &Outcome, good: &PageBuf) -> Result<Outcome> {
    let mut outcome = *outcome;
    for _ in 0..3 {
        let (state, lps) = (platform.module_state(), u32::try_from(platform.online().count())?);
        let image = TdxImage::parse(good.as_bytes())?;
        let mut params = PageBuf::zeroed(1);
        let request = InstallRequest::build(params.as_params(), &image, Scenario::Update, &platform.lp(0))?;
        let update = match outcome.next {
            NextStep::InstallAgain | NextStep::CompleteSession => {
                Update::resume(request, state, Options::default(), lps)
            }
            NextStep::Finish => Update::finish(state, Options::default(), lps),
            _ => return Ok(outcome),
        }?;
        outcome = drive(platform, &update, None).context("an update that goes on does not end")?;
        if outcome.tds_live_on() {
            break;
        }
    }
    Ok(outcome)
}

/// In what the outcome contradicts the platform, if it does.
pub(crate) fn wrong_claim(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let truth = platform.truth();
    let alive = truth.tds_alive == truth.tds;
    let fate = match outcome.tds {
        TdFate::NeverAtRisk | TdFate::Preserved => alive,
        TdFate::Held => truth.handoff_valid && !alive,
        TdFate::Lost => !alive,
        TdFate::Unknown => true,
    };
    let state = truth.module.map(|module| (module.callable, module.state));
    let running = match outcome.running {
        RunningModule::Old | RunningModule::New => state == Some((true, ModuleState::Ready)),
        RunningModule::OldShutDown => state == Some((true, ModuleState::Shutdown)),
        RunningModule::NewNotReady => {
            matches!(state, Some((true, ModuleState::SysInitPending | ModuleState::SysInitDone)))
        }
        RunningModule::SessionOpen => truth.lps_in_session > 0,
        RunningModule::Nothing => true,
    };
    // What nothing is known about is no claim.
    let claimed = outcome.tds != TdFate::Unknown;
    (claimed && !(fate && running)).then(|| format!("{outcome} ({:?}), but {truth:?}", outcome.running))
}
