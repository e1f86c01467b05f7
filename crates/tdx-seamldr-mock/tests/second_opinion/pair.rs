//! Both models side by side: makes each call on both, and compares answers and states.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};

use tdx_seamldr_core::abi::{
    HandoffHeader, Scenario, SeamldrInfo, SeamldrLeaf, SeamldrStatus as S,
};
use tdx_seamldr_core::abi::{TdxLeaf, TdxStatus as T, PAGE_SIZE};
use tdx_seamldr_core::SeamcallRegs;
use tdx_seamldr_mock::model::{
    Config, LoaderProfile, ModuleState as State, PhysMemory, Platform, SeamDb, SeamMemory, TdError,
    TdId, TdPhase,
};
use tdx_seamldr_mock::TEST_SIGNER;
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::calls::Action;
use crate::opinion::{Answer, Extend, Handoff, Opinion, EMPTY};
use crate::world::{params_of, Memory, BUFFER, LPS, MSR, SEAMDB, TDMRS, WORLD};

struct Td {
    phase: TdPhase,
    stale: bool,
    secret: [u8; 32],
    id: TdId,
}

/// Both models.
pub(crate) struct Pair {
    platform: Platform<Box<SeamMemory>>,
    memory: Memory,
    pub(crate) opinion: Opinion,
    tds: Vec<Td>,
    /// Answers that were seen: whether from P-SEAMLDR, and without details.
    pub(crate) seen: HashSet<(bool, Answer)>,
}

impl Pair {
    pub(crate) fn new(profile: LoaderProfile) -> Self {
        let config = Config::new(LPS, 2, 0x806f8, TEST_SIGNER, profile).unwrap();
        let seamdb = SeamDb { size: SEAMDB, used: 0, insert_failures: 0 };
        let opinion = Opinion {
            profile,
            cleanup: profile.has_cleanup,
            extend: EMPTY,
            snapshot: EMPTY,
            session: BTreeSet::new(),
            ending: BTreeSet::new(),
            cleaning: None,
            ended: false,
            dead: false,
            remaining: 0,
            used: 0,
            dirty: [false; 2],
            written: false,
            handoff: Handoff::default(),
            old_pages: 0,
            module: None,
            rdrand_failures: 0,
            insert_failures: 0,
            interrupts: 0,
            deviates: [false; LPS as usize],
            traps: [None; LPS as usize],
            inside: [false; LPS as usize],
        };
        Self {
            platform: Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap()),
            memory: Memory(RefCell::new(WORLD.0.clone())),
            opinion,
            tds: Vec::new(),
            seen: HashSet::new(),
        }
    }

    pub(crate) fn act(&mut self, action: &Action) {
        let regs = |rax: u64, rcx: u64| SeamcallRegs { rax, rcx, ..SeamcallRegs::default() };
        match action {
            Action::Call(lp, regs) => self.call(*lp, regs),
            Action::Install(lps, params) => {
                for lp in lps {
                    self.call(*lp, &regs(SeamldrLeaf::Install.rax(), *params));
                }
            }
            Action::BringUp { updates } => {
                self.call(0, &regs(TdxLeaf::SYS_INIT.rax(0), 0));
                for lp in 0..LPS {
                    self.call(lp, &regs(TdxLeaf::SYS_LP_INIT.rax(0), 0));
                }
                if *updates {
                    self.call(1, &regs(TdxLeaf::SYS_UPDATE.rax(0), 0));
                    return;
                }
                let config = regs(TdxLeaf::SYS_CONFIG.rax(0), TDMRS);
                self.call(0, &SeamcallRegs { rdx: 1, r8: 0x20, ..config });
                for lp in 0..LPS {
                    self.call(lp, &regs(TdxLeaf::SYS_KEY_CONFIG.rax(0), 0));
                }
            }
            Action::Update(image, rcx) => {
                self.call(2, &regs(TdxLeaf::SYS_SHUTDOWN.rax(0), *rcx));
                self.act(&Action::Install(vec![2, 0, 1], params_of(*image, Scenario::Update)));
                self.act(&Action::BringUp { updates: true });
            }
            Action::Rdrand(failures) => {
                self.platform.config_mut().rdrand_failures = *failures;
                self.opinion.rdrand_failures = *failures;
            }
            Action::SeamDb(failures) => {
                self.platform.seamdb_mut().insert_failures = *failures;
                self.opinion.insert_failures = *failures;
            }
            Action::Interrupts(count) => {
                self.platform.set_interrupts_pending(*count);
                self.opinion.interrupts = *count;
            }
            Action::HandoffSize(size) => {
                let header =
                    HandoffHeader { size: U32::new(*size), ..self.platform.handoff_header() };
                self.platform.handoff()[..8].copy_from_slice(header.as_bytes());
                self.opinion.handoff.size = *size;
            }
            Action::Deviate(lp) => {
                assert!(self.platform.deviate_msr(*lp, MSR, 1));
                self.opinion.deviates[*lp as usize] ^= true;
            }
            Action::Trap(lp, trap) => {
                self.platform.set_trap(*lp, *trap);
                self.opinion.traps[*lp as usize] = *trap;
            }
            Action::Inside(lp, inside) => {
                self.platform.set_in_module(*lp, *inside);
                self.opinion.inside[*lp as usize] = *inside;
            }
            Action::Lock(lock) => {
                if let (Some(module), Some(other)) =
                    (self.platform.module_mut(), &mut self.opinion.module)
                {
                    module.set_lock(*lock);
                    other.lock = *lock;
                }
            }
            Action::Create(phase) => self.create(*phase),
            Action::Finish(which) => self.finish(*which),
        }
        self.compare();
    }

    fn create(&mut self, phase: TdPhase) {
        // Another test covers TDs made while no module can be called.
        if self.tds.len() == 20 || !self.opinion.callable() {
            return;
        }
        let secret = [self.tds.len() as u8 + 1; 32];
        let td = self.platform.create_td(phase, secret);
        let module = self.opinion.module.as_mut().filter(|module| module.state == State::Ready);
        assert_eq!(td.is_some(), module.is_some());
        let (Some(id), Some(module)) = (td, module) else { return };
        module.knows.tds.insert(id.number());
        if module.image.counting {
            match phase {
                TdPhase::Build => module.knows.building.insert(id.number()),
                TdPhase::InterruptedMigration => module.knows.migrating.insert(id.number()),
                TdPhase::Running => false,
            };
        }
        self.tds.push(Td { phase, stale: false, secret, id });
    }

    fn finish(&mut self, which: usize) {
        if self.tds.is_empty() {
            return;
        }
        let which = which % self.tds.len();
        let (alive, td) = (self.opinion.alive(self.tds[which].id.number()), &mut self.tds[which]);
        let number = td.id.number();
        let module = self.opinion.module.as_mut().filter(|_| alive);
        let expected = match &module {
            None => Err(TdError::Gone),
            Some(_) if td.phase == TdPhase::Running => Err(TdError::Phase),
            Some(module) if module.detects && td.stale => Err(TdError::IncompatibleContext),
            Some(_) => Ok(()),
        };
        if let (Ok(()), Some(module)) = (expected, module) {
            let counted =
                module.knows.building.remove(&number) | module.knows.migrating.remove(&number);
            if module.image.counting && !counted {
                // Another test covers the end of a TD that was not counted.
                return;
            }
        }
        let phase = td.phase;
        let found = self.platform.finish_td(td.id, phase);
        assert_eq!(found.map(|_| ()), expected);
        if let Ok(measurement) = found {
            let good = tdx_seamldr_mock::model::Td::measurement_of(&[&td.secret]);
            assert!(td.stale || measurement == good, "no update has disturbed the measurement");
            td.phase = TdPhase::Running;
        }
    }

    fn call(&mut self, lp: u32, input: &SeamcallRegs) {
        let before = self.platform.handoff()[..15 * PAGE_SIZE].to_vec();
        let was_ready =
            self.opinion.module.as_ref().is_some_and(|module| module.state == State::Ready);
        let (expected, rdx) = self.opinion.call(lp, input);
        let mut regs = *input;
        let found =
            self.platform.seamcall(lp, &mut regs, &self.memory, &RustCrypto).map(|()| regs.rax);
        let for_seamldr = input.rax >> 63 == 1;
        assert_eq!(show(for_seamldr, found), show(for_seamldr, expected), "LP {lp}: {input:x?}");
        if let (Ok(_), Some(rdx)) = (found, rdx) {
            assert_eq!(regs.rdx, rdx, "RDX of INSTALL");
        }
        let details = if for_seamldr { u64::MAX } else { T::CODE_MASK };
        self.seen.insert((for_seamldr, found.map(|rax| rax & details)));
        let refused = found != Ok(0);
        if refused && (!for_seamldr || regs.rdx == 0) && regs.rax != S::EINTERRUPT.0 {
            assert!(
                self.platform.handoff()[..15 * PAGE_SIZE] == before,
                "a refusal does not change the handoff data"
            );
        }
        if found == Ok(0) && input.rax == SeamldrLeaf::Info.rax() && input.rcx == BUFFER {
            let mut bytes = [0; 256];
            self.memory.read(input.rcx, &mut bytes);
            let info = SeamldrInfo::read_from_bytes(&bytes).unwrap();
            assert_eq!(info.num_remaining_updates.get(), self.opinion.remaining);
            assert_eq!(info.seamextend, *self.platform.loader().seamextend());
        }
        if input.rax == TdxLeaf::SYS_RD.rax(0) {
            let module = self.opinion.module.as_ref();
            match (found, module) {
                (Ok(0), Some(module)) => assert_eq!(regs.r8, u64::from(module.image.built_hv)),
                (Ok(rax), _) if rax == T::SYS_LP_INIT_NOT_DONE.0 => {
                    assert_eq!((regs.rdx, regs.r8), (u64::MAX, 0));
                }
                _ => assert_eq!(regs, SeamcallRegs { rax: regs.rax, ..*input }),
            }
        }
        // A module that restored the handoff data uses another library.
        let is_ready =
            self.opinion.module.as_ref().is_some_and(|module| module.state == State::Ready);
        if !was_ready && is_ready && input.rax & 0xffff == u64::from(TdxLeaf::SYS_UPDATE.0) {
            self.tds.iter_mut().for_each(|td| td.stale |= td.phase != TdPhase::Running);
        }
        self.compare();
    }

    /// Compares the platform's state with the second model's.
    fn compare(&mut self) {
        let (opinion, loader) = (&self.opinion, self.platform.loader());
        let found = loader.seamextend();
        let seen = Extend {
            ready: found.seam_ready == 1,
            valid: found.valid.get() == 0x1ff,
            svn: (found.tee_tcb_svn[1], found.tee_tcb_svn[0]),
            image: WORLD.1.iter().position(|hash| *hash == found.mrseam),
        };
        assert_eq!(seen, opinion.extend);
        assert_eq!(found.p_seamldr_ready == 1, !opinion.ended);
        let session: BTreeSet<u32> = loader.session().collect();
        let ids = |lps: &BTreeSet<u32>| -> BTreeSet<u32> {
            lps.iter().map(|lp| self.platform.x2apic_id(*lp).unwrap()).collect()
        };
        assert_eq!(
            (session, loader.shutdown().collect()),
            (ids(&opinion.session), ids(&opinion.ending))
        );
        assert!(loader.lps_in_session() < LPS);
        assert_eq!(loader.lps_in_session() as usize, opinion.session.len());
        assert_eq!(loader.num_remaining_updates(), opinion.remaining);
        assert_eq!(loader.seamdb().used, opinion.used);
        let header = self.platform.handoff_header();
        assert_eq!(
            (header.valid != 0, header.hv.get(), header.size.get()),
            (opinion.handoff.valid, opinion.handoff.hv, opinion.handoff.size)
        );
        assert_eq!(self.platform.is_dead(), opinion.dead);
        assert_eq!(self.platform.module_is_callable(), opinion.callable());
        let module =
            self.platform.module().map(|module| (module.state(), module.num_lps_initialized()));
        let expected =
            opinion.module.as_ref().map(|module| (module.state, module.lps.len() as u32));
        assert_eq!(module, expected);
        for td in &self.tds {
            let secret = opinion.alive(td.id.number()).then_some(td.secret);
            assert_eq!(self.platform.td_secret(td.id), secret, "TD {}", td.id.number());
        }
    }
}

fn show(for_seamldr: bool, answer: Answer) -> String {
    match answer {
        Err(trap) => format!("{trap:?}"),
        Ok(rax) if for_seamldr => format!("{:?}", S(rax)),
        Ok(rax) => format!("{:?}", T(rax)),
    }
}
