//! The second model. It is small, and written from the specification, not from the first model. It
//! has no memory contents, only the state that decides about answers.

mod loader;
mod module;

use std::collections::BTreeSet;

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus as S, TdxStatus as T};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{GlobalLock, LoaderProfile, ModuleState as State};

use crate::world::{Image, BAD_ADDRESSES, LPS, SEAMDB};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extend {
    pub(crate) ready: bool,
    pub(crate) valid: bool,
    pub(crate) svn: (u8, u8),
    pub(crate) image: Option<usize>,
}

pub(crate) const EMPTY: Extend = Extend { ready: false, valid: false, svn: (0, 0), image: None };

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    pub(crate) tds: BTreeSet<u16>,
    pub(crate) packages: BTreeSet<usize>,
    /// TDs in build and interrupted migrations that are counted.
    pub(crate) building: BTreeSet<u16>,
    pub(crate) migrating: BTreeSet<u16>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Handoff {
    pub(crate) valid: bool,
    pub(crate) hv: u16,
    pub(crate) size: u32,
    pub(crate) payload: Counted,
}

#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) image: Image,
    pub(crate) state: State,
    pub(crate) lps: BTreeSet<u32>,
    /// Packages that got the key from this module since its installation.
    pub(crate) own_packages: u32,
    pub(crate) knows: Counted,
    pub(crate) detects: bool,
    pub(crate) lock: GlobalLock,
    /// Whether the LP on which SYS.INIT ran deviated.
    pub(crate) deviates: bool,
}

/// The second model.
pub(crate) struct Opinion {
    pub(crate) profile: LoaderProfile,
    pub(crate) cleanup: bool,
    pub(crate) extend: Extend,
    pub(crate) snapshot: Extend,
    pub(crate) session: BTreeSet<u32>,
    pub(crate) ending: BTreeSet<u32>,
    pub(crate) cleaning: Option<BTreeSet<u32>>,
    /// Whether P-SEAMLDR was shut down, or SEAM mode is off.
    pub(crate) ended: bool,
    pub(crate) dead: bool,
    pub(crate) remaining: u32,
    pub(crate) used: u32,
    pub(crate) dirty: [bool; 2],
    pub(crate) written: bool,
    pub(crate) handoff: Handoff,
    /// Handoff pages of the running module, as P-SEAMLDR told it.
    pub(crate) old_pages: u16,
    pub(crate) module: Option<Module>,
    pub(crate) rdrand_failures: u32,
    pub(crate) insert_failures: u32,
    pub(crate) interrupts: u32,
    pub(crate) deviates: [bool; LPS as usize],
    pub(crate) traps: [Option<Trap>; LPS as usize],
    pub(crate) inside: [bool; LPS as usize],
}

pub(crate) type Answer = Result<u64, Trap>;

fn about(status: T, operand: u64) -> Answer {
    Ok(status.0 | operand)
}

impl Opinion {
    fn rdrand(&mut self) -> bool {
        let fails = self.rdrand_failures > 0;
        self.rdrand_failures -= u32::from(fails);
        !fails
    }

    pub(crate) fn callable(&self) -> bool {
        !self.dead && self.extend.ready && self.module.is_some()
    }

    pub(crate) fn alive(&self, td: u16) -> bool {
        let module = self.module.as_ref().filter(|module| module.state == State::Ready);
        self.callable() && module.is_some_and(|module| module.knows.tds.contains(&td))
    }

    /// Returns RAX of a call; for INSTALL also RDX.
    pub(crate) fn call(&mut self, lp: u32, regs: &SeamcallRegs) -> (Answer, Option<u64>) {
        if let Some(trap) = self.traps[lp as usize] {
            return (Err(trap), None);
        }
        let for_seamldr = regs.rax >> 63 == 1;
        if self.dead || for_seamldr && self.ended {
            return (Err(Trap::VmFailInvalid), None);
        }
        if !for_seamldr {
            if !self.callable() || self.inside[lp as usize] {
                return (Err(Trap::VmFailInvalid), None);
            }
            let answer = self.module_call(lp, regs);
            self.dead |= answer == Err(Trap::VmFailInvalid);
            return (answer, None);
        }
        let bad_address =
            |alignment: u64| regs.rcx % alignment != 0 || BAD_ADDRESSES[1..].contains(&regs.rcx);
        let status = match SeamldrLeaf::from_rax(regs.rax) {
            Some(SeamldrLeaf::Info) if bad_address(256) => S::EBADPARAM,
            Some(SeamldrLeaf::SeamInfo) if bad_address(2048) => S::EBADPARAM,
            Some(SeamldrLeaf::Info) => {
                if self.remaining == 0 && self.profile.preserves_tds {
                    self.remaining = SEAMDB - self.used;
                }
                S::SUCCESS
            }
            Some(SeamldrLeaf::SeamInfo) => S::SUCCESS,
            Some(SeamldrLeaf::Shutdown) => self.end(lp),
            Some(SeamldrLeaf::Cleanup) if self.cleanup => self.clean_up(lp),
            Some(SeamldrLeaf::Cleanup) | None => S::EBADPARAM,
            Some(SeamldrLeaf::Install) => {
                let (status, rdx) = self.install(lp, regs.rcx);
                return (Ok(status.0), Some(rdx));
            }
        };
        (Ok(status.0), None)
    }
}
