//! P-SEAMLDR's answers to SHUTDOWN, CLEANUP and INSTALL.

use std::collections::BTreeSet;

use tdx_seamldr_core::abi::SeamldrStatus as S;
use tdx_seamldr_mock::model::{GlobalLock, ModuleState as State};

use super::{Counted, Extend, Handoff, Module, Opinion, EMPTY};
use crate::world::{Defect, ALL_IMAGES, BAD_ADDRESSES, HOLE, LPS, PACKAGE, PARAMS, SEAMDB};

impl Opinion {
    pub(super) fn end(&mut self, lp: u32) -> S {
        if self.cleanup && (!self.session.is_empty() || self.cleaning.is_some()) {
            return S::EBADCALL;
        }
        if self.dirty.contains(&true) {
            return S::ECLEANUPREQ;
        }
        self.ending.insert(lp);
        self.extend.ready = false;
        if self.ending.len() < LPS as usize {
            return S::SUCCESS;
        }
        if lp != 0 {
            return S::EBADCALL;
        }
        (self.extend, self.ended) = (EMPTY, true);
        S::SUCCESS
    }

    pub(super) fn clean_up(&mut self, lp: u32) -> S {
        let mut done = self.cleaning.clone().unwrap_or_default();
        if !self.session.is_empty()
            || !self.ending.is_empty()
            || done.contains(&lp)
            || !self.written
        {
            return S::EBADCALL;
        }
        (self.extend.ready, self.extend.svn, self.handoff.valid) = (false, (0, 0), false);
        self.module = None;
        self.cleaning = Some(done.clone());
        let package = PACKAGE[lp as usize];
        let others = (0..LPS).filter(|other| *other != lp && PACKAGE[*other as usize] == package);
        if self.dirty[package] && others.into_iter().all(|other| done.contains(&other)) {
            if self.interrupts > 0 {
                self.interrupts -= 1;
                return S::EINTERRUPT;
            }
            self.dirty[package] = false;
        }
        done.insert(lp);
        self.cleaning = Some(done);
        if self.cleaning.as_ref().is_some_and(|done| done.len() == LPS as usize) {
            (self.extend, self.cleaning, self.used, self.remaining) = (EMPTY, None, 0, SEAMDB);
        }
        S::SUCCESS
    }

    pub(super) fn install(&mut self, lp: u32, params: u64) -> (S, u64) {
        if !self.ending.is_empty() || self.cleaning.is_some() || self.session.contains(&lp) {
            return (S::EBADCALL, 0);
        }
        if self.session.is_empty() {
            self.snapshot = self.extend;
            self.extend.ready = false;
        }
        self.session.insert(lp);
        if self.session.len() < LPS as usize {
            return (S::SUCCESS, 0);
        }
        self.session.clear();
        match self.complete(params) {
            Ok(()) => (S::SUCCESS, 0),
            Err((status, 0)) => {
                self.extend = self.snapshot;
                (status, 0)
            }
            Err((status, rdx)) => {
                self.module = None;
                if status != S::ENOENTROPY {
                    self.extend = EMPTY;
                }
                (status, rdx)
            }
        }
    }

    /// Numbers are those of firmware rule 8.5: 27 is step 8.5.27.
    fn complete(&mut self, params: u64) -> Result<(), (S, u64)> {
        let newer = self.cleanup;
        if BAD_ADDRESSES.contains(&params) {
            return Err((S::EBADPARAM, 0)); // 5
        }
        if params == HOLE {
            return Err((if newer { S::EBADPARAM } else { S::EBADSIG }, 0)); // 9, 14
        }
        let number = (params - PARAMS) / 4096;
        let (number, updates) = ((number / 2) as usize, number % 2 == 1);
        let image = ALL_IMAGES[number];
        if updates && !self.snapshot.ready {
            return Err((S::EBADPARAM, 0)); // 12
        }
        if image.defect == Defect::Field {
            return Err((S::EBADSIG, 0)); // 13
        }
        if newer && image.svn.0 == 0 {
            return Err((S::EUNSUPPORTED, 0)); // 21
        }
        let running = self.snapshot.svn;
        if !self.profile.preserves_tds {
            if updates && image.svn < running {
                return Err((S::EBADSIG, 0)); // of 1.0
            }
        } else if updates {
            if image.svn.0 != running.0 {
                return Err((if newer { S::EUNSUPPORTED } else { S::EBADCALL }, 0));
                // 22
            }
            if image.svn.1 < running.1 {
                return Err((S::EBADSIG, 0)); // 23
            }
        } else if self.dirty.contains(&true)
            && (image.svn.0 != running.0 || image.svn.1 < running.1)
        {
            return Err((S::ECLEANUPREQ, 0)); // 23b
        }
        match image.defect {
            Defect::Cpu => return Err((S::EUNSUPCPU, 0)),     // 25
            Defect::Signature => return Err((S::EBADSIG, 0)), // 27
            _ => {}
        }
        if !self.rdrand() {
            return Err((S::ENOENTROPY, 0)); // 28
        }
        if image.defect == Defect::Memory {
            return Err((S::ENOMEM, 0)); // 29
        }
        if updates && image.svn.0 != 0 && self.profile.preserves_tds {
            if self.remaining == 0 {
                return Err((S::EBADCALL, 0)); // 30
            }
            let room = (u64::from(self.old_pages) + 1) * 4096;
            let Handoff { valid, hv, size, .. } = self.handoff;
            if !valid || u64::from(size) + 8 > room || !(image.hv.0..=image.hv.1).contains(&hv) {
                return Err((S::EBADHANDOFF, 0)); // 31
            }
        } else {
            self.handoff = Handoff::default();
            if self.profile.preserves_tds {
                (self.used, self.remaining) = (0, SEAMDB);
            }
        }
        (self.written, self.old_pages) = (true, 0);
        match image.defect {
            Defect::Hash => return Err((S::EBADHASH, 1)), // 33
            Defect::Elf if self.profile.relocates => return Err((S::EBADPARAM, 1)), // 34
            _ => {}
        }
        self.extend = Extend { ready: false, valid: true, svn: image.svn, image: Some(number) };
        if self.profile.preserves_tds {
            // An attempt succeeds only if there is entropy and the database has room.
            let failures = self.insert_failures.min(5);
            self.insert_failures -= failures;
            if failures == 5 || self.used == SEAMDB {
                return Err((S::ENOENTROPY, 1)); // 35
            }
            (self.used, self.remaining) = (self.used + 1, self.remaining - 1);
        }
        self.extend.ready = true;
        self.old_pages = image.pages;
        if newer {
            self.dirty = [true; 2];
        }
        self.inside = [false; LPS as usize];
        self.module = Some(Module {
            image,
            state: State::SysInitPending,
            lps: BTreeSet::new(),
            own_packages: 0,
            knows: Counted::default(),
            detects: false,
            lock: GlobalLock::Free,
            deviates: false,
        });
        Ok(())
    }
}
