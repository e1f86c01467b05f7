//! A script of faults, LP order and images on the update machine: it ends, and what its outcome
//! says is so.

use std::collections::BTreeSet;

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::{
    preflight, Facts, HandoffRange, PassedUpdate, Policy, Purpose, Unknowns,
};
use tdx_seamldr_core::update::{FailureCause, NextStep, Outcome, Stage, TdFate, Update};
use tdx_seamldr_core::{NoCrypto, SeamcallBackend, SeamcallRegs, SharedInfo, TdxImage, Trap};
use tdx_seamldr_mock::model::{GlobalLock, TdPhase};
use tdx_seamldr_mock::{Answer, Fault, PageBuf, SimPlatform};

use super::images::{File, NEW, OLD, PLAIN, RESCUE};
use super::numbers::Numbers;
use crate::memo::CRYPTO;
use crate::world::{
    all_alive, boot, drive_in_order, examine, prepare, reckless, says_something, wrong_claim,
    wrong_failure, Absent, Schedule,
};

/// The calls of an update and of the checks before it.
pub(super) const CALLS: [u64; 12] = [
    SeamldrLeaf::Install as u64,
    SeamldrLeaf::Info as u64,
    SeamldrLeaf::SeamInfo as u64,
    TdxLeaf::SYS_SHUTDOWN.0 as u64,
    TdxLeaf::SYS_INIT.0 as u64,
    TdxLeaf::SYS_LP_INIT.0 as u64,
    TdxLeaf::SYS_UPDATE.0 as u64,
    TdxLeaf::SYS_UPDATE.0 as u64 | 1 << 16,
    TdxLeaf::SYS_RD.0 as u64,
    TdxLeaf::SYS_TDMR_INIT.0 as u64,
    TdxLeaf::SYS_CONFIG.0 as u64,
    u64::MAX,
];

/// Bytes of one trouble in an input.
pub(super) const TROUBLE: usize = 16;
/// Troubles of one input, at most.
const MAX_TROUBLES: usize = 12;
/// Bytes before the troubles.
pub(super) const HEAD: usize = 16;

/// What an input says.
struct Script<'a> {
    lps: u32,
    sockets: u32,
    asks_first: bool,
    policy: Policy,
    detect_compat_damage: bool,
    /// P-SEAMLDR puts one more module in place before a reboot.
    one_update_left: bool,
    old: &'static File,
    new: &'static File,
    fallbacks: Vec<&'static File>,
    version: Version,
    after: Vec<(After, &'static File)>,
    troubles: Vec<Numbers<'a>>,
    order: &'a [u8],
}

/// In which version the handoff data is to be written.
#[derive(Clone, Copy)]
enum Version {
    Negotiated,
    Highest,
    Given(u16),
}

/// What is done after an update.
#[derive(Clone, Copy, Debug)]
enum After {
    /// What its outcome says, now that all faults are over.
    Follow,
    /// What its outcome says, with the same troubles as before.
    FollowInTrouble,
    Resume,
    Finish,
    Load,
    Update,
}

impl<'a> Script<'a> {
    fn read(input: &'a [u8]) -> Self {
        let mut numbers = Numbers(input);
        let flags = numbers.u8();
        let lps = u32::from(flags & 7) + 1;
        let mut script = Self {
            lps,
            sockets: if flags & 8 != 0 && lps > 1 { 2 } else { 1 },
            asks_first: flags & 16 == 0,
            policy: Policy {
                allow_same_module: flags & 32 != 0,
                allow_unknowns: if flags & 64 != 0 {
                    Unknowns::OF_PLATFORM
                } else {
                    Unknowns::NONE
                },
                allow_damage: flags & 64 != 0,
            },
            detect_compat_damage: flags & 128 != 0,
            one_update_left: false,
            old: &OLD[usize::from(numbers.u8()) % OLD.len()],
            new: &NEW[usize::from(numbers.u8()) % NEW.len()],
            fallbacks: Vec::new(),
            version: Version::Negotiated,
            after: Vec::new(),
            troubles: Vec::new(),
            order: &[],
        };
        let count = numbers.u8() % 4;
        for number in 0..3 {
            let index = usize::from(numbers.u8()) % (NEW.len() + 1);
            // The module that ran before is the usual one.
            let fallback = index.checked_sub(1).map_or(script.old, |index| &NEW[index]);
            if number < count {
                script.fallbacks.push(fallback);
            }
        }
        let (choice, given) = (numbers.u8(), numbers.u8());
        script.version = match choice % 4 {
            0 | 1 => Version::Negotiated,
            2 => Version::Highest,
            _ => Version::Given(given.into()),
        };
        let count = numbers.u8() % 5;
        for number in 0..4 {
            let byte = numbers.u8();
            let after = [
                After::Follow,
                After::FollowInTrouble,
                After::Resume,
                After::Finish,
                After::Load,
                After::Update,
            ][usize::from(byte % 6)];
            let file = &NEW[usize::from(byte / 6) % NEW.len()];
            if number < count {
                script.after.push((after, file));
            }
        }
        script.one_update_left = numbers.u8() & 3 == 3;
        let count = usize::from(numbers.u8()).min(MAX_TROUBLES);
        script.troubles.extend((0..count).map(|_| Numbers(numbers.bytes(TROUBLE))));
        script.order = numbers.bytes(256);
        script
    }
}

/// Traps in a row that are not taken for an open session. More of them look exactly like one.
const BELIEVED: u32 = 3;

/// What the troubles of an input are, once they have been brought about.
#[derive(Default)]
struct Troubles {
    absent: Vec<Absent>,
    told: Vec<String>,
    /// There is something that is not as the firmware says: what an outcome says by that need not
    /// be so.
    lies: bool,
    /// Traps that come by themselves.
    traps: u32,
    /// LPs that do not reach the module.
    cut_off: BTreeSet<u32>,
    /// Something was answered in place of the firmware, or some LP did not reach it: what the
    /// library knows need not be enough.
    confusing: bool,
    /// The only trouble is this, and the image to fall back on is the one that ran before.
    only: Option<Fault>,
}

impl Troubles {
    /// Brings one about.
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
                // After preflight has seen it; `tamper` is for pages that firmware was told of.
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
            // There may be no room.
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

/// Everything that was wrong is over.
fn repair(platform: &SimPlatform) {
    platform.clear_faults();
    platform.with_model(|model| {
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
}

/// Whether an update with the module that ran before to fall back on keeps the TDs in spite of this
/// one fault.
fn is_overcome(fault: Fault) -> bool {
    fault.times == 1 && !matches!(fault.answer, Answer::Return { rdx: 1.., .. })
}

/// What has to be so of every outcome by itself.
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

/// Whether the TDs live on under another module than the outcome says.
fn wrong_image(
    platform: &SimPlatform,
    outcome: &Outcome,
    images: &[&'static File],
) -> Option<String> {
    let named = images.get(usize::from(outcome.image)).map(|file| (file.svn_minor, file.mrseam));
    let truth = platform.truth();
    let found = (truth.svn.minor, truth.mrseam);
    (outcome.tds_live_on() && named != Some(found)).then(|| {
        format!("{outcome}: image {} is {named:x?}, but {found:x?} is there", outcome.image)
    })
}

/// Whether it is left open what became of TDs although nothing can have confused anybody.
fn wrong_doubt(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    let truth = platform.truth();
    // Handoff data that does not fit the module that is in place is there, and of no use.
    let is_of_no_use = match outcome.last_failure.map(|failure| failure.cause) {
        Some(FailureCause::Seamldr { status, .. }) => status == SeamldrStatus::EBADHANDOFF,
        Some(FailureCause::Tdx(_, status)) => status.code() == TdxStatus::SYS_INVALID_HANDOFF,
        _ => false,
    };
    let known = all_alive(platform) || truth.handoff_valid && !is_of_no_use;
    (outcome.tds == TdFate::Unknown && known && !platform.with_model(|model| model.is_dead()))
        .then(|| format!("{outcome}, but {truth:?}"))
}

/// An update, from the checks to whatever the script does after it.
struct Trial<'a> {
    script: &'a Script<'a>,
    platform: SimPlatform,
    troubles: Troubles,
}

impl Trial<'_> {
    fn lps(&self) -> u32 {
        self.platform.online().count() as u32
    }

    fn wrong(&self, what: &str) -> ! {
        let trace: Vec<String> = self.platform.trace().iter().map(ToString::to_string).collect();
        panic!("{what}\n{:#?}\n{}", self.troubles.told, trace.join("\n"))
    }

    /// Drives an update to its end, and compares.
    fn drive(&self, update: &Update<'_>, order: &[u8], what: &str) -> Outcome {
        let schedule = Schedule { order, absent: &self.troubles.absent };
        let Some(outcome) = drive_in_order(&self.platform, update, &schedule) else {
            self.wrong(&format!("{what} hangs"))
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

    /// Where it was known before, it has to be known afterwards.
    fn doubts(&self, outcome: &Outcome) {
        if self.troubles.confusing {
            return;
        }
        if let Some(claim) = wrong_doubt(&self.platform, outcome) {
            self.wrong(&claim);
        }
    }

    /// The update with the handoff data in the script's version, whatever the modules have in
    /// common. `None`: the image does not take that version.
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

    /// The update itself. `None`: refused before anything was shut down.
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
                        self.wrong(&format!("nothing was wrong, but {reasons}"));
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
        let nobody_gives_up = script.order.iter().all(|byte| byte >> 7 == 0);
        let usual = is_first && script.asks_first && nobody_gives_up;
        if usual && matches!(script.version, Version::Negotiated) {
            if self.troubles.told.is_empty() {
                assert!(
                    !file.fits || outcome.is_updated() || outcome.sensitive().is_some(),
                    "nothing was wrong, but {outcome}"
                );
            }
            // Nobody has asked about the images to fall back on.
            let falls_back = !script.fallbacks.is_empty()
                && script.fallbacks.iter().all(|file| std::ptr::eq(*file, script.old));
            let one_fault = self.troubles.only.is_some_and(is_overcome) && !self.troubles.lies;
            if one_fault && falls_back && file.fits && !all_alive(&self.platform) {
                self.wrong(&format!("one failure, and {outcome}"));
            }
        }
        Some(outcome)
    }

    /// What comes after it.
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
        // A module that serves TDs, but none of those who go on, looks as if it were not there.
        let is_reached = self.platform.online().any(|lp| !self.troubles.cut_off.contains(&lp));
        let before = is_reached && all_alive(&self.platform);
        let outcome = self.drive(&update, &[], &format!("{after:?} ({next:?}) after {outcome}"));
        if before
            && !all_alive(&self.platform)
            && !self.troubles.lies
            && outcome.tds != TdFate::Lost
        {
            self.wrong(&format!(
                "{after:?} ({next:?}) has taken TDs away that were alive: {outcome}"
            ));
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

    /// Once nothing is wrong any more, whoever does what outcomes say has the TDs back, if anybody
    /// can have them back.
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
            self.wrong(&format!("by hand it can be done, but {outcome}"));
        }
    }
}

/// Calls everything that might bring the TDs back, without any of the library. Whether it does.
fn by_hand(platform: &SimPlatform, params: u64) -> bool {
    let lps: Vec<u32> = platform.online().collect();
    let call = |lp: u32, rax: u64, rcx: u64| {
        let mut regs = SeamcallRegs { rax, rcx, ..SeamcallRegs::default() };
        // SAFETY: the parameters are those of a request that is alive; the other calls take no
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

/// An input is 16 bytes for platform, images and what comes after the update, then up to 12
/// troubles of 16 bytes, then the order of the LPs: see `Script::read`.
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
            repair(&trial.platform);
            trial.troubles.absent.clear();
            trial.troubles.cut_off.clear();
        }
        match trial.go_on(*after, file, &outcome) {
            Some(next) => outcome = next,
            None => break,
        }
    }
    // An LP that is cut off reaches nothing. If no LP reaches anything, SEAM looks as if it were
    // gone for good.
    let looks_gone =
        outcome.next == NextStep::Reboot && trial.troubles.cut_off.len() == trial.lps() as usize;
    repair(&trial.platform);
    trial.troubles.absent.clear();
    trial.troubles.cut_off.clear();
    if !trial.troubles.lies && !looks_gone {
        trial.save(outcome);
    }
}
