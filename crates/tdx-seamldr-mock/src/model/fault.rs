//! Faults that are planned: calls that end otherwise than they should.

use core::fmt;

use tdx_seamldr_core::{SeamcallRegs, Trap};

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A status in RAX, and RDX. Firmware does nothing else; but if RDX of SEAMLDR.INSTALL is not
    /// 0, the old module is gone, as that says.
    Return {
        /// RAX.
        rax: u64,
        /// RDX.
        rdx: u64,
    },
    /// The instruction fails. Firmware is not entered.
    Trap(Trap),
    /// Firmware is entered, and answers only after so many other calls were made.
    Delay(u32),
}

/// Calls that go wrong. Each `None` means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// On which LP.
    pub lp: Option<u32>,
    /// With which RAX.
    pub rax: Option<u64>,
    /// How many such calls pass before.
    pub after: u32,
    /// How many such calls go wrong then.
    pub times: u32,
    /// What they get.
    pub answer: Answer,
}

impl Fault {
    /// The first call with this RAX, on any LP, gets this answer.
    #[must_use]
    pub const fn first(rax: u64, answer: Answer) -> Self {
        Self { lp: None, rax: Some(rax), after: 0, times: 1, answer }
    }

    /// The `number`th call of all, counted from 0, gets this answer.
    #[must_use]
    pub const fn nth(number: u32, answer: Answer) -> Self {
        Self { lp: None, rax: None, after: number, times: 1, answer }
    }

    /// Whether this call is one that it strikes, if no other fault does. It counts the calls that
    /// it could strike.
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

/// The most faults that can be planned at the same time.
pub const MAX_FAULTS: usize = 32;

/// A plan cannot hold another fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanIsFull;

impl fmt::Display for PlanIsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAX_FAULTS} faults are planned already")
    }
}

impl core::error::Error for PlanIsFull {}

/// Which fault of a plan. No two faults of one plan ever have the same number, which counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub u64);

/// A fault in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    id: FaultId,
    /// With the calls that are still to pass and the times that are left.
    fault: Fault,
    /// It has struck a call.
    has_struck: bool,
}

/// The faults that are planned. The first that strikes a call decides about it.
///
/// A fault that no call meets says nothing: ask for [`unfired`](Self::unfired) at the end of a
/// test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    faults: [Option<Planned>; MAX_FAULTS],
    /// Faults that were ever added.
    added: u64,
}

impl FaultPlan {
    /// Adds a fault.
    ///
    /// # Errors
    ///
    /// There is no room. Faults that have done all that they were to do take none.
    pub fn add(&mut self, fault: Fault) -> Result<FaultId, PlanIsFull> {
        let spent =
            |slot: &&mut Option<Planned>| slot.is_none_or(|planned| planned.fault.times == 0);
        let slot = self.faults.iter_mut().find(spent).ok_or(PlanIsFull)?;
        self.added = self.added.saturating_add(1);
        let id = FaultId(self.added);
        *slot = Some(Planned { id, fault, has_struck: false });
        Ok(id)
    }

    /// Takes back all faults.
    pub fn clear(&mut self) {
        self.faults = [None; MAX_FAULTS];
    }

    /// Takes back one fault: it strikes no further call. `false`: this plan never had it.
    pub fn end(&mut self, id: FaultId) -> bool {
        for slot in &mut self.faults {
            slot.take_if(|planned| planned.id == id);
        }
        self.was_added(id)
    }

    /// How many more calls a fault strikes; 0 if it is over or was taken back. `None`: this plan
    /// never had it.
    #[must_use]
    pub fn times_left(&self, id: FaultId) -> Option<u32> {
        let found = self.faults.iter().flatten().find(|planned| planned.id == id);
        let left = found.map(|planned| planned.fault.times);
        self.was_added(id).then(|| left.unwrap_or(0))
    }

    /// The faults that have struck no call yet, in no particular order, each with the calls that
    /// are still to pass before. A fault that was taken back is none of them, nor one that strikes
    /// no call because its `times` is 0.
    pub fn unfired(&self) -> impl Iterator<Item = (FaultId, Fault)> + '_ {
        let waiting = |planned: &&Planned| !planned.has_struck && planned.fault.times != 0;
        let planned = self.faults.iter().flatten().filter(waiting);
        planned.map(|planned| (planned.id, planned.fault))
    }

    fn was_added(&self, FaultId(number): FaultId) -> bool {
        (1..=self.added).contains(&number)
    }

    /// What a call gets, if it is struck.
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
    fn a_fault_lets_calls_pass_strikes_and_is_done() {
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
    fn a_fault_that_is_taken_back_strikes_no_more_and_its_number_is_not_used_again() {
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
    fn a_fault_is_unfired_until_it_strikes_or_is_taken_back() {
        let call = SeamcallRegs::default();
        let unfired =
            |plan: &FaultPlan| plan.unfired().map(|(FaultId(id), _)| id).collect::<Vec<_>>();
        let mut plan = FaultPlan::default();
        plan.add(Fault { times: 2, after: 1, ..Fault::first(0, Answer::Delay(1)) }).unwrap();
        plan.add(Fault::first(1, Answer::Delay(2))).unwrap();
        assert_eq!(plan.strike(0, &call), None, "one call passes");
        assert_eq!(unfired(&plan), [1, 2]);
        assert!(plan.strike(0, &call).is_some());
        assert_eq!(unfired(&plan), [2], "the first has struck, although it can strike again");
        assert!(plan.end(FaultId(2)));
        assert_eq!(unfired(&plan), [0; 0]);
    }

    #[test]
    fn a_full_plan_says_so_and_a_spent_fault_makes_room() {
        let mut plan = FaultPlan::default();
        for _ in 0..MAX_FAULTS {
            plan.add(Fault::first(0, Answer::Delay(1))).unwrap();
        }
        assert_eq!(plan.add(Fault::first(1, Answer::Delay(2))), Err(PlanIsFull));
        assert_eq!(plan.strike(0, &SeamcallRegs::default()), Some(Answer::Delay(1)));
        plan.add(Fault::first(1, Answer::Delay(2))).unwrap();
    }
}
