//! The embedder's memory of the TDX module: which steps of its initialisation are done, and on
//! which LPs.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The answer to an LP that asks whether it should do TDH.SYS.INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysInit {
    /// The caller does it, and then reports by [`ModuleState::finish_sys_init`].
    Claimed,
    /// Another LP is doing it.
    Running,
    /// An LP has done it.
    Done,
}

const DOWN: u32 = 0;
const SYS_INIT_RUNNING: u32 = 1;
const SYS_INIT_DONE: u32 = 2;
const READY: u32 = 3;

/// A bit of each LP. The number is the index of its word in [`LpBits`].
#[derive(Clone, Copy)]
enum Bit {
    /// TDH.SYS.LP.INIT is done.
    Initialized = 0,
    /// The LP has called SEAMLDR.INSTALL in the open session.
    InSession = 1,
    /// The LP takes part in the current update.
    TakingPart = 2,
}

/// The bits of 64 LPs.
#[derive(Debug)]
pub struct LpBits([AtomicU64; 3]);

impl LpBits {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 3])
    }

    #[inline(never)] // otherwise LLVM unrolls the loop over all LPs eightfold
    fn clear(&self, bit: Bit) {
        if let Some(word) = self.word(bit) {
            word.store(0, Ordering::Relaxed);
        }
    }

    #[allow(clippy::as_conversions)] // the discriminant of an enum
    fn word(&self, bit: Bit) -> Option<&AtomicU64> {
        self.0.get(bit as usize)
    }
}

/// The embedder's memory of the module's state. All LPs share it, and it lasts from one update to
/// the next.
///
/// The state has bits for each LP that can come online. A shutdown of the module must clear the
/// bits of LPs that are offline too.
///
/// The embedder chooses the size: one [`LpBits`] for 64 LPs. The library takes the state as a
/// slice:
///
/// ```
/// use tdx_seamldr_core::{LpBits, ModuleState};
///
/// static STATE: ModuleState<[LpBits; 16]> = ModuleState::new();
/// assert!(STATE.covers(1023) && !STATE.covers(1024));
/// let for_the_library: &ModuleState = &STATE;
/// assert!(!for_the_library.is_ready());
/// ```
#[derive(Debug)]
pub struct ModuleState<T: ?Sized = [LpBits]> {
    phase: AtomicU32,
    handoff_pending: AtomicBool,
    /// An update uses this state.
    updating: AtomicBool,
    lps: T,
}

impl<const WORDS: usize> ModuleState<[LpBits; WORDS]> {
    /// Returns the state of a module that is not initialised.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: AtomicU32::new(DOWN),
            handoff_pending: AtomicBool::new(false),
            updating: AtomicBool::new(false),
            lps: [const { LpBits::new() }; WORDS],
        }
    }
}

/// The state as the library sees it, so that its methods can be called on the embedder's static.
impl<const WORDS: usize> core::ops::Deref for ModuleState<[LpBits; WORDS]> {
    type Target = ModuleState;

    fn deref(&self) -> &ModuleState {
        self
    }
}

impl<const WORDS: usize> Default for ModuleState<[LpBits; WORDS]> {
    fn default() -> Self {
        Self::new()
    }
}

impl ModuleState {
    /// Whether the state has bits for this LP.
    #[must_use]
    #[inline]
    pub fn covers(&self, lp: u32) -> bool {
        self.slot(lp, Bit::Initialized).is_some()
    }

    /// Records that the module has been shut down: no LP is initialised. Keeps the handoff data and
    /// the session.
    pub fn reset(&self) {
        self.clear(Bit::Initialized);
        self.phase.store(DOWN, Ordering::Release);
    }

    /// Asks whether the caller should do TDH.SYS.INIT. Only one LP gets [`SysInit::Claimed`].
    #[must_use]
    pub fn begin_sys_init(&self) -> SysInit {
        match self.phase.compare_exchange(
            DOWN,
            SYS_INIT_RUNNING,
            Ordering::Acquire,
            Ordering::Acquire,
        ) {
            Ok(_) => SysInit::Claimed,
            Err(SYS_INIT_RUNNING) => SysInit::Running,
            Err(_) => SysInit::Done,
        }
    }

    /// Reports the end of TDH.SYS.INIT. After a failure an LP can claim it again.
    #[inline]
    pub fn finish_sys_init(&self, succeeded: bool) {
        self.phase.store(if succeeded { SYS_INIT_DONE } else { DOWN }, Ordering::Release);
    }

    /// Records that this LP is initialised.
    #[inline]
    pub fn set_lp_initialized(&self, lp: u32) {
        self.set(lp, Bit::Initialized);
    }

    /// Whether this LP is initialised.
    #[must_use]
    #[inline]
    pub fn is_lp_initialized(&self, lp: u32) -> bool {
        self.has(lp, Bit::Initialized)
    }

    /// Records that the module is ready. Call this after TDH.SYS.UPDATE, or after the first
    /// configuration.
    pub fn set_ready(&self) {
        self.phase.store(READY, Ordering::Release);
    }

    /// Whether the module is ready, so that TDs can run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase.load(Ordering::Acquire) == READY
    }

    /// Records whether there is handoff data that the old module left and no module has taken.
    pub fn set_handoff_pending(&self, pending: bool) {
        self.handoff_pending.store(pending, Ordering::Release);
    }

    /// Whether there is handoff data, as far as the updates of this boot know. An update that ended
    /// early can then be [resumed](crate::update::Update::resume).
    #[must_use]
    #[inline]
    pub fn is_handoff_pending(&self) -> bool {
        self.handoff_pending.load(Ordering::Acquire)
    }

    /// Reserves the state for an update. `false`: another update has reserved the state.
    pub(crate) fn begin_update(&self) -> bool {
        !self.updating.swap(true, Ordering::Acquire)
    }

    /// Ends the reservation by [`begin_update`](Self::begin_update).
    pub(crate) fn end_update(&self) {
        self.clear(Bit::TakingPart);
        self.updating.store(false, Ordering::Release);
    }

    /// Records that this LP takes part in the current update. `false`: this was recorded before.
    #[inline]
    pub(crate) fn take_part(&self, lp: u32) -> bool {
        !self.set(lp, Bit::TakingPart)
    }

    /// Records that this LP has called SEAMLDR.INSTALL in the open session. Call this with
    /// P-SEAMLDR's lock held.
    #[inline]
    pub(crate) fn join_session(&self, lp: u32) {
        self.set(lp, Bit::InSession);
    }

    /// Whether this LP has called SEAMLDR.INSTALL in the open session, as far as the updates of
    /// this boot know.
    #[inline]
    pub(crate) fn is_in_session(&self, lp: u32) -> bool {
        self.has(lp, Bit::InSession)
    }

    /// Records that the session has ended.
    #[inline]
    pub(crate) fn end_session(&self) {
        self.clear(Bit::InSession);
    }

    /// Whether an LP is in an open session, as far as the updates of this boot know.
    pub(crate) fn is_session_open(&self) -> bool {
        let mut words = self.lps.iter().filter_map(|bits| bits.word(Bit::InSession));
        words.any(|word| word.load(Ordering::Relaxed) != 0)
    }

    fn slot(&self, lp: u32, bit: Bit) -> Option<(&AtomicU64, u64)> {
        let bits = self.lps.get(usize::try_from(lp >> 6).ok()?)?;
        Some((bits.word(bit)?, 1 << (lp & 63)))
    }

    /// Sets a bit of an LP and returns its old value.
    #[inline(never)] // one copy for all bits
    fn set(&self, lp: u32, bit: Bit) -> bool {
        self.slot(lp, bit)
            .is_some_and(|(word, mask)| word.fetch_or(mask, Ordering::AcqRel) & mask != 0)
    }

    #[inline(never)] // one copy for all bits
    fn has(&self, lp: u32, bit: Bit) -> bool {
        self.slot(lp, bit).is_some_and(|(word, mask)| word.load(Ordering::Acquire) & mask != 0)
    }

    /// Clears a bit of all LPs.
    #[inline(never)] // one copy for all bits
    fn clear(&self, bit: Bit) {
        for bits in &self.lps {
            bits.clear(bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_lp_claims_sys_init() {
        let state: &ModuleState = &ModuleState::<[LpBits; 1]>::new();
        assert_eq!(state.begin_sys_init(), SysInit::Claimed);
        assert_eq!(state.begin_sys_init(), SysInit::Running);
        state.finish_sys_init(false);
        assert_eq!(state.begin_sys_init(), SysInit::Claimed, "after a failure");
        state.finish_sys_init(true);
        assert_eq!(state.begin_sys_init(), SysInit::Done);
    }

    #[test]
    fn reset_forgets_offline_lps_too() {
        let state: &ModuleState = &ModuleState::<[LpBits; 2]>::new();
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
    fn each_lp_has_its_own_bit() {
        let state: &ModuleState = &ModuleState::<[LpBits; 2]>::new();
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
    fn take_part_returns_true_once_for_each_lp_of_an_update() {
        let state: &ModuleState = &ModuleState::<[LpBits; 1]>::new();
        assert!(state.begin_update() && !state.begin_update());
        assert!(state.take_part(3) && !state.take_part(3) && state.take_part(4));
        state.end_update();
        assert!(state.begin_update() && state.take_part(3));
    }

    #[test]
    fn reset_keeps_the_session() {
        let state: &ModuleState = &ModuleState::<[LpBits; 2]>::new();
        state.join_session(1);
        state.join_session(70);
        state.join_session(70);
        state.reset();
        assert!(
            state.is_in_session(70) && !state.is_in_session(69) && !state.is_lp_initialized(70)
        );
        assert!(state.is_session_open());
        state.end_session();
        assert!(!state.is_session_open() && !state.is_in_session(1));
    }

    #[test]
    fn reset_keeps_the_handoff_data() {
        let state: &ModuleState = &ModuleState::<[LpBits; 1]>::default();
        assert!(!state.is_handoff_pending());
        state.set_handoff_pending(true);
        state.reset();
        assert!(state.is_handoff_pending());
        state.set_handoff_pending(false);
        assert!(!state.is_handoff_pending());
    }
}
