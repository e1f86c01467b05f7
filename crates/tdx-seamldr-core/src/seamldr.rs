//! Calls of P-SEAMLDR, one LP at a time.

use core::fmt;
use core::ptr;

use crate::abi::VMX_BASIC_SEAMRET_PRESERVES_VMCS;
use crate::abi::{
    PSysInfo, PSysInfoBuffer, SeamldrInfo, SeamldrInfoBuffer, SeamldrLeaf, SeamldrStatus,
};
use crate::addr::PhysAddr;
use crate::backend::{SeamcallRegs, Trap};
use crate::host::Host;
use crate::lock::Lock;
use crate::params::InstallRequest;
use crate::shared_info::SharedInfo;
use crate::tdx_module::LOOKS;

/// The effect of a return from P-SEAMLDR on the LP's current-VMCS pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrentVmcs {
    /// The pointer stays. A backend that saves and restores the pointer may claim this too.
    Preserved,
    /// The processor loses the pointer. This is the erratum of CPUs whose IA32_VMX_BASIC has bit
    /// 60 clear. A hypervisor that does not reload the pointer loses its virtual machines.
    Invalidated,
}

impl CurrentVmcs {
    /// Reads bit 60 of IA32_VMX_BASIC (MSR 0x480).
    #[must_use]
    pub const fn from_vmx_basic(vmx_basic: u64) -> Self {
        if vmx_basic & VMX_BASIC_SEAMRET_PRESERVES_VMCS != 0 {
            Self::Preserved
        } else {
            Self::Invalidated
        }
    }
}

/// P-SEAMLDR must not be called: this CPU loses its current-VMCS pointer when P-SEAMLDR returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmcsErratum;

impl fmt::Display for VmcsErratum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this CPU loses its current-VMCS pointer when P-SEAMLDR returns (IA32_VMX_BASIC bit \
             60 is 0, should be 1): install newer microcode",
        )
    }
}

impl core::error::Error for VmcsErratum {}

/// The error of SEAMLDR.INFO, SEAMLDR.SEAMINFO or SEAMLDR.SHUTDOWN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeamldrError {
    /// The buffer has no physical address.
    NotMapped,
    /// The instruction failed.
    Trap(Trap),
    /// P-SEAMLDR refused.
    Status(SeamldrStatus),
}

impl fmt::Display for SeamldrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped => f.write_str("the buffer for P-SEAMLDR has no physical address"),
            Self::Trap(trap) => trap.fmt(f),
            Self::Status(status) => write!(f, "P-SEAMLDR refused: {status}"),
        }
    }
}

impl core::error::Error for SeamldrError {}

/// The error of SEAMLDR.INSTALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The request was built for another machine; P-SEAMLDR was not called.
    OtherMachine,
    /// The instruction failed.
    Trap(Trap),
    /// P-SEAMLDR refused.
    Refused {
        /// RAX.
        status: SeamldrStatus,
        /// RDX: 0 if P-SEAMLDR kept the old module, any other value if it destroyed the module.
        rdx: u64,
    },
}

impl InstallError {
    /// Whether the old module and its handoff data are still in place, so that another session can
    /// keep the TDs.
    #[must_use]
    pub const fn is_recoverable(&self) -> bool {
        match self {
            Self::OtherMachine | Self::Trap(_) => true,
            Self::Refused { rdx, .. } => *rdx == 0,
        }
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMachine => {
                f.write_str("the request was built for another machine than this host's")
            }
            Self::Trap(trap) => trap.fmt(f),
            Self::Refused { status, rdx: 0 } => {
                write!(f, "P-SEAMLDR refused the module and kept the old one (RDX 0): {status}")
            }
            Self::Refused { status, rdx } => {
                write!(
                    f,
                    "P-SEAMLDR failed to install the module and the old one is gone (RDX {rdx}): \
                     {status}"
                )
            }
        }
    }
}

impl core::error::Error for InstallError {}

/// The calls of one LP to P-SEAMLDR, under a lock that all LPs share. Only one LP can be inside
/// P-SEAMLDR. A second LP gets VMfailInvalid.
pub struct Seamldr<'a, H: ?Sized, L: ?Sized> {
    host: &'a H,
    lock: &'a L,
}

impl<H: ?Sized, L: ?Sized> fmt::Debug for Seamldr<'_, H, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seamldr").finish_non_exhaustive()
    }
}

impl<H: ?Sized, L: ?Sized> Clone for Seamldr<'_, H, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: ?Sized, L: ?Sized> Copy for Seamldr<'_, H, L> {}

impl<'a, H: Host + ?Sized, L: Lock + ?Sized> Seamldr<'a, H, L> {
    /// Returns P-SEAMLDR as `host` calls it. All LPs must use the same lock.
    ///
    /// # Errors
    ///
    /// The CPU has the VMCS erratum: P-SEAMLDR must not be called on it.
    pub const fn new(
        host: &'a H,
        lock: &'a L,
        current_vmcs: CurrentVmcs,
    ) -> Result<Self, VmcsErratum> {
        match current_vmcs {
            CurrentVmcs::Preserved => Ok(Self { host, lock }),
            CurrentVmcs::Invalidated => Err(VmcsErratum),
        }
    }

    /// Returns the host that makes the calls.
    #[must_use]
    pub const fn host(&self) -> &'a H {
        self.host
    }

    /// Calls any leaf once, with the lock held. The caller reads the status in RAX.
    ///
    /// # Errors
    ///
    /// The instruction itself failed.
    ///
    /// # Safety
    ///
    /// As for [`SeamcallBackend::seamcall`](crate::SeamcallBackend::seamcall).
    pub unsafe fn seamldr_call(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller fulfils the same contract.
        self.exclusively(|| unsafe { self.host.seamcall(regs) })
    }

    /// SEAMLDR.INFO: describes P-SEAMLDR and the module that it runs. The call is slow.
    ///
    /// If the number of remaining updates that P-SEAMLDR remembers is 0, this call also makes it
    /// read the number again.
    ///
    /// # Errors
    ///
    /// The buffer has no physical address, the instruction failed or P-SEAMLDR refused.
    pub fn info<'b>(
        &self,
        buffer: &'b mut SeamldrInfoBuffer,
    ) -> Result<&'b SeamldrInfo, SeamldrError> {
        self.fill(SeamldrLeaf::Info, ptr::from_mut(buffer).cast())?;
        Ok(&buffer.0)
    }

    /// SEAMLDR.SEAMINFO: copies the platform table, P_SYSINFO, into `buffer`.
    ///
    /// # Errors
    ///
    /// The buffer has no physical address, the instruction failed or P-SEAMLDR refused.
    pub fn seam_info<'b>(
        &self,
        buffer: &'b mut PSysInfoBuffer,
    ) -> Result<&'b PSysInfo, SeamldrError> {
        self.fill(SeamldrLeaf::SeamInfo, ptr::from_mut(buffer).cast())?;
        Ok(&buffer.0)
    }

    /// SEAMLDR.INSTALL: this LP's part in a session. Every LP of the platform calls once. The call
    /// of the last LP checks and installs the image of that LP's request.
    ///
    /// # Errors
    ///
    /// See [`InstallError`].
    pub fn install(&self, request: &InstallRequest<'_>) -> Result<(), InstallError> {
        self.exclusively(|| self.install_with_lock_held(request))
    }

    /// Whether P-SEAMLDR does not answer this LP: SEAMLDR.INFO gives VMfailInvalid [`LOOKS`] times
    /// in a row. The call has a misaligned buffer address, which P-SEAMLDR refuses. Call this
    /// inside [`exclusively`](Self::exclusively).
    #[inline(never)] // one copy for both callers
    pub(crate) fn is_silent_with_lock_held(&self) -> bool {
        (0..LOOKS).all(|_| self.is_silent_once())
    }

    #[inline(never)] // one copy for all calls; its registers leave the stack when it returns
    fn is_silent_once(&self) -> bool {
        let mut regs = SeamcallRegs { rax: SeamldrLeaf::Info.rax(), rcx: 1, ..Default::default() };
        // SAFETY: P-SEAMLDR refuses a buffer that is not aligned to 256 bytes, so it writes
        // nothing.
        let result = unsafe { self.host.seamcall(&mut regs) };
        result == Err(Trap::VmFailInvalid)
    }

    /// Does `work` with the lock held: no other LP enters P-SEAMLDR meanwhile.
    pub(crate) fn exclusively<R>(&self, work: impl FnOnce() -> R) -> R {
        let held = self.lock.acquire();
        let result = work();
        self.lock.release(held);
        result
    }

    /// Does what [`install`](Self::install) does, inside [`exclusively`](Self::exclusively).
    pub(crate) fn install_with_lock_held(
        &self,
        request: &InstallRequest<'_>,
    ) -> Result<(), InstallError> {
        let mut regs = SeamcallRegs {
            rax: SeamldrLeaf::Install.rax(),
            rcx: request.params().get().0,
            ..Default::default()
        };
        if request.machine() != self.host.machine() {
            return Err(InstallError::OtherMachine);
        }
        // SAFETY: P-SEAMLDR reads the parameters, the SIGSTRUCT and the pages that an
        // `InstallRequest` names. The request was built from shared borrows of all of them, which
        // it keeps alive. A `Host` of this machine vouches for the addresses.
        unsafe { self.host.seamcall(&mut regs) }.map_err(InstallError::Trap)?;
        match SeamldrStatus(regs.rax) {
            status if status.is_success() => Ok(()),
            status => Err(InstallError::Refused { status, rdx: regs.rdx }),
        }
    }

    /// SEAMLDR.SHUTDOWN: this LP's part in ending P-SEAMLDR. After the first call no module can be
    /// called or installed until a reboot.
    ///
    /// # Errors
    ///
    /// The instruction failed or P-SEAMLDR refused.
    pub fn shutdown(&self) -> Result<(), SeamldrError> {
        // SAFETY: the leaf takes no address.
        unsafe { self.status_of(SeamldrLeaf::Shutdown, PhysAddr(0)) }
    }

    /// Calls SEAMLDR.INFO with a buffer that LPs share.
    pub(crate) fn shared_info(&self, buffer: &SharedInfo) -> Result<(), SeamldrError> {
        self.fill(SeamldrLeaf::Info, ptr::from_ref(buffer).cast())
    }

    /// Calls a leaf that fills a buffer.
    #[inline(never)] // one copy for all callers
    fn fill(&self, leaf: SeamldrLeaf, buffer: *const u8) -> Result<(), SeamldrError> {
        let _ = buffer.expose_provenance();
        let address = self.host.phys_addr(buffer).ok_or(SeamldrError::NotMapped)?;
        // SAFETY: the private callers pass buffers with the size and the alignment that their leaf
        // writes. All bytes are a value of the buffer's type. The callers borrow the buffer
        // exclusively, or it consists of atomics. `Host` vouches for the address on the machine
        // whose firmware it calls.
        unsafe { self.status_of(leaf, address) }
    }

    /// # Safety
    ///
    /// As for [`SeamcallBackend::seamcall`](crate::SeamcallBackend::seamcall), with `rcx` as the
    /// only operand.
    unsafe fn status_of(&self, leaf: SeamldrLeaf, rcx: PhysAddr) -> Result<(), SeamldrError> {
        let mut regs = SeamcallRegs { rax: leaf.rax(), rcx: rcx.0, ..Default::default() };
        // SAFETY: the caller fulfils the same contract.
        unsafe { self.seamldr_call(&mut regs) }.map_err(SeamldrError::Trap)?;
        match SeamldrStatus(regs.rax) {
            status if status.is_success() => Ok(()),
            status => Err(SeamldrError::Status(status)),
        }
    }
}
