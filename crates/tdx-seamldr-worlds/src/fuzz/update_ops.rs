//! Runs scripts of faults, LP order and images on an update. The update ends, and its outcome is
//! true.

mod script;

use std::collections::BTreeSet;

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::{preflight, Facts, HandoffRange, PassedUpdate, Purpose};
use tdx_seamldr_core::update::{FailureCause, NextStep, Outcome, Stage, TdFate, Update};
use tdx_seamldr_core::{NoCrypto, SeamcallBackend, SeamcallRegs, SharedInfo, TdxImage, Trap};
use tdx_seamldr_mock::model::{GlobalLock, TdPhase};
use tdx_seamldr_mock::{Answer, Fault, PageBuf, SimPlatform};

use super::images::{File, NEW, PLAIN, RESCUE};
use super::numbers::Numbers;
use crate::memo::CRYPTO;
use crate::world::{
    all_alive, boot, drive_in_order, examine, prepare, reckless, says_something, wrong_claim,
    wrong_failure, Absent, Schedule,
};
use script::{After, Script, Version};
pub(super) use script::{CALLS, HEAD, TROUBLE};

/// The most traps in a row that are not taken for an open session. More of them look exactly like
/// one.
const BELIEVED: u32 = 3;

/// The combined properties of the troubles that were made.
#[derive(Default)]
struct Troubles {
    absent: Vec<Absent>,
    told: Vec<String>,
    /// Whether a status contradicts the firmware's state. The outcome may repeat it.
    lies: bool,
    /// Number of single traps.
    traps: u32,
    /// LPs that do not reach the module.
    cut_off: BTreeSet<u32>,
    /// Whether a fault replaced a status, or an LP did not reach firmware. The library may then
    /// know too little.
    confusing: bool,
    /// The fault, if it is the only trouble and the fallback is the module that ran before.
    only: Option<Fault>,
}

impl Troubles {
    /// Makes one trouble.
    fn add(&mut self, platform: &SimPlatform, new: &mut PageBuf, mut numbers: Numbers<'_>) {
        let kind = numbers.u8() % 16;
        let (lp, call, after, times) = (numbers.u8(), numbers.u8(), numbers.u8(), numbers.u8());
        let (choice, small, value) = (numbers.u8(), numbers.u8(), {
            numbers.u8();
            numbers.u64()
        });
        let some_lp = u32::from(lp % 8);
        let rax = CALLS[usize::from(call) % CALLS.len()];
        let mut fault = |answer| {
            let fault = Fault {
                lp: (lp & 0x80 != 0).then_some(some_lp),
                rax: (rax != u64::MAX).then_some(rax),
                after: u32::from(after % 64),
                times: u32::from(times % 32) + 1,
                answer,
            };
            platform.inject(fault);
            self.confusing |= !matches!(answer, Answer::Delay(_));
            self.only = Some(fault).filter(|_| self.told.is_empty());
            self.told.push(format!("{fault:x?}"));
            match answer {
                Answer::Return { rax: status, .. } => {
                    let any = [SeamldrLeaf::Install as u64, TdxLeaf::SYS_TDMR_INIT.0.into()];
                    let calls = if rax == u64::MAX { any.as_slice() } else { &[rax] };
                    self.lies |= calls.iter().any(|call| says_something(*call, status));
                }
                Answer::Trap(_) => {
                    self.traps = self.traps.saturating_add(fault.times);
                    self.lies |= self.traps > BELIEVED;
                }
                Answer::Delay(_) => {}
            }
        };
        let is_seamldr = rax >> 63 == 1 && rax != u64::MAX;
        let known = if is_seamldr {
            SeamldrStatus::TABLE[usize::from(choice) % SeamldrStatus::TABLE.len()].status.0
        } else {
            TdxStatus::TABLE[usize::from(choice) % TdxStatus::TABLE.len()].status.0
        };
        match kind {
            0..=3 => {
                return fault(Answer::Return {
                    rax: known,
                    rdx: if is_seamldr { u64::from(small & 1) } else { 0 },
                })
            }
            4 => {
                return fault(Answer::Return {
                    rax: known | u64::from(value as u32),
                    rdx: small.into(),
                })
            }
            5 => return fault(Answer::Return { rax: value, rdx: small.into() }),
            6 | 7 => return fault(Answer::Trap(Trap::ALL[usize::from(choice) % 3])),
            8 => return fault(Answer::Delay(u32::from(choice % 8))),
            9 => self.absent.push(Absent { lp: some_lp, after: usize::from(after % 12) }),
            10 => {
                let at = value as usize % new.as_bytes().len();
                // Preflight has already read the file; `tamper` works only on pages that firmware
                // knows.
                new.as_mut_bytes()[at] ^= small;
            }
            _ => {}
        }
        platform.with_model(|model| match kind {
            11 => drop(model.deviate_msr(some_lp, 0xfe, value | 1)),
            12 => model.seamdb_mut().insert_failures = u32::from(choice % 8),
            13 => model.config_mut().rdrand_failures = u32::from(choice % 32),
            14 => match choice % 4 {
                0 => model.set_in_module(some_lp, true),
                1 => model.set_trap(some_lp, Some(Trap::ALL[usize::from(small) % 3])),
                2 => model.seamdb_mut().used = 64,
                _ => {
                    let lock =
                        if small & 1 == 0 { GlobalLock::Shared } else { GlobalLock::Exclusive };
                    model.module_mut().into_iter().for_each(|module| module.set_lock(lock));
                }
            },
            _ => {}
        });
        if kind == 15 {
            let phase =
                if choice & 1 == 0 { TdPhase::Build } else { TdPhase::InterruptedMigration };
            // There may be no room for another TD.
            let _ = platform.create_td_in(phase);
        }
        if kind == 14 && choice % 4 < 2 {
            self.cut_off.insert(some_lp);
            self.confusing = true;
        }
        self.only = None;
        let told = ["away", "damaged file", "MSR", "database", "RDRAND", "held", "TD in build"];
        let what = usize::from(kind).checked_sub(9).and_then(|index| told.get(index));
        self.told
            .push(format!("{what:?}: LP {some_lp}, {choice}, {small}, {value:#x}, after {after}"));
    }
}

/// Returns whether an update with the old module as fallback preserves the TDs in spite of this one
/// fault.
fn is_overcome(fault: Fault) -> bool {
    fault.times == 1 && !matches!(fault.answer, Answer::Return { rdx: 1.., .. })
}

/// Checks what holds for every outcome.
fn consistent(outcome: &Outcome, lps: u32) {
    let is_loaded = outcome.next == NextStep::Configure;
    assert_eq!(outcome.errno().is_none(), outcome.is_updated() || is_loaded, "{outcome:?}");
    assert!((1..=16).contains(&outcome.rounds), "{outcome:?}");
    assert_eq!(outcome.lps, lps);
    for stage in Stage::ALL {
        assert!(outcome.finished(stage) <= lps, "{outcome:?}");
    }
    assert_eq!(outcome.tds_live_on(), outcome.next == NextStep::Done, "{outcome:?}");
    assert!(outcome.last_failure.is_none() || outcome.failure.is_some(), "{outcome:?}");
    assert!(outcome.failure.is_some() || outcome.rounds == 1, "{outcome:?}");
    assert!(!outcome.to_string().is_empty() && !outcome.code().is_empty());
}

/// Returns a description if the TDs run under another module than the outcome says.
fn wrong_image(
    platform: &SimPlatform,
    outcome: &Outcome,
    images: &[&'static File],
) -> Option<String> {
    let named = images.get(usize::from(outcome.image)).map(|file| (file.svn_minor, file.mrseam));
    let truth = platform.truth();
    let found = (truth.svn.minor, truth.mrseam);
    (outcome.tds_live_on() && named != Some(found)).then(|| {
        format!(
            "{outcome}: image {} has MRSEAM {named:x?}, but the running module has {found:x?}",
            outcome.image
        )
    })
}

/// Returns a description if the outcome leaves the fate of the TDs open although they are alive or
/// can be restored.
fn wrong_doubt(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let truth = platform.truth();
    // There is handoff data, but the installed module cannot use it.
    let is_of_no_use = match outcome.last_failure.map(|failure| failure.cause) {
        Some(FailureCause::Seamldr { status, .. }) => status == SeamldrStatus::EBADHANDOFF,
        Some(FailureCause::Tdx(_, status)) => status.code() == TdxStatus::SYS_INVALID_HANDOFF,
        _ => false,
    };
    let known = all_alive(platform) || truth.handoff_valid && !is_of_no_use;
    (outcome.tds == TdFate::Unknown && known && !platform.with_model(|model| model.is_dead()))
        .then(|| format!("{outcome}, but {truth:?}"))
}

/// An update, from the checks to the script's last step.
struct Trial<'a> {
    script: &'a Script<'a>,
    platform: SimPlatform,
    troubles: Troubles,
}

impl Trial<'_> {
    fn lps(&self) -> u32 {
        self.platform.online().count() as u32
    }

    /// Repairs everything.
    fn repair(&mut self) {
        self.platform.clear_faults();
        self.platform.with_model(|model| {
            let lps: Vec<u32> = (0..).take_while(|lp| model.x2apic_id(*lp).is_some()).collect();
            for lp in lps {
                model.restore_lp(lp);
                model.set_trap(lp, None);
                model.set_in_module(lp, false);
            }
            model.config_mut().rdrand_failures = 0;
            model.seamdb_mut().insert_failures = 0;
            model.module_mut().into_iter().for_each(|module| module.set_lock(GlobalLock::Free));
        });
        self.troubles.absent.clear();
        self.troubles.cut_off.clear();
    }

    fn wrong(&self, what: &str) -> ! {
        let trace: Vec<String> = self.platform.trace().iter().map(ToString::to_string).collect();
        panic!("{what}\n{:#?}\n{}", self.troubles.told, trace.join("\n"))
    }

    /// Drives an update to its end, and compares.
    fn drive(&self, update: &Update<'_>, order: &[u8], what: &str) -> Outcome {
        let schedule = Schedule { order, absent: &self.troubles.absent };
        let Some(outcome) = drive_in_order(&self.platform, update, &schedule) else {
            self.wrong(&format!("{what} does not end"))
        };
        consistent(&outcome, self.lps());
        if let Some(claim) = wrong_failure(&self.platform, &outcome) {
            self.wrong(&format!("{what}: {claim}"));
        }
        if !self.troubles.lies {
            if let Some(claim) = wrong_claim(&self.platform, &outcome) {
                self.wrong(&format!("{what}: {claim}"));
            }
        }
        outcome
    }

    /// Without a confusing trouble: checks that the outcome does not leave the fate of the TDs open
    /// although they are alive or can be restored.
    fn doubts(&self, outcome: &Outcome) {
        if self.troubles.confusing {
            return;
        }
        if let Some(claim) = wrong_doubt(&self.platform, outcome) {
            self.wrong(&claim);
        }
    }

    /// Returns the update with handoff data in the script's version, whatever the modules have in
    /// common. Returns `None` if the image does not accept the version.
    fn in_version<'i>(
        &self,
        image: &TdxImage<'i>,
        facts: Facts,
        passed: PassedUpdate<'i>,
    ) -> Option<PassedUpdate<'i>> {
        let handoff = match self.script.version {
            Version::Negotiated => return Some(passed),
            Version::Highest => None,
            Version::Given(hv) => {
                Some(HandoffRange { module_hv: hv, min_update_hv: hv, no_downgrade: false })
            }
        };
        preflight(image, &Facts { handoff, ..facts }, &CRYPTO, reckless(), &mut |_| {}).ok()
    }

    /// Updates. Returns `None` if preflight refused before the shutdown.
    fn update(&self, file: &'static File, damaged: &PageBuf, is_first: bool) -> Option<Outcome> {
        let script = self.script;
        let Ok(image) = TdxImage::parse_without_checksum(damaged.as_bytes()) else { return None };
        let passed = if script.asks_first {
            let before = self.platform.truth();
            match examine(&self.platform, &image, script.policy, &CRYPTO) {
                Ok((facts, passed)) => self.in_version(&image, facts, passed)?,
                Err(reasons) => {
                    let may_follow = NEW.iter().take(PLAIN).any(|plain| std::ptr::eq(plain, file));
                    if may_follow && is_first && self.troubles.told.is_empty() {
                        self.wrong(&format!("there was no fault, but {reasons}"));
                    }
                    let after = self.platform.truth();
                    assert!(
                        after.module == before.module || self.troubles.lies,
                        "refused, but {before:?} became {after:?}"
                    );
                    return None;
                }
            }
        } else {
            let facts = Facts { num_lps: Some(self.lps()), ..Facts::new() };
            let passed = preflight(&image, &facts, &NoCrypto, reckless(), &mut |_| {}).ok()?;
            self.in_version(&image, facts, passed)?
        };
        let images: Vec<&'static File> =
            [file].into_iter().chain(script.fallbacks.iter().copied()).collect();
        let host = self.platform.lp(0);
        let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
        let mut pages = vec![PageBuf::zeroed(1); script.fallbacks.len()];
        let purpose = Purpose::TakeOver { handoff_version: None };
        let fallback = |(file, page): (&&'static File, _)| {
            let image = TdxImage::parse_without_checksum(file.bytes.as_bytes()).unwrap();
            prepare(page, &image, purpose, &host)
        };
        let fallbacks: Vec<_> =
            script.fallbacks.iter().zip(&mut pages).map_while(fallback).collect();
        let state = self.platform.module_state();
        let update = Update::new(&passed, params.as_params(), &info, &host, state).unwrap();
        let update = update.with_fallbacks(&fallbacks).unwrap();
        let update = if script.detect_compat_damage { update.detecting_damage() } else { update };
        let outcome = self.drive(&update, script.order, "the update");
        if !self.troubles.lies {
            if let Some(claim) = wrong_image(&self.platform, &outcome, &images) {
                self.wrong(&claim);
            }
        }
        if is_first {
            self.doubts(&outcome);
        }
        let no_lp_gives_up = script.order.iter().all(|byte| byte >> 7 == 0);
        let usual = is_first && script.asks_first && no_lp_gives_up;
        if usual && matches!(script.version, Version::Negotiated) {
            if self.troubles.told.is_empty() {
                assert!(
                    !file.fits || outcome.is_updated() || outcome.sensitive().is_some(),
                    "there was no fault, but {outcome}"
                );
            }
            // The fallbacks were not checked.
            let falls_back = !script.fallbacks.is_empty()
                && script.fallbacks.iter().all(|file| std::ptr::eq(*file, script.old));
            let one_fault = self.troubles.only.is_some_and(is_overcome) && !self.troubles.lies;
            if one_fault && falls_back && file.fits && !all_alive(&self.platform) {
                self.wrong(&format!("one fault was not overcome: {outcome}"));
            }
        }
        Some(outcome)
    }

    /// Makes the script's next step.
    fn go_on(&self, after: After, file: &'static File, outcome: &Outcome) -> Option<Outcome> {
        let next = match after {
            After::Follow | After::FollowInTrouble => outcome.next,
            After::Resume => NextStep::InstallAgain,
            After::Finish => NextStep::Finish,
            After::Load => NextStep::Load,
            After::Update => NextStep::Retry,
        };
        let (state, host) = (self.platform.module_state(), self.platform.lp(0));
        let image = TdxImage::parse_without_checksum(file.bytes.as_bytes()).unwrap();
        let (mut page, was_held) = (PageBuf::zeroed(1), outcome.tds == TdFate::Held);
        let take_over = Purpose::TakeOver { handoff_version: None };
        let update = match next {
            NextStep::InstallAgain | NextStep::CompleteSession => {
                Update::resume(prepare(&mut page, &image, take_over, &host)?, &host, state)
            }
            NextStep::Finish => Update::finish(&host, state),
            NextStep::Load => {
                Update::load(prepare(&mut page, &image, Purpose::Load, &host)?, &host, state)
            }
            NextStep::Retry | NextStep::RetryLater => return self.update(file, &file.bytes, false),
            NextStep::Done | NextStep::Configure | NextStep::Reboot => return None,
        };
        let update = update.unwrap();
        // If no LP of the next update reaches a running module, the module seems to be missing.
        let is_reached = self.platform.online().any(|lp| !self.troubles.cut_off.contains(&lp));
        let before = is_reached && all_alive(&self.platform);
        let outcome = self.drive(&update, &[], &format!("{after:?} ({next:?}) after {outcome}"));
        if before
            && !all_alive(&self.platform)
            && !self.troubles.lies
            && outcome.tds != TdFate::Lost
        {
            self.wrong(&format!("{after:?} ({next:?}) lost TDs that were alive: {outcome}"));
        }
        if was_held && next != NextStep::Load {
            self.doubts(&outcome);
        }
        if !self.troubles.lies && next != NextStep::Finish {
            if let Some(claim) = wrong_image(&self.platform, &outcome, &[file]) {
                self.wrong(&claim);
            }
        }
        Some(outcome)
    }

    /// Repairs everything and follows the outcomes. Then the TDs run again, if any software can
    /// make them run again.
    fn save(&self, mut outcome: Outcome) {
        let image = TdxImage::parse(RESCUE.as_bytes()).unwrap();
        let (state, host) = (self.platform.module_state(), self.platform.lp(0));
        let facts = Facts { num_lps: Some(self.lps()), ..Facts::new() };
        let passed = preflight(&image, &facts, &NoCrypto, reckless(), &mut |_| {}).unwrap();
        let (mut page, info) = (PageBuf::zeroed(1), SharedInfo::new());
        let purpose = Purpose::TakeOver { handoff_version: None };
        let prepared = prepare(&mut page, &image, purpose, &host).unwrap();
        for _ in 0..6 {
            outcome = match outcome.next {
                NextStep::InstallAgain | NextStep::CompleteSession => {
                    self.drive(&Update::resume(prepared, &host, state).unwrap(), &[], "saving")
                }
                NextStep::Finish => {
                    self.drive(&Update::finish(&host, state).unwrap(), &[], "saving")
                }
                NextStep::Retry | NextStep::RetryLater => {
                    let mut params = PageBuf::zeroed(1);
                    let update =
                        Update::new(&passed, params.as_params(), &info, &host, state).unwrap();
                    self.drive(&update, &[], "saving")
                }
                NextStep::Done | NextStep::Load | NextStep::Configure | NextStep::Reboot => break,
            };
        }
        if !all_alive(&self.platform)
            && by_hand(&self.platform, prepared.request().params().get().0)
        {
            self.wrong(&format!("single calls preserve the TDs, but {outcome}"));
        }
    }
}

/// Makes all calls that might preserve the TDs, without the library. Returns whether they do.
fn by_hand(platform: &SimPlatform, params: u64) -> bool {
    let lps: Vec<u32> = platform.online().collect();
    let call = |lp: u32, rax: u64, rcx: u64| {
        let mut regs = SeamcallRegs { rax, rcx, ..SeamcallRegs::default() };
        // SAFETY: the parameters belong to a request that is alive. The other calls take no
        // address.
        unsafe { platform.lp(lp).seamcall(&mut regs) }.is_ok_and(|()| regs.rax == 0)
    };
    for install in [false, true] {
        if install {
            lps.iter().for_each(|lp| _ = call(*lp, SeamldrLeaf::Install.rax(), params));
        }
        call(0, TdxLeaf::SYS_INIT.rax(0), 0);
        lps.iter().for_each(|lp| _ = call(*lp, TdxLeaf::SYS_LP_INIT.rax(0), 0));
        if call(0, TdxLeaf::SYS_UPDATE.rax(0), 0) && all_alive(platform) {
            return true;
        }
    }
    false
}

/// Takes 16 bytes for platform, images and the steps after the update, then up to 12 troubles of 16
/// bytes, then the order of the LPs: see `Script::read`.
pub fn update_ops(input: &[u8]) {
    let script = Script::read(input);
    let size = if script.one_update_left { 2 } else { 64 };
    let builder = SimPlatform::builder()
        .seamdb_size(size)
        .lps(script.lps)
        .sockets(script.sockets)
        .yielding(|| {});
    let mut trial = Trial {
        platform: boot(builder, &script.old.bytes).expect("the platform boots"),
        troubles: Troubles::default(),
        script: &script,
    };
    let mut damaged = script.new.bytes.clone();
    for numbers in &script.troubles {
        trial.troubles.add(&trial.platform, &mut damaged, *numbers);
    }
    let Some(mut outcome) = trial.update(script.new, &damaged, true) else { return };
    for (after, file) in &script.after {
        if !matches!(after, After::FollowInTrouble) {
            trial.repair();
        }
        match trial.go_on(*after, file, &outcome) {
            Some(next) => outcome = next,
            None => break,
        }
    }
    // A cut-off LP reaches nothing. If no LP reaches anything, SEAM mode looks permanently off.
    let looks_gone =
        outcome.next == NextStep::Reboot && trial.troubles.cut_off.len() == trial.lps() as usize;
    trial.repair();
    if !trial.troubles.lies && !looks_gone {
        trial.save(outcome);
    }
}
