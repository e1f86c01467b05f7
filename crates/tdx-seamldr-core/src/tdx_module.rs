//! Calls of the TDX module that an update needs.

use core::fmt;

use crate::abi::{FieldId, ShutdownRequest, TdxFeatures0, TdxLeaf, TdxStatus};
use crate::addr::PhysAddr;
use crate::backend::{SeamcallBackend, SeamcallRegs, Trap};
use crate::module_state::{ModuleState, SysInit};

/// The number of calls that must fail in a row before the library regards a module or P-SEAMLDR as
/// absent.
pub(crate) const LOOKS: u32 = 4;

/// The number of times that the library makes a call while the module answers RND_NO_ENTROPY.
const ENTROPY_TRIES: u32 = 10;

/// The error of a call to the TDX module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TdxError {
    /// The instruction failed.
    Trap(Trap),
    /// The module refused.
    Status(TdxStatus),
}

impl TdxError {
    /// Returns the status word. For a trap, returns the word that Linux uses for it.
    #[must_use]
    pub const fn status(self) -> TdxStatus {
        match self {
            Self::Trap(trap) => trap.status(),
            Self::Status(status) => status,
        }
    }
}

impl fmt::Display for TdxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(trap) => trap.fmt(f),
            Self::Status(status) => write!(f, "the TDX module refused: {status}"),
        }
    }
}

impl core::error::Error for TdxError {}

/// A metadata field as TDH.SYS.RD returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRead {
    /// RAX, which is not always 0: [`FieldId::NULL`] gives METADATA_FIRST_FIELD_ID_IN_CONTEXT.
    pub status: TdxStatus,
    /// The field's value, in R8.
    pub value: u64,
    /// The id of the next field, in RDX.
    pub next: FieldId,
}

/// The version of a TDX module, e.g. 1.5.16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TdxVersion {
    /// Major version: the 1 of 1.5.16.
    pub major: u16,
    /// Minor version: the 5 of 1.5.16.
    pub minor: u16,
    /// Update version: the 16 of 1.5.16.
    pub update: u16,
}

impl fmt::Display for TdxVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:02}", self.major, self.minor, self.update)
    }
}

/// The state of a module, by its own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The module is ready: TDs can run.
    Ready,
    /// The module has been shut down.
    ShutDown,
    /// The module is not ready: it is not yet initialised, configured or updated.
    NotReady,
    /// No module answers (VMfailInvalid).
    Nothing,
    /// Another answer, which does not tell the state.
    Unclear(TdxError),
}

/// The registers that a leaf returns.
#[derive(Default)]
struct Read {
    rax: u64,
    r8: u64,
    rdx: u64,
}

/// The TDX module that P-SEAMLDR runs.
pub struct TdxModule<'a, B: ?Sized> {
    backend: &'a B,
}

impl<B: ?Sized> fmt::Debug for TdxModule<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TdxModule").finish_non_exhaustive()
    }
}

impl<B: ?Sized> Clone for TdxModule<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: ?Sized> Copy for TdxModule<'_, B> {}

impl<'a, B: SeamcallBackend + ?Sized> TdxModule<'a, B> {
    /// Returns the module that `backend` calls.
    #[must_use]
    pub const fn new(backend: &'a B) -> Self {
        Self { backend }
    }

    /// Calls any leaf, up to ten times while the module answers RND_NO_ENTROPY. Returns `Ok` with
    /// every status word that has none of the bits 63:61.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    ///
    /// # Safety
    ///
    /// As for [`SeamcallBackend::seamcall`].
    pub unsafe fn tdx_call(&self, regs: &mut SeamcallRegs) -> Result<TdxStatus, TdxError> {
        let arguments = *regs;
        // SAFETY: the caller's.
        unsafe { self.retried(regs, || arguments) }
    }

    /// # Safety
    ///
    /// As for [`SeamcallBackend::seamcall`], with what `arguments` returns.
    unsafe fn retried(
        self,
        regs: &mut SeamcallRegs,
        arguments: impl Fn() -> SeamcallRegs,
    ) -> Result<TdxStatus, TdxError> {
        let mut tries = ENTROPY_TRIES;
        loop {
            *regs = arguments();
            // SAFETY: the caller's.
            unsafe { self.backend.seamcall(regs) }.map_err(TdxError::Trap)?;
            let status = TdxStatus(regs.rax);
            tries = tries.saturating_sub(1);
            if status == TdxStatus::RND_NO_ENTROPY && tries != 0 {
                continue;
            }
            return if status.is_failure() { Err(TdxError::Status(status)) } else { Ok(status) };
        }
    }

    /// Calls a leaf that takes numbers only. One copy of the code serves all such leaves.
    #[inline(never)]
    fn call_and_read(
        self,
        rax: u64,
        rcx: u64,
        rdx: u64,
        r9: u64,
        read: &mut Read,
    ) -> Result<(), TdxError> {
        let mut regs = SeamcallRegs::default();
        // SAFETY: the private callers pass no leaf that takes an address, except TDH.SYS.TDMR.INIT
        // with a misaligned address, which the module refuses.
        unsafe {
            self.retried(&mut regs, || SeamcallRegs { rax, rcx, rdx, r9, ..Default::default() })
        }?;
        *read = Read { rax: regs.rax, r8: regs.r8, rdx: regs.rdx };
        Ok(())
    }

    fn call_with_r9(self, rax: u64, rcx: u64, r9: u64) -> Result<TdxStatus, TdxError> {
        let mut read = Read::default();
        self.call_and_read(rax, rcx, 0, r9, &mut read)?;
        Ok(TdxStatus(read.rax))
    }

    fn call(self, rax: u64, rcx: u64) -> Result<TdxStatus, TdxError> {
        self.call_with_r9(rax, rcx, 0)
    }

    /// TDH.SYS.INIT: initialises the module. One LP calls this once.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn sys_init(&self, attributes: u64) -> Result<(), TdxError> {
        self.call(TdxLeaf::SYS_INIT.rax(0), attributes).map(drop)
    }

    /// TDH.SYS.LP.INIT: initialises the module on the calling LP.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn sys_lp_init(&self) -> Result<(), TdxError> {
        self.call(TdxLeaf::SYS_LP_INIT.rax(0), 0).map(drop)
    }

    /// Initialises the module (TDH.SYS.INIT) if no LP has, then the calling LP (TDH.SYS.LP.INIT).
    ///
    /// The answers SYS_INIT_NOT_PENDING and SYS_LP_INIT_DONE count as success: the step was done
    /// before. A module that is configured, or has taken over handoff data, initialises no more
    /// LPs.
    ///
    /// Returns `false` while another LP does TDH.SYS.INIT: call again.
    ///
    /// # Errors
    ///
    /// The leaf that failed, and why.
    pub fn enable_lp(&self, state: &ModuleState, lp: u32) -> Result<bool, (TdxLeaf, TdxError)> {
        if !self.init_once(state).map_err(|error| (TdxLeaf::SYS_INIT, error))? {
            return Ok(false);
        }
        if !state.is_lp_initialized(lp) {
            match self.sys_lp_init() {
                Ok(()) | Err(TdxError::Status(TdxStatus::SYS_LP_INIT_DONE)) => {}
                Err(error) => return Err((TdxLeaf::SYS_LP_INIT, error)),
            }
            state.set_lp_initialized(lp);
        }
        Ok(true)
    }

    /// Does TDH.SYS.INIT unless an LP has. Returns `false` while another LP does it.
    #[inline(never)] // one copy for both callers
    pub(crate) fn init_once(self, state: &ModuleState) -> Result<bool, TdxError> {
        match state.begin_sys_init() {
            SysInit::Running => Ok(false),
            SysInit::Done => Ok(true),
            SysInit::Claimed => {
                // The module can be initialised although `state` does not know it.
                let result = match self.sys_init(0) {
                    Err(TdxError::Status(TdxStatus::SYS_INIT_NOT_PENDING)) => Ok(()),
                    result => result,
                };
                state.finish_sys_init(result.is_ok());
                result.map(|()| true)
            }
        }
    }

    /// TDH.SYS.RD: reads one global metadata field, on an initialised LP.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn sys_rd(&self, field: FieldId) -> Result<FieldRead, TdxError> {
        let mut read = Read::default();
        self.call_and_read(TdxLeaf::SYS_RD.rax(0), 0, field.0, 0, &mut read)?;
        Ok(FieldRead { status: TdxStatus(read.rax), value: read.r8, next: FieldId(read.rdx) })
    }

    /// Reads the module's version by three TDH.SYS.RD.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn version(&self) -> Result<TdxVersion, TdxError> {
        Ok(TdxVersion {
            major: self.read_u16(FieldId::MAJOR_VERSION)?,
            minor: self.read_u16(FieldId::MINOR_VERSION)?,
            update: self.read_u16(FieldId::UPDATE_VERSION)?,
        })
    }

    /// Reads the module's features, TDX_FEATURES0, by TDH.SYS.RD.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn features0(&self) -> Result<TdxFeatures0, TdxError> {
        self.sys_rd(FieldId::TDX_FEATURES0).map(|read| TdxFeatures0::from_bits_retain(read.value))
    }

    /// Reads a field of two bytes. The module returns it in the low bits of a 64-bit word.
    pub(crate) fn read_u16(self, field: FieldId) -> Result<u16, TdxError> {
        #[allow(clippy::as_conversions)] // the element size of the field is 2 bytes
        self.sys_rd(field).map(|read| read.value as u16)
    }

    /// TDH.SYS.SHUTDOWN: stops the module for good. The module leaves handoff data, and only
    /// another module can run the TDs again. `Ok` with a status other than SUCCESS does not tell
    /// whether the module stopped.
    ///
    /// # Errors
    ///
    /// The instruction failed, or the module refused and still runs.
    pub fn sys_shutdown(&self, request: ShutdownRequest) -> Result<TdxStatus, TdxError> {
        self.call(TdxLeaf::SYS_SHUTDOWN.rax(0), request.rcx())
    }

    /// TDH.SYS.UPDATE: takes over the handoff data. Every LP of the platform must be initialised.
    /// `Ok` with a status other than SUCCESS does not tell whether the module took the data.
    ///
    /// # Errors
    ///
    /// The instruction failed, or the module refused and changed nothing.
    pub fn sys_update(&self) -> Result<TdxStatus, TdxError> {
        self.call(TdxLeaf::SYS_UPDATE.rax(0), 0)
    }

    /// TDH.SYS.UPDATE, version 1: takes over the handoff data and turns on features. Modules up to
    /// 1.5.28 and 2.0.16 know UPDATE_COMPATIBILITY only.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused. Modules that do not know version 1 refuse with
    /// OPERAND_INVALID (RAX). A module can refuse the features after it has restored the data; call
    /// again then.
    pub fn sys_update_v1(&self, enable: TdxFeatures0) -> Result<TdxStatus, TdxError> {
        self.call_with_r9(TdxLeaf::SYS_UPDATE.rax(1), 0, enable.bits())
    }

    /// TDH.SYS.KEY.CONFIG: sets up the global key on the caller's package. The status
    /// KEY_CONFIGURED means that the package has its key already.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn sys_key_config(&self) -> Result<TdxStatus, TdxError> {
        self.call(TdxLeaf::SYS_KEY_CONFIG.rax(0), 0)
    }

    /// TDH.SYS.LP.SHUTDOWN: deprecated; does nothing.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn sys_lp_shutdown(&self) -> Result<(), TdxError> {
        self.call(TdxLeaf::SYS_LP_SHUTDOWN.rax(0), 0).map(drop)
    }

    /// TDH.SYS.DISABLE: turns TDX off, for a kernel that is about to start another one (kexec).
    /// Call this again while the module answers INTERRUPTED_RESUMABLE or SYS_BUSY. Only modules
    /// with the feature SYS_DISABLE have it.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    pub fn sys_disable(&self) -> Result<(), TdxError> {
        self.call(TdxLeaf::SYS_DISABLE.rax(0), 0).map(drop)
    }

    /// Whether no module can be called, as while a session is open: TDH.SYS.RD traps [`LOOKS`]
    /// times in a row.
    #[inline(never)] // one copy for all callers
    pub(crate) fn is_out_of_reach(self) -> bool {
        (0..LOOKS).all(|_| self.is_out_of_reach_once())
    }

    #[inline(never)] // one copy for all looks
    fn is_out_of_reach_once(self) -> bool {
        matches!(self.sys_rd(FieldId::VENDOR_ID), Err(TdxError::Trap(_)))
    }

    /// Asks the module for its state by a call that changes nothing: TDH.SYS.TDMR.INIT of an
    /// address that cannot be a TDMR's. Asks up to [`LOOKS`] times while no module answers, or the
    /// answer does not tell the state.
    #[inline(never)]
    pub(crate) fn readiness(self) -> Readiness {
        let mut found = Readiness::Nothing;
        for _ in 0..LOOKS {
            found = self.readiness_by_one_call();
            if !matches!(found, Readiness::Nothing | Readiness::Unclear(_)) {
                break;
            }
        }
        found
    }

    // No known module answers this call with success, or with a status that is neither success nor
    // error.
    #[inline(never)] // one copy for all looks
    fn readiness_by_one_call(self) -> Readiness {
        match self.call(TdxLeaf::SYS_TDMR_INIT.rax(0), 1) {
            Ok(status) if status.is_success() => Readiness::Ready,
            Ok(status) => Readiness::Unclear(TdxError::Status(status)),
            Err(TdxError::Trap(Trap::VmFailInvalid)) => Readiness::Nothing,
            Err(TdxError::Status(status)) if status.code() == TdxStatus::OPERAND_INVALID => {
                Readiness::Ready
            }
            Err(TdxError::Status(TdxStatus::SYS_SHUTDOWN)) => Readiness::ShutDown,
            Err(TdxError::Status(TdxStatus::SYS_NOT_READY)) => Readiness::NotReady,
            Err(error) => Readiness::Unclear(error),
        }
    }

    /// TDH.SYS.CONFIG: configures a module that was loaded without TDs.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    ///
    /// # Safety
    ///
    /// `tdmr_list` must be the address, 512-byte aligned, of `num_tdmrs` addresses of TDMR_INFO
    /// structures. The module may read the list and the structures. The PAMT areas that they name
    /// become the module's own.
    pub unsafe fn sys_config(
        &self,
        tdmr_list: PhysAddr,
        num_tdmrs: u64,
        global_hkid: u64,
        dynamic_pamt: bool,
    ) -> Result<(), TdxError> {
        let mut regs = SeamcallRegs {
            rax: TdxLeaf::SYS_CONFIG.rax(0),
            rcx: tdmr_list.0,
            rdx: num_tdmrs,
            r8: global_hkid | u64::from(dynamic_pamt) << 16,
            ..Default::default()
        };
        // SAFETY: the caller's.
        unsafe { self.tdx_call(&mut regs) }.map(drop)
    }

    /// TDH.SYS.TDMR.INIT: initialises the next part of a TDMR. Returns the address after the
    /// initialised part.
    ///
    /// # Errors
    ///
    /// The instruction failed or the module refused.
    ///
    /// # Safety
    ///
    /// `tdmr` must be a TDMR that the caller gave to TDH.SYS.CONFIG. No other software uses its
    /// memory.
    pub unsafe fn sys_tdmr_init(&self, tdmr: PhysAddr) -> Result<PhysAddr, TdxError> {
        let mut regs =
            SeamcallRegs { rax: TdxLeaf::SYS_TDMR_INIT.rax(0), rcx: tdmr.0, ..Default::default() };
        // SAFETY: the caller's.
        unsafe { self.tdx_call(&mut regs) }?;
        Ok(PhysAddr(regs.rdx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// Answers every call in the same way, and counts them.
    struct Firmware<F> {
        answer: F,
        calls: Cell<u32>,
    }

    // SAFETY: touches no memory.
    unsafe impl<F: Fn(&mut SeamcallRegs) -> Result<(), Trap>> SeamcallBackend for Firmware<F> {
        unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
            self.calls.set(self.calls.get() + 1);
            (self.answer)(regs)
        }
    }

    fn with<F: Fn(&mut SeamcallRegs) -> Result<(), Trap>, R>(
        answer: F,
        ask: impl FnOnce(TdxModule<'_, Firmware<F>>) -> R,
    ) -> (R, u32) {
        let firmware = Firmware { answer, calls: Cell::new(0) };
        let result = ask(TdxModule::new(&firmware));
        (result, firmware.calls.get())
    }

    #[test]
    fn readiness_follows_from_the_answer_to_tdmr_init() {
        let after = |answer: Result<TdxStatus, Trap>| {
            let call = move |regs: &mut SeamcallRegs| {
                assert_eq!(
                    (regs.rax, regs.rcx),
                    (36, 1),
                    "TDH.SYS.TDMR.INIT with an invalid address"
                );
                regs.rax = answer?.0;
                Ok(())
            };
            with(call, |module| module.readiness()).0
        };
        assert_eq!(after(Ok(TdxStatus::SUCCESS)), Readiness::Ready);
        assert_eq!(after(Ok(TdxStatus(TdxStatus::OPERAND_INVALID.0 | 1))), Readiness::Ready);
        assert_eq!(after(Ok(TdxStatus::SYS_SHUTDOWN)), Readiness::ShutDown);
        assert_eq!(after(Ok(TdxStatus::SYS_NOT_READY)), Readiness::NotReady);
        assert_eq!(after(Err(Trap::VmFailInvalid)), Readiness::Nothing);
        let gp = TdxError::Trap(Trap::GeneralProtection);
        assert_eq!(after(Err(Trap::GeneralProtection)), Readiness::Unclear(gp));
        let busy = TdxError::Status(TdxStatus::SYS_BUSY);
        assert_eq!(after(Ok(TdxStatus::SYS_BUSY)), Readiness::Unclear(busy));
        let information = TdxError::Status(TdxStatus::KEY_CONFIGURED);
        assert_eq!(after(Ok(TdxStatus::KEY_CONFIGURED)), Readiness::Unclear(information));
    }

    #[test]
    fn module_is_out_of_reach_after_four_traps_in_a_row() {
        let (unreachable, calls) =
            with(|_| Err(Trap::VmFailInvalid), |module| module.is_out_of_reach());
        assert_eq!((unreachable, calls), (true, 4));
        let fourth = Cell::new(0);
        let answer = |regs: &mut SeamcallRegs| {
            fourth.set(fourth.get() + 1);
            regs.rax = TdxStatus::SYS_LP_INIT_NOT_DONE.0;
            if fourth.get() < 4 {
                Err(Trap::VmFailInvalid)
            } else {
                Ok(())
            }
        };
        assert_eq!(with(answer, |module| module.is_out_of_reach()), (false, 4));
        assert_eq!(with(|_| Ok(()), |module| module.is_out_of_reach()), (false, 1));
    }

    #[test]
    fn version_and_features_are_read_without_loss() {
        let answer = |regs: &mut SeamcallRegs| {
            regs.rax = 0;
            regs.r8 = match FieldId(regs.rdx) {
                FieldId::MAJOR_VERSION => 2,
                FieldId::MINOR_VERSION => 5,
                FieldId::UPDATE_VERSION => 0x1234,
                FieldId::TDX_FEATURES0 => 0x8000_0000_0000_0002,
                _ => 0,
            };
            Ok(())
        };
        let (version, calls) = with(answer, |module| module.version());
        assert_eq!((version, calls), (Ok(TdxVersion { major: 2, minor: 5, update: 0x1234 }), 3));
        let (features, _) = with(answer, |module| module.features0());
        assert_eq!(features.map(|features| features.bits()), Ok(0x8000_0000_0000_0002));
        let (module, _) = with(answer, |module| format!("{module:?}"));
        assert_eq!(module, "TdxModule { .. }");
    }

    #[test]
    fn trap_has_linux_status_word() {
        assert_eq!(TdxError::Trap(Trap::VmFailInvalid).status(), TdxStatus::SEAMCALL_VMFAILINVALID);
        assert_eq!(TdxError::Status(TdxStatus::SYS_BUSY).status(), TdxStatus::SYS_BUSY);
    }

    #[test]
    fn enable_lp_returns_false_while_another_lp_does_sys_init() {
        let state: &ModuleState = &ModuleState::<[_; 1]>::new();
        assert_eq!(state.begin_sys_init(), SysInit::Claimed);
        assert_eq!(with(|_| Ok(()), |module| module.enable_lp(state, 0)), (Ok(false), 0));
        state.finish_sys_init(false);
        let refuse = |regs: &mut SeamcallRegs| {
            regs.rax = TdxStatus::SYS_BUSY.0;
            Ok(())
        };
        let busy = TdxError::Status(TdxStatus::SYS_BUSY);
        let sys_init = with(refuse, |module| module.enable_lp(state, 0));
        assert_eq!(sys_init, (Err((TdxLeaf::SYS_INIT, busy)), 1));
        state.finish_sys_init(true);
        let lp_init = with(refuse, |module| module.enable_lp(state, 0));
        assert_eq!(lp_init, (Err((TdxLeaf::SYS_LP_INIT, busy)), 1));
        assert!(!state.is_lp_initialized(0));
    }
}
