//! A platform with TDs, and an update of it by this library, up to what its outcome says should
//! come next.

use anyhow::{Context, Result};
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, NotPassed, PassedUpdate, Policy, PreparedImage, Purpose,
    Unknown, Unknowns,
};
use tdx_seamldr_core::update::{
    Call, Cpu, Failure, FailureCause, NextStep, Outcome, Progress, RunningModule, Stage, TdFate,
    Update,
};
use tdx_seamldr_core::{
    Crypto, CurrentVmcs, Host, NoCrypto, Seamldr, SharedInfo, SpinLock, TdxImage, Trap,
};
use tdx_seamldr_mock::model::{ModuleBuild, ModuleState, TraceEntry};
use tdx_seamldr_mock::{Builder, PageBuf, SimLp, SimPlatform, TestImage};

use crate::memo::CRYPTO;

/// TDs on a platform.
pub const TDS: usize = 3;

/// The module that runs before: 1.5.01, with room for 16 pages of handoff data.
#[must_use]
pub fn old_image() -> TestImage {
    TestImage {
        num_handoff_pages: 15,
        module_build: Some(ModuleBuild::V1_5_01),
        ..TestImage::default()
    }
}

/// The module that is to run.
#[must_use]
pub fn new_image() -> TestImage {
    TestImage { svn_minor: 6, ..old_image() }
}

/// Boots with this image and starts the TDs.
///
/// # Errors
///
/// It is no image, or the platform does not come up.
pub fn boot(builder: Builder, image: &PageBuf) -> Result<SimPlatform> {
    let platform =
        builder.patience(1000).crypto(&CRYPTO).boot(&TdxImage::parse(image.as_bytes())?)?;
    for _ in 0..TDS {
        platform.create_td()?;
    }
    platform.clear_trace();
    Ok(platform)
}

/// Whether every TD finds its memory as it was, and its measurement.
#[must_use]
pub fn all_alive(platform: &SimPlatform) -> bool {
    let truth = platform.truth();
    truth.tds_alive == truth.tds
}

/// An LP that makes no more calls after so many.
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    /// Which.
    pub lp: u32,
    /// Calls that it makes before.
    pub after: usize,
}

/// In what order LPs step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedule<'a> {
    /// A step for each byte, by the LP of that number modulo their count. With bit 7 set the LP
    /// gives up after that step if it waits for others. After that all LPs step in turn; if
    /// none can go on, one gives up.
    pub order: &'a [u8],
    /// LPs that stay away.
    pub absent: &'a [Absent],
}

/// The most steps in which one LP does something: 16 rounds of 5 stages.
const MAX_WORK: u32 = 16 * 5;

/// One LP that steps.
struct Stepping<'a, H> {
    lp: u32,
    cpu: Cpu<'a, H, SpinLock>,
    calls: usize,
    worked: u32,
}

impl<H: Host> Stepping<'_, H> {
    fn is_away(&self, absent: &[Absent]) -> bool {
        absent.iter().any(|absent| absent.lp == self.lp && self.calls >= absent.after)
    }

    fn step(&mut self, platform: &SimPlatform) -> Progress {
        let before = platform.num_calls();
        let progress = self.cpu.step();
        self.calls = self.calls.saturating_add(platform.num_calls().saturating_sub(before));
        self.worked = self.worked.saturating_add(u32::from(progress == Progress::Worked));
        progress
    }
}

/// Lets all LPs step in turn; if none can go on, one gives up. `None`: they never come to an end.
#[must_use]
pub fn drive(
    platform: &SimPlatform,
    update: &Update<'_>,
    absent: Option<Absent>,
) -> Option<Outcome> {
    drive_in_order(platform, update, &Schedule { order: &[], absent: absent.as_slice() })
}

/// Lets LPs step in this order. `None`: they never come to an end.
#[must_use]
pub fn drive_in_order(
    platform: &SimPlatform,
    update: &Update<'_>,
    schedule: &Schedule<'_>,
) -> Option<Outcome> {
    let hosts: Vec<_> = platform.online().map(|lp| platform.lp(lp)).collect();
    drive_hosts(platform, &hosts, update, schedule)
}

/// Lets these LPs step in this order. `None`: they never come to an end.
#[must_use]
pub fn drive_hosts<H: Host>(
    platform: &SimPlatform,
    hosts: &[H],
    update: &Update<'_>,
    schedule: &Schedule<'_>,
) -> Option<Outcome> {
    let lock = SpinLock::new();
    let mut lps: Vec<_> = hosts
        .iter()
        .filter_map(|host| {
            let cpu = Cpu::new(update, Seamldr::new(host, &lock, CurrentVmcs::Preserved).ok()?);
            Some(Stepping { lp: host.current_lp(), cpu, calls: 0, worked: 0 })
        })
        .collect();
    for byte in schedule.order {
        let Some(index) = usize::from(byte & 0x7f).checked_rem(lps.len()) else { break };
        let Some(lp) = lps.get_mut(index).filter(|lp| !lp.is_away(schedule.absent)) else {
            continue;
        };
        match lp.step(platform) {
            Progress::Waiting if byte >> 7 != 0 => lp.cpu.abandon(),
            Progress::Finished => {
                lps.remove(index);
                if lps.is_empty() {
                    return Some(update.outcome());
                }
            }
            Progress::Waiting | Progress::Worked => {}
        }
    }
    for _ in 0..100_000 {
        let mut stuck = true;
        lps.retain_mut(|lp| {
            if lp.is_away(schedule.absent) {
                return true;
            }
            let progress = lp.step(platform);
            stuck &= progress == Progress::Waiting;
            progress != Progress::Finished
        });
        if lps.iter().any(|lp| lp.worked > MAX_WORK) {
            return None;
        }
        match lps.iter().find(|lp| !lp.is_away(schedule.absent)) {
            None => return Some(update.outcome()),
            Some(lp) if stuck => lp.cpu.abandon(),
            Some(_) => {}
        }
    }
    None
}

/// Whether the TDs live on under another module than the outcome says.
#[must_use]
pub fn wrong_image(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let named = if outcome.image == 0 { new_image() } else { old_image() }.svn_minor;
    let found = platform.truth().svn.minor;
    (outcome.tds_live_on() && found != named)
        .then(|| format!("{outcome}: its image has SVN {named}, but {found} is there"))
}

/// What an update of this library came to.
#[derive(Clone, Debug)]
pub enum Ours {
    /// Refused before anything was shut down.
    Refused(String),
    /// It ran.
    Ran(Outcome),
    /// It did not end.
    Hang,
}

/// What the embedder does with an image file: checks, and an update with the module that runs as
/// the one to fall back on.
///
/// # Errors
///
/// An image that passed the checks, or the one to fall back on, cannot be installed at all.
pub fn update(
    platform: &SimPlatform,
    file: &PageBuf,
    old: &PageBuf,
    policy: Policy,
    absent: Option<Absent>,
) -> Result<Ours> {
    update_by(platform, file, old, policy, |update| drive(platform, update, absent))
}

/// The same, with LPs that `drive` takes through the update; it says how that ended, if it did.
///
/// # Errors
///
/// As [`update`].
pub fn update_by(
    platform: &SimPlatform,
    file: &PageBuf,
    old: &PageBuf,
    policy: Policy,
    drive: impl FnOnce(&Update<'_>) -> Option<Outcome>,
) -> Result<Ours> {
    let host = platform.lp(platform.online().next().unwrap_or(0));
    update_after(platform, file, policy, old, || Ok(host), drive)
}

/// The same, with something that happens between preflight and the update. `meanwhile` returns the
/// host that makes the update.
///
/// # Errors
///
/// As [`update`], and those of `meanwhile`.
pub fn update_after<H: Host>(
    platform: &SimPlatform,
    file: &PageBuf,
    policy: Policy,
    old: &PageBuf,
    meanwhile: impl FnOnce() -> Result<H>,
    drive: impl FnOnce(&Update<'_>) -> Option<Outcome>,
) -> Result<Ours> {
    let image = match TdxImage::parse(file.as_bytes()) {
        Ok(image) => image,
        Err(error) => return Ok(Ours::Refused(error.to_string())),
    };
    let (facts, passed) = match examine(platform, &image, policy, &CRYPTO) {
        Ok(examined) => examined,
        Err(reason) => return Ok(Ours::Refused(reason)),
    };
    let host = platform.lp(platform.online().next().unwrap_or(0));
    let (mut params, mut page, info) = (PageBuf::zeroed(1), PageBuf::zeroed(1), SharedInfo::new());
    let old = TdxImage::parse(old.as_bytes())?;
    let purpose = Purpose::TakeOver { handoff_version: passed.handoff_version() };
    let fallback = preflight_image(&old, &facts, purpose, &CRYPTO, policy, &mut |_| {})
        .map(|passed| passed.prepare(page.as_params(), &host));
    let fallbacks: Vec<_> = fallback.into_iter().collect::<Result<_, _>>()?;
    let host = meanwhile()?;
    let update =
        match Update::new(&passed, params.as_params(), &info, &host, platform.module_state()) {
            Ok(update) => update.with_fallbacks(&fallbacks)?,
            Err(error) => return Ok(Ours::Refused(error.to_string())),
        };
    Ok(drive(&update).map_or(Ours::Hang, Ours::Ran))
}

/// What the embedder asks before an update: what is known, and the image that has passed.
///
/// # Errors
///
/// All reasons against it.
pub fn examine<'a>(
    platform: &SimPlatform,
    image: &TdxImage<'a>,
    policy: Policy,
    crypto: &dyn Crypto,
) -> Result<(Facts, PassedUpdate<'a>), String> {
    let current_vmcs = platform.with_model(|model| {
        if model.config().seamret_clears_vmcs {
            CurrentVmcs::Invalidated
        } else {
            CurrentVmcs::Preserved
        }
    });
    let (lp, lock) = (platform.lp(platform.online().next().unwrap_or(0)), SpinLock::new());
    Seamldr::new(&lp, &lock, current_vmcs).map_err(|error| error.to_string())?;
    let facts = platform.facts().map_err(|error| error.to_string())?;
    let mut reasons = Vec::new();
    match preflight(image, &facts, crypto, policy, &mut |finding| reasons.push(finding.to_string()))
    {
        Ok(passed) => Ok((facts, passed)),
        Err(NotPassed { .. }) => Err(reasons.join("; ")),
    }
}

/// A policy that goes on whatever is unknown.
#[must_use]
pub fn reckless() -> Policy {
    let allow_unknowns = Unknown::ALL.into_iter().fold(Unknowns::NONE, Unknowns::with);
    Policy { allow_same_module: true, allow_damage: true, allow_unknowns }
}

/// Prepares an image for a purpose although nothing is known of it; `None` if preflight refuses
/// what it sees of the image alone.
#[must_use]
pub fn prepare<'a>(
    page: &'a mut PageBuf,
    image: &TdxImage<'a>,
    purpose: Purpose,
    lp: &SimLp<'_>,
) -> Option<PreparedImage<'a>> {
    let passed = preflight_image(image, &Facts::new(), purpose, &NoCrypto, reckless(), &mut |_| {});
    passed.ok()?.prepare(page.as_params(), lp).ok()
}

/// Does what the outcome says, now that whatever was wrong is over, with an image that is good.
/// Says how that ended.
///
/// # Errors
///
/// It is no image, or the update that goes on does not end.
pub fn go_on(platform: &SimPlatform, outcome: &Outcome, good: &PageBuf) -> Result<Outcome> {
    let mut outcome = *outcome;
    for _ in 0..3 {
        outcome = match outcome.next {
            NextStep::InstallAgain | NextStep::CompleteSession => resume(platform, good)?,
            NextStep::Finish => {
                let update = Update::finish(&platform.lp(0), platform.module_state())?;
                drive(platform, &update, None).context("an update that finishes does not end")?
            }
            _ => return Ok(outcome),
        };
        if outcome.tds_live_on() {
            break;
        }
    }
    Ok(outcome)
}

fn resume(platform: &SimPlatform, good: &PageBuf) -> Result<Outcome> {
    let (image, host) = (TdxImage::parse(good.as_bytes())?, platform.lp(0));
    let mut page = PageBuf::zeroed(1);
    let purpose = Purpose::TakeOver { handoff_version: None };
    let image = prepare(&mut page, &image, purpose, &host).context("the image is refused")?;
    let update = Update::resume(image, &host, platform.module_state())?;
    drive(platform, &update, None).context("an update that goes on does not end")
}

/// In what the outcome contradicts the platform, if it does.
#[must_use]
pub fn wrong_claim(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    wrong_claim_of(platform, outcome, platform.truth().tds)
}

/// The same, of an update that began with this number of TDs: somebody else may have ended others
/// before.
#[must_use]
pub fn wrong_claim_of(platform: &SimPlatform, outcome: &Outcome, tds: usize) -> Option<String> {
    let truth = platform.truth();
    let alive = truth.tds_alive == tds;
    let state = truth.module.map(|module| (module.callable, module.state));
    let is_callable = state.is_some_and(|(callable, _)| callable);
    let fate = match outcome.tds {
        TdFate::NeverAtRisk => alive && outcome.running == RunningModule::Old,
        TdFate::Preserved => alive && outcome.running == RunningModule::New,
        TdFate::Held => truth.handoff_valid && !alive,
        TdFate::Lost => !alive,
        // What nothing is known about is no claim.
        TdFate::Unknown => return None,
    };
    let running = match outcome.running {
        RunningModule::Old | RunningModule::New => state == Some((true, ModuleState::Ready)),
        RunningModule::OldShutDown => state == Some((true, ModuleState::Shutdown)),
        RunningModule::NewNotReady => {
            matches!(state, Some((true, ModuleState::SysInitPending | ModuleState::SysInitDone)))
        }
        RunningModule::SessionOpen => truth.lps_in_session > 0,
        // At the start no LP may have asked.
        RunningModule::NoneKnown => {
            !is_callable
                || outcome.stage == Stage::Start
                || is_unclear(platform)
                || is_unasked(platform)
        }
    };
    (!(fate && running)).then(|| format!("{outcome} ({:?}), but {truth:?}", outcome.running))
}

/// Whether what a module answered when it was last asked how it stands says nothing of it.
fn is_unclear(platform: &SimPlatform) -> bool {
    let trace = platform.trace();
    let asked = trace
        .iter()
        .rev()
        .find(|entry| TdxLeaf::from_rax(entry.input.rax) == TdxLeaf::SYS_TDMR_INIT);
    asked.is_some_and(|entry| match entry.output.map(|regs| TdxStatus(regs.rax)) {
        Ok(status) => {
            let is_ready = !status.is_failure() || status.code() == TdxStatus::OPERAND_INVALID;
            !is_ready && ![TdxStatus::SYS_SHUTDOWN, TdxStatus::SYS_NOT_READY].contains(&status)
        }
        Err(trap) => trap != Trap::VmFailInvalid,
    })
}

/// Whether no LP had an answer from a module since the last call of SEAMLDR.INSTALL.
fn is_unasked(platform: &SimPlatform) -> bool {
    let trace = platform.trace();
    let mut since =
        trace.iter().rev().take_while(|entry| entry.input.rax != SeamldrLeaf::Install.rax());
    since.all(|entry| entry.output.is_err() || SeamldrLeaf::from_rax(entry.input.rax).is_some())
}

/// Whether the failure that the outcome names is of a call that nobody has made, or that has ended
/// otherwise.
#[must_use]
pub fn wrong_failure(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let trace = platform.trace();
    // A trap is kept as the word that Linux has for it.
    let word = |entry: &TraceEntry| match entry.output {
        Ok(regs) => regs.rax,
        Err(trap) => trap.status().0,
    };
    let is_there = |failure: &Failure| {
        let (call, status) = match failure.cause {
            FailureCause::Trap(call, trap) => (call, trap.status().0),
            FailureCause::Tdx(leaf, status) => (Call::Tdx(leaf), status.0),
            FailureCause::Seamldr { leaf, status, .. } => (Call::Seamldr(leaf), status.0),
            _ => return true,
        };
        let is_call = |rax: u64| match call {
            Call::Seamldr(leaf) => rax == leaf.rax(),
            Call::Tdx(leaf) => TdxLeaf::from_rax(rax) == leaf,
        };
        trace.iter().any(|entry| {
            entry.lp == failure.lp && is_call(entry.input.rax) && word(entry) == status
        })
    };
    let named = outcome.failure.iter().chain(&outcome.last_failure);
    named
        .into_iter()
        .find(|failure| !is_there(failure))
        .map(|failure| format!("there was no such failure: {failure}"))
}

/// Whether a status claims something about the module or the session. Firmware that answers so has
/// to tell the truth.
#[must_use]
pub fn says_something(call: u64, status: u64) -> bool {
    if call >> 63 == 1 {
        let known = SeamldrStatus(status);
        return known.is_success() || known == SeamldrStatus::EBADCALL;
    }
    let status = TdxStatus(status);
    let about_the_state = [
        TdxStatus::SYS_SHUTDOWN,
        TdxStatus::SYS_NOT_READY,
        TdxStatus::SYS_LP_INIT_NOT_DONE,
        TdxStatus::SYS_INVALID_HANDOFF,
    ];
    // What only a module that is ready says to the call that asks whether it is.
    let ready =
        call == u64::from(TdxLeaf::SYS_TDMR_INIT.0) && status.code() == TdxStatus::OPERAND_INVALID;
    !status.is_failure()
        || ready
        || about_the_state.contains(&status.code())
        || Trap::from_status(status).is_some()
}
