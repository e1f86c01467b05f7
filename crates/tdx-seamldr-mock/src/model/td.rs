//! TDs: what an update has to keep alive.

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

/// A TD: memory that is encrypted with the key of its KeyID. Only a module that knows which KeyID that is can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Td {
    /// How far it has come.
    pub phase: TdPhase,
    /// Its private memory, as it lies in DRAM.
    sealed: [u8; 32],
}

impl Td {
    pub(super) fn new(phase: TdPhase, hkid: u16, secret: [u8; 32]) -> Self {
        Self { phase, sealed: crypt(hkid, secret) }
    }

    /// What its private memory holds, seen through the key of this KeyID.
    pub(super) fn read(&self, hkid: u16) -> [u8; 32] {
        crypt(hkid, self.sealed)
    }
}

/// Encrypts and decrypts with the key of a KeyID. A toy, but with another KeyID everything comes out otherwise.
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
        let td = Td::new(TdPhase::Running, 0x21, [7; 32]);
        assert_eq!(td.read(0x21), [7; 32]);
        assert_ne!(td.read(0x22), [7; 32]);
    }
}
