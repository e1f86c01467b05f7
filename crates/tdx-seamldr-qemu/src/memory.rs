//! The memory that firmware reads and writes: the guest's.

use tdx_seamldr_mock::model::PhysMemory;

use crate::ffi::Api;

/// The guest's memory, in a callback of a vCPU.
pub(crate) struct GuestMemory<'a>(pub(crate) &'a Api);

impl PhysMemory for GuestMemory<'_> {
    fn read(&self, address: u64, out: &mut [u8]) {
        if !out.is_empty() {
            self.0.read_physical(address, out);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.write_physical(address, bytes);
        }
    }
}
