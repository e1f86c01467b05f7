//! A platform with TDs, an update of it by this library, and the next step of its outcome.

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

/// Number of TDs on a platform.
pub const TDS: usize = 3;

/// Returns the module that runs before the update: 1.5.01, with 16 pages for handoff data.
#[must_use]
pub fn old_image() -> TestImage {
    TestImage {
        num_handoff_pages: 15,
        module_build: Some(ModuleBuild::V1_5_01),
        ..TestImage::default()
    }
}

/// Returns the new module.
#[must_use]
pub fn new_image() -> TestImage {
    TestImage { svn_minor: 6, ..old_image() }
}

/// Boots this image and starts the TDs.
///
/// # Errors
///
/// The file is not an image, or the platform does not come up.
pub fn boot(builder: Builder, image: &PageBuf) -> Result<SimPlatform> {
    let platform =
        builder.patience(1000).crypto(&CRYPTO).boot(&TdxImage::parse(image.as_bytes())?)?;
    for _ in 0..TDS {
        platform.create_td()?;
    }
    platform.clear_trace();
    Ok(platform)
}

/// Returns whether the memory and the measurement of every TD are intact.
#[must_use]
pub fn all_alive(platform: &SimPlatform) -> bool {
    let truth = platform.truth();
    truth.tds_alive == truth.tds
}

/// An LP that stops calling after some calls.
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    /// The LP.
    pub lp: u32,
    /// Number of calls that the LP makes before it stops.
    pub after: usize,
}

/// The order in which LPs step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedule<'a> {
    /// One step per byte. The byte modulo the number of LPs selects the LP. With bit 7 set, the LP
    /// gives up after this step if it waits for others. After these steps, all LPs step in turn;
    /// if none can go on, one gives up.
    pub order: &'a [u8],
    /// LPs that stop calling.
    pub absent: &'a [Absent],
}

/// The most steps in which one LP works: 16 rounds of 5 stages.
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

/// Steps all LPs in turn; if none can go on, one gives up. Returns `None` if they never finish.
#[must_use]
pub fn drive(
    platform: &SimPlatform,
    update: &Update<'_>,
    absent: Option<Absent>,
) -> Option<Outcome> {
    drive_in_order(platform, update, &Schedule { order: &[], absent: absent.as_slice() })
}

/// Steps the LPs in this order. Returns `None` if they never finish.
#[must_use]
pub fn drive_in_order(
    platform: &SimPlatform,
    update: &Update<'_>,
    schedule: &Schedule<'_>,
) -> Option<Outcome> {
    let hosts: Vec<_> = platform.online().map(|lp| platform.lp(lp)).collect();
    drive_hosts(platform, &hosts, update, schedule)
}

/// Steps these LPs in this order. Returns `None` if they never finish.
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

/// Returns a description if the TDs run under another module than the outcome says.
#[must_use]
pub fn wrong_image(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let named = if outcome.image == 0 { new_image() } else { old_image() }.svn_minor;
    let found = platform.truth().svn.minor;
    (outcome.tds_live_on() && found != named)
        .then(|| format!("{outcome}: its image has SVN {named}, but {found} is there"))
}

/// Result of an update by this library.
#[derive(Clone, Debug)]
pub enum Ours {
    /// Preflight refused the update before the shutdown.
    Refused(String),
    /// The update ran.
    Ran(Outcome),
    /// The update did not end.
    Hang,
}

/// Checks an image file and updates, as an embedder does. The running module is the fallback.
///
/// # Errors
///
/// An image that passed preflight, or the fallback, cannot be installed at all.
pub fn update(
    platform: &SimPlatform,
    file: &PageBuf,
    old: &PageBuf,
    policy: Policy,
    absent: Option<Absent>,
) -> Result<Ours> {
    update_by(platform, file, old, policy, |update| drive(platform, update, absent))
}

/// Updates as [`update`] does. `drive` takes the LPs through the update and returns the outcome if
/// the update ended.
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

/// Updates as [`update_by`] does. `meanwhile` runs between preflight and the update, and returns
/// the host that makes the update.
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

/// Runs preflight with all facts that the host knows; returns the image that has passed.
///
/// # Errors
///
/// All refusals and unknown facts.
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

/// Returns a policy that allows all unknown facts.
#[must_use]
pub fn reckless() -> Policy {
    let allow_unknowns = Unknown::ALL.into_iter().fold(Unknowns::NONE, Unknowns::with);
    Policy { allow_same_module: true, allow_damage: true, allow_unknowns }
}

/// Prepares an image for a purpose without any fact. Returns `None` if preflight refuses the image
/// by itself.
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

/// Follows the outcome's next step after all faults have ended, with a valid image. Returns the new
/// outcome.
///
/// # Errors
///
/// The file is not an image, or the next update does not end.
pub fn go_on(platform: &SimPlatform, outcome: &Outcome, good: &PageBuf) -> Result<Outcome> {
    let mut outcome = *outcome;
    for _ in 0..3 {
        outcome = match outcome.next {
            NextStep::InstallAgain | NextStep::CompleteSession => resume(platform, good)?,
            NextStep::Finish => {
                let update = Update::finish(&platform.lp(0), platform.module_state())?;
                drive(platform, &update, None).context("a finishing update does not end")?
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
    drive(platform, &update, None).context("a resumed update does not end")
}

/// Returns a description if the outcome contradicts the platform's real state.
#[must_use]
pub fn wrong_claim(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    wrong_claim_of(platform, outcome, platform.truth().tds)
}

/// Checks as [`wrong_claim`] does, for an update that began with this number of TDs. Other software
/// may have ended further TDs before.
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
        // An unknown fate is not a claim.
        TdFate::Unknown => return None,
    };
    let running = match outcome.running {
        RunningModule::Old | RunningModule::New => state == Some((true, ModuleState::Ready)),
        RunningModule::OldShutDown => state == Some((true, ModuleState::Shutdown)),
        RunningModule::NewNotReady => {
            matches!(state, Some((true, ModuleState::SysInitPending | ModuleState::SysInitDone)))
        }
        RunningModule::SessionOpen => truth.lps_in_session > 0,
        // At the start, possibly no LP has called the module.
        RunningModule::NoneKnown => {
            !is_callable
                || outcome.stage == Stage::Start
                || is_unclear(platform)
                || is_unasked(platform)
        }
    };
    (!(fate && running)).then(|| format!("{outcome} ({:?}), but {truth:?}", outcome.running))
}

/// Returns whether the module's last answer about its state was ambiguous.
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

/// Returns whether no LP got an answer from the module since the last SEAMLDR.INSTALL.
fn is_unasked(platform: &SimPlatform) -> bool {
    let trace = platform.trace();
    let mut since =
        trace.iter().rev().take_while(|entry| entry.input.rax != SeamldrLeaf::Install.rax());
    since.all(|entry| entry.output.is_err() || SeamldrLeaf::from_rax(entry.input.rax).is_some())
}

/// Returns a description if the trace does not contain the failure that the outcome names.
#[must_use]
pub fn wrong_failure(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let trace = platform.trace();
    // Linux's status for a trap replaces the trap.
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
        .map(|failure| format!("the trace has no such failure: {failure}"))
}

/// Returns whether a status makes a claim about the module or the session. Firmware that returns
/// such a status has to tell the truth.
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
    // Statuses that only a ready module returns to the call that checks for readiness.
    let ready =
        call == u64::from(TdxLeaf::SYS_TDMR_INIT.0) && status.code() == TdxStatus::OPERAND_INVALID;
    !status.is_failure()
        || ready
        || about_the_state.contains(&status.code())
        || Trap::from_status(status).is_some()
}
