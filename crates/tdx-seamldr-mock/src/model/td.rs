//! TDs, which an update has to preserve.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most TDs of a platform.
pub const MAX_TDS: usize = 64;

/// Identifies a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TdId(pub(crate) u16);

impl TdId {
    /// Returns the number of the TD, counted from 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Phase of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdPhase {
    /// Between TDH.MNG.INIT and TDH.MR.FINALIZE; the measurement is not complete.
    Build,
    /// Finalized and running.
    Running,
    /// A step of the TD's migration was interrupted and is to be resumed.
    InterruptedMigration,
}

/// Why a TD cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdError {
    /// No ready module knows the TD's KeyID.
    Gone,
    /// The TD is in another phase.
    Phase,
    /// The module found that an update left a context that it cannot use. The real module returns
    /// INCOMPATIBLE_MRTD_CONTEXT or INCOMPATIBLE_MBMD_MAC_CONTEXT.
    IncompatibleContext,
}

/// A measurement in progress: MRTD, or the MAC of a migration. It is a toy hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measurement([u8; 32]);

impl Measurement {
    /// Adds data to the measurement.
    pub fn extend(&mut self, data: &[u8]) {
        let mut state = 0xcbf2_9ce4_8422_2325u64;
        for byte in self.0.iter().chain(data) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for chunk in self.0.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            chunk.copy_from_slice(&state.to_le_bytes());
        }
    }

    /// Completes the measurement.
    pub fn finish(&mut self) {
        self.extend(Td::END);
    }

    /// Returns the measurement so far.
    #[must_use]
    pub const fn value(&self) -> [u8; 32] {
        self.0
    }
}

/// A TD: memory that the key of its KeyID encrypts, and the context of a hash or MAC in progress.
/// Only a module that knows the KeyID can run the TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Td {
    phase: u8,
    /// Whether an update gave the context to a library of another version.
    stale_context: u8,
    /// Whether the module counts this TD among the operations that an update must not interrupt.
    counted: u8,
    /// Version of the context, or 0 if the module does not report one.
    context_version: u8,
    /// The private memory, encrypted, as in DRAM.
    sealed: [u8; 32],
    /// MRTD so far, or the MAC of a migration so far.
    context: [u8; 32],
}

impl Td {
    const ABSENT: u8 = 0;
    /// The data that completes a measurement.
    const END: &'static [u8] = b"end";

    /// An empty slot.
    const NONE: Self = Self {
        phase: 0,
        stale_context: 0,
        counted: 0,
        context_version: 0,
        sealed: [0; 32],
        context: [0; 32],
    };

    /// Returns a TD whose context has the module's version.
    pub(super) fn new(
        phase: TdPhase,
        hkid: u16,
        secret: [u8; 32],
        context_version: Option<u8>,
    ) -> Self {
        let context_version = context_version.unwrap_or(0);
        let mut td = Self { sealed: crypt(hkid, secret), context_version, ..Self::NONE };
        td.set_phase(phase);
        td.measure(&secret);
        td
    }

    pub(super) const fn is_present(&self) -> bool {
        self.phase != Self::ABSENT
    }

    /// Returns the phase.
    #[must_use]
    pub const fn phase(&self) -> TdPhase {
        match self.phase {
            1 => TdPhase::Build,
            2 => TdPhase::Running,
            _ => TdPhase::InterruptedMigration,
        }
    }

    /// Returns the MRTD so far, or the MAC of the migration so far.
    #[must_use]
    pub const fn measurement(&self) -> [u8; 32] {
        self.context
    }

    /// Returns the final measurement of a TD with this data, if nothing disturbs it.
    #[must_use]
    pub fn measurement_of(data: &[&[u8]]) -> [u8; 32] {
        let mut measurement = Measurement::default();
        data.iter().for_each(|data| measurement.extend(data));
        measurement.finish();
        measurement.value()
    }

    pub(super) fn set_phase(&mut self, phase: TdPhase) {
        self.phase = match phase {
            TdPhase::Build => 1,
            TdPhase::Running => 2,
            TdPhase::InterruptedMigration => 3,
        };
    }

    /// Returns the private memory, decrypted with the key of this KeyID.
    pub(super) fn read(&self, hkid: u16) -> [u8; 32] {
        crypt(hkid, self.sealed)
    }

    /// Completes the measurement.
    pub(super) fn finish_measurement(&mut self) {
        self.measure(Self::END);
    }

    /// Adds data to the measurement.
    pub(super) fn measure(&mut self, data: &[u8]) {
        let mut measurement = Measurement(self.context);
        measurement.extend(data);
        self.context = measurement.value();
    }

    /// Hands the TD to a module whose contexts have this version. A hash or MAC in progress stays
    /// in memory as the old module's library left it. A library of another version, or of a module
    /// that does not report one, misreads it.
    pub(super) fn change_library(&mut self, context_version: Option<u8>) {
        if !self.is_present() || self.phase() == TdPhase::Running {
            return;
        }
        let context_version = context_version.unwrap_or(0);
        if context_version == 0 || context_version != self.context_version {
            self.stale_context = 1;
            self.measure(b"another library");
        }
        self.context_version = context_version;
    }

    /// Returns whether the module counts this TD.
    pub(super) const fn is_counted(&self) -> bool {
        self.counted != 0
    }

    pub(super) fn set_counted(&mut self, counted: bool) {
        self.counted = u8::from(counted);
    }

    /// Returns whether the context belongs to another library.
    pub(super) const fn has_stale_context(&self) -> bool {
        self.stale_context != 0
    }
}

/// Encrypts or decrypts with the key of a KeyID. It is a toy cipher, but each KeyID gives another
/// result.
fn crypt(hkid: u16, mut data: [u8; 32]) -> [u8; 32] {
    let mut key = u64::from(hkid).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut data {
        key ^= key << 13;
        key ^= key >> 7;
        key ^= key << 17;
        let [low, ..] = key.to_le_bytes();
        *byte ^= low;
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tds_own_key_id_decrypts_its_memory() {
        let td = Td::new(TdPhase::Running, 0x21, [7; 32], None);
        assert_eq!(td.read(0x21), [7; 32]);
        assert_ne!(td.read(0x22), [7; 32]);
    }

    #[test]
    fn another_library_spoils_a_measurement_in_progress_and_nothing_else() {
        for (phase, spoilt) in [
            (TdPhase::Build, true),
            (TdPhase::InterruptedMigration, true),
            (TdPhase::Running, false),
        ] {
            let before = Td::new(phase, 0x21, [7; 32], Some(1));
            let mut after = before;
            after.change_library(Some(1));
            assert_eq!(after.measurement(), before.measurement(), "the same version");
            after.change_library(Some(2));
            assert_eq!(after.measurement() != before.measurement(), spoilt, "{phase:?}");
            assert_eq!(after.read(0x21), [7; 32]);
        }
    }
}
