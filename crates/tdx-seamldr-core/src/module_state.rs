//! What software remembers about the TDX module: which steps of its initialisation are done, and on which LPs.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Who does TDH.SYS.INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysInit {
    /// The caller, who then reports by [`ModuleState::finish_sys_init`].
    Claimed,
    /// Another LP is at it.
    Running,
    /// It is done.
    Done,
}

const DOWN: u32 = 0;
const SYS_INIT_RUNNING: u32 = 1;
const SYS_INIT_DONE: u32 = 2;
const READY: u32 = 3;

/// The embedder's memory of the module's state, shared by all LPs and kept from one update to the next.
///
/// It has one bit for each LP that could ever come online, not only for those that are: when a module is shut down, an LP
/// that is offline has to forget, too, that it was initialised.
///
/// The bits are an array of the embedder's size, 64 LPs to a word, which the library sees as a slice:
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use tdx_seamldr_core::ModuleState;
///
/// static STATE: ModuleState<[AtomicU64; 16]> = ModuleState::new();
/// let for_the_library: &ModuleState = &STATE;
/// assert!(for_the_library.covers(1023) && !for_the_library.covers(1024));
/// ```
#[derive(Debug)]
pub struct ModuleState<T: ?Sized = [AtomicU64]> {
    phase: AtomicU32,
    handoff_pending: AtomicBool,
    lp_initialized: T,
}

impl<const WORDS: usize> ModuleState<[AtomicU64; WORDS]> {
    /// The state of a module that is not initialised.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: AtomicU32::new(DOWN),
            handoff_pending: AtomicBool::new(false),
            lp_initialized: [const { AtomicU64::new(0) }; WORDS],
        }
    }
}

impl<const WORDS: usize> Default for ModuleState<[AtomicU64; WORDS]> {
    fn default() -> Self {
        Self::new()
    }
}

impl ModuleState {
    /// Whether there is a bit for this LP.
    #[must_use]
    pub fn covers(&self, lp: u32) -> bool {
        self.slot(lp).is_some()
    }

    /// Forgets everything, on all LPs: the module has been shut down.
    pub fn reset(&self) {
        for word in &self.lp_initialized {
            word.store(0, Ordering::Relaxed);
        }
        self.phase.store(DOWN, Ordering::Release);
    }

    /// Asks who does TDH.SYS.INIT. Of all LPs that ask, one gets [`SysInit::Claimed`].
    #[must_use]
    pub fn begin_sys_init(&self) -> SysInit {
        match self.phase.compare_exchange(DOWN, SYS_INIT_RUNNING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => SysInit::Claimed,
            Err(SYS_INIT_RUNNING) => SysInit::Running,
            Err(_) => SysInit::Done,
        }
    }

    /// Reports the end of TDH.SYS.INIT. A failed one may be claimed again.
    pub fn finish_sys_init(&self, succeeded: bool) {
        self.phase.store(if succeeded { SYS_INIT_DONE } else { DOWN }, Ordering::Release);
    }

    /// Remembers that this LP is initialised.
    pub fn set_lp_initialized(&self, lp: u32) {
        if let Some((word, bit)) = self.slot(lp) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Whether this LP is initialised.
    #[must_use]
    pub fn is_lp_initialized(&self, lp: u32) -> bool {
        self.slot(lp).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Remembers that the module is ready: after TDH.SYS.UPDATE, or after its first configuration.
    pub fn set_ready(&self) {
        self.phase.store(READY, Ordering::Release);
    }

    /// Whether the module is ready, and TDs can run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase.load(Ordering::Acquire) == READY
    }

    /// Remembers that the old module has left handoff data that nobody has taken, or that this is over.
    pub fn set_handoff_pending(&self, pending: bool) {
        self.handoff_pending.store(pending, Ordering::Release);
    }

    /// Whether there is handoff data, as far as the updates in this boot have seen: an update that was not completed can be
    /// [resumed](crate::update::Update::resume).
    #[must_use]
    pub fn is_handoff_pending(&self) -> bool {
        self.handoff_pending.load(Ordering::Acquire)
    }

    fn slot(&self, lp: u32) -> Option<(&AtomicU64, u64)> {
        let word = self.lp_initialized.get(usize::try_from(lp >> 6).ok()?)?;
        Some((word, 1 << (lp & 63)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_all_lps_does_sys_init() {
        let state: &ModuleState = &ModuleState::<[AtomicU64; 1]>::new();
        assert_eq!(state.begin_sys_init(), SysInit::Claimed);
        assert_eq!(state.begin_sys_init(), SysInit::Running);
        state.finish_sys_init(false);
        assert_eq!(state.begin_sys_init(), SysInit::Claimed, "a failed one is repeated");
        state.finish_sys_init(true);
        assert_eq!(state.begin_sys_init(), SysInit::Done);
    }

    #[test]
    fn reset_forgets_offline_lps_too() {
        let state: &ModuleState = &ModuleState::<[AtomicU64; 2]>::new();
        state.set_lp_initialized(0);
        state.set_lp_initialized(127);
        state.set_ready();
        assert!(state.is_lp_initialized(127) && state.is_ready());
        state.reset();
        assert!(!state.is_lp_initialized(0) && !state.is_lp_initialized(127) && !state.is_ready());
        assert!(!state.covers(128));
        state.set_lp_initialized(128);
        assert!(!state.is_lp_initialized(128));
    }

    #[test]
    fn each_lp_has_a_bit_of_its_own() {
        let state: &ModuleState = &ModuleState::<[AtomicU64; 2]>::new();
        for lp in [1, 63, 64, 126] {
            assert!(!state.is_lp_initialized(lp));
            state.set_lp_initialized(lp);
            state.set_lp_initialized(lp);
        }
        let initialized = (0..200).filter(|lp| state.is_lp_initialized(*lp));
        assert!(initialized.eq([1, 63, 64, 126]));
        assert!((0..200).filter(|lp| state.covers(*lp)).eq(0..128));
    }

    #[test]
    fn handoff_data_is_remembered_over_a_reset() {
        let state: &ModuleState = &ModuleState::<[AtomicU64; 1]>::default();
        assert!(!state.is_handoff_pending());
        state.set_handoff_pending(true);
        state.reset();
        assert!(state.is_handoff_pending());
        state.set_handoff_pending(false);
        assert!(!state.is_handoff_pending());
    }
}
