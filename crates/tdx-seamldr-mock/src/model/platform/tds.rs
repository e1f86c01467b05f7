//! The TDs of a platform.

use core::ops::DerefMut;

use zerocopy::little_endian::U16;

use super::Platform;
use crate::model::handoff::KeyOwner;
use crate::model::{ModuleState, SeamMemory, Td, TdError, TdId, TdPhase, TdxModule};

impl<M: DerefMut<Target = SeamMemory>> Platform<M> {
    /// Makes a TD with its own KeyID. Returns `None` if no module is ready or there is no room for
    /// another TD.
    pub fn create_td(&mut self, phase: TdPhase, secret: [u8; 32]) -> Option<TdId> {
        let module = self.ready_module()?;
        let (counts, context_version) =
            (module.has_update_compatibility(), module.build().crypto_context);
        let key_ids = 1u16.checked_shl(self.config.keyid_bits).unwrap_or(u16::MAX);
        let memory = &mut *self.memory;
        let (number, slot) = (0u16..).zip(&mut memory.tds).find(|(_, slot)| !slot.is_present())?;
        // TDs get the KeyIDs after the module's own.
        let hkid = memory
            .tables
            .module_hkid
            .get()
            .checked_add(1)?
            .checked_add(number)
            .filter(|hkid| *hkid < key_ids)?;
        memory.tables.own(hkid, KeyOwner::Td(number))?;
        *slot = Td::new(phase, hkid, secret, context_version);
        slot.set_counted(counts);
        if counts {
            self.count(phase, 1);
        }
        Some(TdId(number))
    }

    /// Updates the module's count of operations that an update must not interrupt.
    fn count(&mut self, phase: TdPhase, change: i16) {
        let tables = &mut self.memory.tables;
        let counter: &mut U16 = match phase {
            TdPhase::Build => &mut tables.tds_in_build,
            TdPhase::InterruptedMigration => &mut tables.migrations_interrupted,
            TdPhase::Running => return,
        };
        *counter = U16::new(counter.get().saturating_add_signed(change));
    }

    /// Returns a TD, alive or not.
    pub fn td(&self, id: TdId) -> Option<&Td> {
        self.memory.tds.get(usize::from(id.0)).filter(|td| td.is_present())
    }

    /// Iterates over all TDs, alive or not.
    pub fn tds(&self) -> impl Iterator<Item = (TdId, &Td)> {
        let tds = (0u16..).zip(&self.memory.tds).filter(|(_, td)| td.is_present());
        tds.map(|(number, td)| (TdId(number), td))
    }

    /// Returns the module if it is ready and SEAMCALL reaches it.
    fn ready_module(&self) -> Option<&TdxModule> {
        self.module
            .as_ref()
            .filter(|module| module.state() == ModuleState::Ready && self.module_is_callable())
    }

    /// Returns the KeyID of a TD, if a ready module knows it.
    fn hkid_of(&self, id: TdId) -> Option<u16> {
        self.ready_module()?;
        self.memory.tables.hkid_of(id.0)
    }

    /// Returns the private memory of a TD as the TD itself reads it. Returns `None` if no ready
    /// module knows the TD's KeyID. If the KeyID is not the one that encrypted the memory, the TD
    /// reads noise.
    pub fn td_secret(&self, id: TdId) -> Option<[u8; 32]> {
        let hkid = self.hkid_of(id)?;
        self.td(id).map(|td| td.read(hkid))
    }

    /// Returns the TD, if it can continue its operation in this phase.
    fn td_under_way(&mut self, id: TdId, phase: TdPhase) -> Result<&mut Td, TdError> {
        self.hkid_of(id).ok_or(TdError::Gone)?;
        let protected = self.module.as_ref().is_some_and(TdxModule::update_compatibility);
        let td = self
            .memory
            .tds
            .get_mut(usize::from(id.0))
            .filter(|td| td.is_present())
            .ok_or(TdError::Gone)?;
        if td.phase() != phase || phase == TdPhase::Running {
            return Err(TdError::Phase);
        }
        if protected && td.has_stale_context() {
            return Err(TdError::IncompatibleContext);
        }
        Ok(td)
    }

    /// Adds a page with this content to a TD in build, and to its MRTD.
    ///
    /// # Errors
    ///
    /// The TD cannot continue.
    pub fn extend_td(&mut self, id: TdId, data: &[u8]) -> Result<(), TdError> {
        self.td_under_way(id, TdPhase::Build)?.measure(data);
        Ok(())
    }

    /// Completes a TD's build or its interrupted migration; the TD then runs. Returns the final
    /// MRTD, or the migration's final MAC.
    ///
    /// # Errors
    ///
    /// The TD cannot continue.
    pub fn finish_td(&mut self, id: TdId, phase: TdPhase) -> Result<[u8; 32], TdError> {
        let td = self.td_under_way(id, phase)?;
        td.finish_measurement();
        let measurement = td.measurement();
        td.set_phase(TdPhase::Running);
        let counted = td.is_counted();
        td.set_counted(false);
        if counted && self.module.as_ref().is_some_and(TdxModule::has_update_compatibility) {
            self.count(phase, -1);
        }
        Ok(measurement)
    }
}
