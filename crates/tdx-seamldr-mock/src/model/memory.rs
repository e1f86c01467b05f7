//! What the model needs of its surroundings: memory that the host owns, and room for the SEAM range.

/// Bytes of the code region: 2 MiB below P-SEAMLDR.
pub const CODE_SIZE: usize = 2 << 20;

/// Bytes kept of the handoff area: enough for what any module here writes.
pub const HANDOFF_STORAGE: usize = 16 * 4096;

/// The host's memory, by physical address without KeyID. An address with another KeyID is other memory, and reads as 0.
pub trait PhysMemory {
    /// Reads bytes that lie in one page. What is not there reads as 0.
    fn read(&self, address: u64, out: &mut [u8]);

    /// Writes bytes that lie in one page. What is not there stays so.
    fn write(&self, address: u64, bytes: &[u8]);
}

/// Room for the parts of the SEAM range whose bytes matter.
pub trait SeamStorage {
    /// The code region, [`CODE_SIZE`] bytes.
    fn code(&mut self) -> &mut [u8];

    /// Header and data that one module hands to the next, [`HANDOFF_STORAGE`] bytes.
    fn handoff(&mut self) -> &mut [u8];
}
