//! The module's answers.

use tdx_seamldr_core::abi::TdxStatus as T;
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{GlobalLock, ModuleState as State};

use super::{about, Answer, Handoff, Module, Opinion};
use crate::world::{LPS, MSR, PACKAGE, TDMRS};

impl Opinion {
    pub(super) fn module_call(&mut self, lp: u32, regs: &SeamcallRegs) -> Answer {
        let others_inside = (0..LPS).any(|other| other != lp && self.inside[other as usize]);
        let mut module = self.module.take().unwrap();
        let answer = self.leaf(&mut module, lp, regs, others_inside);
        self.module = Some(module);
        answer
    }

    fn leaf(
        &mut self,
        module: &mut Module,
        lp: u32,
        regs: &SeamcallRegs,
        others_inside: bool,
    ) -> Answer {
        const BEFORE_READY: [u64; 9] = [31, 32, 33, 34, 35, 37, 44, 45, 53];
        let (leaf, version) = (regs.rax & 0xffff, regs.rax >> 16 & 0xff);
        if regs.rax >> 24 != 0 {
            return about(T::OPERAND_INVALID, 0);
        }
        let takes_versions = leaf == 3 || leaf == 53 && module.image.counting;
        if version > 0 && !takes_versions {
            return about(T::OPERAND_INVALID, 0);
        }
        if leaf == 44 && module.state == State::Shutdown {
            return Ok(0);
        }
        if module.state == State::Shutdown {
            return Ok(T::SYS_SHUTDOWN.0);
        }
        if module.state != State::Ready && !BEFORE_READY.contains(&leaf) {
            return Ok(T::SYS_NOT_READY.0);
        }
        let exclusive_fails = module.lock != GlobalLock::Free;
        let complete = module.lps.len() == LPS as usize;
        let needs_lp = matches!(leaf, 32 | 34 | 37);
        match leaf {
            44 => Ok(0),
            31 | 33 | 45 | 53 if exclusive_fails => Ok(T::SYS_BUSY.0),
            _ if needs_lp && !module.lps.contains(&lp) => Ok(T::SYS_LP_INIT_NOT_DONE.0),
            32 => about(T::OPERAND_INVALID, 1),
            34 => Ok(T::SUCCESS.0),
            37 => about(T::OPERAND_INVALID, 2),
            33 => {
                let image = &module.image;
                if regs.rcx != 0 {
                    return about(T::OPERAND_INVALID, 1);
                }
                if module.state != State::SysInitPending {
                    return Ok(T::SYS_INIT_NOT_PENDING.0);
                }
                if image.hv.1 != image.built_hv || image.pages < 13 {
                    return Ok(T::SYS_INCOMPATIBLE_SIGSTRUCT.0);
                }
                if !self.rdrand() {
                    return Ok(T::RND_NO_ENTROPY.0);
                }
                (module.state, module.deviates) = (State::SysInitDone, self.deviates[lp as usize]);
                Ok(0)
            }
            35 => {
                if module.lock == GlobalLock::Exclusive {
                    return Ok(T::SYS_BUSY.0);
                }
                if module.state != State::SysInitDone {
                    return Ok(T::SYS_LP_INIT_NOT_PENDING.0);
                }
                if module.lps.contains(&lp) {
                    return Ok(T::SYS_LP_INIT_DONE.0);
                }
                if !self.rdrand() {
                    return Ok(T::RND_NO_ENTROPY.0);
                }
                if self.deviates[lp as usize] != module.deviates {
                    return about(T::INCONSISTENT_MSR, MSR.into());
                }
                module.lps.insert(lp);
                Ok(0)
            }
            45 => {
                if module.state != State::SysInitDone || !complete {
                    return Ok(T::SYS_CONFIG_NOT_PENDING.0);
                }
                for (operand, good) in
                    [(1, regs.rcx == TDMRS), (2, regs.rdx == 1), (8, regs.r8 == 0x20)]
                {
                    if !good {
                        return about(T::OPERAND_INVALID, operand);
                    }
                }
                (module.state, module.own_packages) = (State::SysConfigDone, 0);
                Ok(0)
            }
            31 => {
                if module.state != State::SysConfigDone {
                    return Ok(T::SYS_KEY_CONFIG_NOT_PENDING.0);
                }
                if !module.knows.packages.insert(PACKAGE[lp as usize]) {
                    return Ok(T::KEY_CONFIGURED.0);
                }
                module.own_packages += 1;
                if module.own_packages == 2 {
                    module.state = State::Ready;
                }
                Ok(0)
            }
            53 => self.update(module, regs, version, complete),
            52 => self.shut_down(module, regs.rcx, exclusive_fails || others_inside),
            // Two of these leaves need an operand, which the calls here never pass.
            36 => about(T::OPERAND_INVALID, 1),
            _ => about(T::OPERAND_INVALID, 0),
        }
    }

    fn update(
        &mut self,
        module: &mut Module,
        regs: &SeamcallRegs,
        version: u64,
        complete: bool,
    ) -> Answer {
        let (image, handoff) = (module.image, &mut self.handoff);
        if module.state != State::SysInitDone || !complete {
            return Ok(T::SYS_STATE_INCORRECT.0);
        }
        if !handoff.valid || !(image.hv.0..=image.hv.1).contains(&handoff.hv) {
            return Ok(T::SYS_INVALID_HANDOFF.0);
        }
        // The newest modules accept up to 25 pages of version 0.
        let pages = if image.counting && handoff.hv == 0 { 25 } else { u32::from(image.pages) + 1 };
        let room = pages * 4096 - 8;
        if handoff.size < image.handoff_size(handoff.hv) || handoff.size > room {
            return Err(Trap::VmFailInvalid);
        }
        module.knows = handoff.payload.clone();
        if !image.counting || handoff.hv == 0 {
            module.knows.building.clear();
            module.knows.migrating.clear();
        }
        if version > 1 {
            return about(T::OPERAND_INVALID, 0);
        }
        if version == 1 && regs.r9 & !image.features0().bits() != 0 {
            return about(T::OPERAND_INVALID, 9);
        }
        if version == 1 && regs.r10 != 0 {
            return about(T::OPERAND_INVALID, 10);
        }
        module.detects = version == 1 && regs.r9 >> 47 & 1 == 1;
        (handoff.valid, handoff.size, module.state) = (false, 0, State::Ready);
        Ok(0)
    }

    fn shut_down(&mut self, module: &mut Module, rcx: u64, busy: bool) -> Answer {
        let image = module.image;
        let avoid = image.counting && rcx >> 16 & 1 == 1;
        let hv = if image.counting { rcx & !(1 << 16) } else { rcx };
        let lowest = if image.no_downgrade { image.hv.1 } else { image.hv.0 };
        if !(u64::from(lowest)..=u64::from(image.hv.1)).contains(&hv) {
            return about(T::OPERAND_INVALID, 1);
        }
        if busy {
            return Ok(T::SYS_BUSY.0);
        }
        let (building, migrating) =
            (module.knows.building.len() as u64, module.knows.migrating.len() as u64);
        if avoid && building + migrating != 0 {
            let details = if building != 0 { building << 16 } else { migrating << 16 | 1 };
            return about(T::UPDATE_COMPATIBILITY_SENSITIVE, details);
        }
        module.state = State::Shutdown;
        let hv = hv as u16;
        self.handoff = Handoff {
            valid: true,
            hv,
            size: image.handoff_size(hv),
            payload: module.knows.clone(),
        };
        Ok(0)
    }
}
