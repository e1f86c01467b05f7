//! TDs: what an update has to keep alive.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most TDs of a platform.
pub const MAX_TDS: usize = 64;

/// Which TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TdId(pub(crate) u16);

impl TdId {
    /// Its number, counted from 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// How far a TD has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdPhase {
    /// Between TDH.MNG.INIT and TDH.MR.FINALIZE: its measurement is under way.
    Build,
    /// Finalized; it runs.
    Running,
    /// A step of its migration was interrupted and waits to be resumed.
    InterruptedMigration,
}

/// Why a TD does not go on as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdError {
    /// No module is ready that knows the TD's KeyID.
    Gone,
    /// It is not in the phase that this is for.
    Phase,
    /// The module has noticed that an update left it a context which it cannot use. (The real
    /// module has its own status for that: INCOMPATIBLE_MRTD_CONTEXT and
    /// INCOMPATIBLE_MBMD_MAC_CONTEXT.)
    IncompatibleContext,
}

/// A measurement that is under way, MRTD or the MAC of a migration: a toy hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measurement([u8; 32]);

impl Measurement {
    /// Goes on with this data.
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

    /// Comes to its end.
    pub fn finish(&mut self) {
        self.extend(Td::END);
    }

    /// As far as it has come.
    #[must_use]
    pub const fn value(&self) -> [u8; 32] {
        self.0
    }
}

/// A TD: memory that is encrypted with the key of its KeyID, and the context of a hash or a MAC
/// while there is one under way. Only a module that knows which KeyID that is can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Td {
    phase: u8,
    /// An update has put another library's code to work on its context.
    stale_context: u8,
    /// The module counts it among those that an update must not come in between of.
    counted: u8,
    /// The version of its context, or 0: the module does not say.
    context_version: u8,
    /// Its private memory, as it lies in DRAM.
    sealed: [u8; 32],
    /// MRTD, or the MAC of a migration: as far as it has come.
    context: [u8; 32],
}

impl Td {
    const ABSENT: u8 = 0;
    /// What ends a measurement.
    const END: &'static [u8] = b"end";

    /// Nothing of a TD yet.
    const NONE: Self = Self {
        phase: 0,
        stale_context: 0,
        counted: 0,
        context_version: 0,
        sealed: [0; 32],
        context: [0; 32],
    };

    /// A TD whose context a module with this version of it keeps.
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

    /// How far it has come.
    #[must_use]
    pub const fn phase(&self) -> TdPhase {
        match self.phase {
            1 => TdPhase::Build,
            2 => TdPhase::Running,
            _ => TdPhase::InterruptedMigration,
        }
    }

    /// Its MRTD, or the MAC of its migration, as far as it has come.
    #[must_use]
    pub const fn measurement(&self) -> [u8; 32] {
        self.context
    }

    /// What the measurement of a TD is in the end that holds this data, if nothing has come in
    /// between.
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

    /// What its private memory holds, seen through the key of this KeyID.
    pub(super) fn read(&self, hkid: u16) -> [u8; 32] {
        crypt(hkid, self.sealed)
    }

    /// The measurement comes to its end.
    pub(super) fn finish_measurement(&mut self) {
        self.measure(Self::END);
    }

    /// Goes on with the measurement.
    pub(super) fn measure(&mut self, data: &[u8]) {
        let mut measurement = Measurement(self.context);
        measurement.extend(data);
        self.context = measurement.value();
    }

    /// Another module has taken over, with contexts of this version. A hash or a MAC that is under
    /// way lies in memory as the old module's library left it, and one of another version, or
    /// one that does not say, reads it as something else.
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

    /// Whether the module counts it.
    pub(super) const fn is_counted(&self) -> bool {
        self.counted != 0
    }

    pub(super) fn set_counted(&mut self, counted: bool) {
        self.counted = u8::from(counted);
    }

    /// Whether the context is another library's.
    pub(super) const fn has_stale_context(&self) -> bool {
        self.stale_context != 0
    }
}

/// Encrypts and decrypts with the key of a KeyID. A toy, but with another KeyID everything comes
/// out otherwise.
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
    fn a_td_is_readable_with_its_own_key_id_only() {
        let td = Td::new(TdPhase::Running, 0x21, [7; 32], None);
        assert_eq!(td.read(0x21), [7; 32]);
        assert_ne!(td.read(0x22), [7; 32]);
    }

    #[test]
    fn another_library_spoils_what_is_under_way_and_nothing_else() {
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
