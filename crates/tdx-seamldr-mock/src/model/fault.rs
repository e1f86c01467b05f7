//! Planned faults: calls that return a wrong answer, fail or take long.

use core::fmt;

use tdx_seamldr_core::{SeamcallRegs, Trap};

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Sets RAX and RDX. Firmware does nothing else. Exception: SEAMLDR.INSTALL with RDX not 0
    /// removes the old module, because RDX says so.
    Return {
        /// RAX after the call.
        rax: u64,
        /// RDX after the call.
        rdx: u64,
    },
    /// Makes the instruction fail. Firmware is not entered.
    Trap(Trap),
    /// Enters firmware, and returns only after this number of other calls.
    Delay(u32),
}

/// Calls that a fault affects. `None` means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The LP.
    pub lp: Option<u32>,
    /// RAX before the call.
    pub rax: Option<u64>,
    /// Number of matching calls that pass before the fault.
    pub after: u32,
    /// Number of matching calls that the fault then affects.
    pub times: u32,
    /// What the fault does.
    pub answer: Answer,
}

impl Fault {
    /// Returns a fault that affects the first call with this RAX, on any LP.
    #[must_use]
    pub const fn first(rax: u64, answer: Answer) -> Self {
        Self { lp: None, rax: Some(rax), after: 0, times: 1, answer }
    }

    /// Returns a fault that affects the `number`th call of all, counted from 0.
    #[must_use]
    pub const fn nth(number: u32, answer: Answer) -> Self {
        Self { lp: None, rax: None, after: number, times: 1, answer }
    }

    /// Counts this call if it matches, and returns whether the fault affects it. Another fault may
    /// still come first.
    fn strikes(&mut self, lp: u32, regs: &SeamcallRegs) -> bool {
        let matches = self.lp.is_none_or(|wanted| wanted == lp)
            && self.rax.is_none_or(|wanted| wanted == regs.rax);
        if !matches || self.times == 0 {
            return false;
        }
        let strikes = self.after == 0;
        self.after = self.after.saturating_sub(1);
        strikes
    }
}

/// The most faults that a plan can hold.
pub const MAX_FAULTS: usize = 32;

/// The plan has no room for another fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanIsFull;

impl fmt::Display for PlanIsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAX_FAULTS} faults are planned already")
    }
}

impl core::error::Error for PlanIsFull {}

/// Identifies a fault of a plan. A plan uses each number once and starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub u64);

/// A fault in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    id: FaultId,
    /// The fault. Its `after` and `times` count down.
    fault: Fault,
    /// Whether the fault has affected a call.
    has_struck: bool,
}

/// The planned faults. The first fault that matches a call decides.
///
/// A fault that affects no call gives no error: check [`unfired`](Self::unfired) at the end of a
/// test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    faults: [Option<Planned>; MAX_FAULTS],
    /// Number of faults that were ever added.
    added: u64,
}

impl FaultPlan {
    /// Adds a fault. Faults that are over take no room.
    ///
    /// # Errors
    ///
    /// There is no room for another fault.
    pub fn add(&mut self, fault: Fault) -> Result<FaultId, PlanIsFull> {
        let spent =
            |slot: &&mut Option<Planned>| slot.is_none_or(|planned| planned.fault.times == 0);
        let slot = self.faults.iter_mut().find(spent).ok_or(PlanIsFull)?;
        self.added = self.added.saturating_add(1);
        let id = FaultId(self.added);
        *slot = Some(Planned { id, fault, has_struck: false });
        Ok(id)
    }

    /// Ends all faults.
    pub fn clear(&mut self) {
        self.faults = [None; MAX_FAULTS];
    }

    /// Ends one fault: it affects no further call. Returns `false` if this plan never had the
    /// fault.
    pub fn end(&mut self, id: FaultId) -> bool {
        for slot in &mut self.faults {
            slot.take_if(|planned| planned.id == id);
        }
        self.was_added(id)
    }

    /// Returns how many more calls a fault affects, or 0 if the fault is over. Returns `None` if
    /// this plan never had the fault.
    #[must_use]
    pub fn times_left(&self, id: FaultId) -> Option<u32> {
        let found = self.faults.iter().flatten().find(|planned| planned.id == id);
        let left = found.map(|planned| planned.fault.times);
        self.was_added(id).then(|| left.unwrap_or(0))
    }

    /// Iterates over the faults that have affected no call yet, in no particular order. `after` of
    /// each is the number of matching calls that still pass. Excluded are ended faults, and faults
    /// whose `times` was 0 from the beginning.
    pub fn unfired(&self) -> impl Iterator<Item = (FaultId, Fault)> + '_ {
        let waiting = |planned: &&Planned| !planned.has_struck && planned.fault.times != 0;
        let planned = self.faults.iter().flatten().filter(waiting);
        planned.map(|planned| (planned.id, planned.fault))
    }

    fn was_added(&self, FaultId(number): FaultId) -> bool {
        (1..=self.added).contains(&number)
    }

    /// Counts a call and returns what the first matching fault does to it, if any.
    pub(super) fn strike(&mut self, lp: u32, regs: &SeamcallRegs) -> Option<Answer> {
        let mut struck = None;
        for Planned { fault, has_struck, .. } in self.faults.iter_mut().flatten() {
            if fault.strikes(lp, regs) && struck.is_none() {
                fault.times = fault.times.saturating_sub(1);
                *has_struck = true;
                struck = Some(fault.answer);
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lets_calls_pass_then_affects_calls_then_is_over() {
        let answer = Answer::Return { rax: 9, rdx: 1 };
        let call = SeamcallRegs::default();
        let mut plan = FaultPlan::default();
        plan.add(Fault { lp: Some(3), rax: None, after: 1, times: 2, answer }).unwrap();
        assert_eq!(plan.strike(2, &call), None);
        assert_eq!(
            [(); 4].map(|()| plan.strike(3, &call)),
            [None, Some(answer), Some(answer), None]
        );
    }

    #[test]
    fn an_ended_fault_affects_no_call_and_its_number_is_not_used_again() {
        let call = SeamcallRegs::default();
        let (first, second) = (Answer::Delay(1), Answer::Delay(2));
        let mut plan = FaultPlan::default();
        let id = plan.add(Fault { times: 3, ..Fault::first(0, first) }).unwrap();
        let other = plan.add(Fault { times: 2, ..Fault::first(0, second) }).unwrap();
        assert_eq!((plan.strike(0, &call), plan.times_left(id)), (Some(first), Some(2)));
        assert!(plan.end(id));
        assert_eq!((plan.strike(0, &call), plan.times_left(id)), (Some(second), Some(0)));
        assert_eq!(plan.times_left(other), Some(1));
        plan.clear();
        assert_eq!((plan.strike(0, &call), plan.times_left(other)), (None, Some(0)));
        let next = plan.add(Fault::first(0, first)).unwrap();
        assert!(next > other);
        for never in [FaultId(0), FaultId(next.0 + 1)] {
            assert_eq!((plan.times_left(never), plan.end(never)), (None, false));
        }
    }

    #[test]
    fn a_fault_is_unfired_until_it_affects_a_call_or_is_ended() {
        let call = SeamcallRegs::default();
        let unfired =
            |plan: &FaultPlan| plan.unfired().map(|(FaultId(id), _)| id).collect::<Vec<_>>();
        let mut plan = FaultPlan::default();
        plan.add(Fault { times: 2, after: 1, ..Fault::first(0, Answer::Delay(1)) }).unwrap();
        plan.add(Fault::first(1, Answer::Delay(2))).unwrap();
        assert_eq!(plan.strike(0, &call), None, "one call passes");
        assert_eq!(unfired(&plan), [1, 2]);
        assert!(plan.strike(0, &call).is_some());
        assert_eq!(unfired(&plan), [2], "the first fault has affected a call, but is not over");
        assert!(plan.end(FaultId(2)));
        assert_eq!(unfired(&plan), [0; 0]);
    }

    #[test]
    fn a_full_plan_returns_an_error_and_a_fault_that_is_over_makes_room() {
        let mut plan = FaultPlan::default();
        for _ in 0..MAX_FAULTS {
            plan.add(Fault::first(0, Answer::Delay(1))).unwrap();
        }
        assert_eq!(plan.add(Fault::first(1, Answer::Delay(2))), Err(PlanIsFull));
        assert_eq!(plan.strike(0, &SeamcallRegs::default()), Some(Answer::Delay(1)));
        plan.add(Fault::first(1, Answer::Delay(2))).unwrap();
    }
}
