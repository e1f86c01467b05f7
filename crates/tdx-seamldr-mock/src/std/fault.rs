//! Faults that are planned: calls that end otherwise than they should.

use tdx_seamldr_core::{SeamcallRegs, Trap};

/// What a call gets instead of an answer of the firmware, which is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status in RAX, and RDX.
    Return {
        /// RAX.
        rax: u64,
        /// RDX.
        rdx: u64,
    },
    /// The instruction fails.
    Trap(Trap),
}

/// Calls that go wrong. Each `None` means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Whether it strikes this call. It counts the calls that it could strike.
    pub(super) fn strikes(&mut self, lp: u32, regs: &SeamcallRegs) -> Option<Answer> {
        let matches =
            self.lp.is_none_or(|wanted| wanted == lp) && self.rax.is_none_or(|wanted| wanted == regs.rax);
        if !matches || self.times == 0 {
            return None;
        }
        if self.after > 0 {
            self.after = self.after.saturating_sub(1);
            return None;
        }
        self.times = self.times.saturating_sub(1);
        Some(self.answer)
    }
}
