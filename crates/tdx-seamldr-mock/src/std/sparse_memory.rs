//! Host memory whose pages are allocated at the first write.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::model::PhysMemory;

const PAGE: u64 = 4096;

/// Host memory by pages. An address with another KeyID is another page.
#[derive(Debug, Default)]
pub(crate) struct SparseMemory {
    pages: RefCell<HashMap<u64, Box<[u8; 4096]>>>,
    /// Writes of firmware since `take_changes`.
    changes: RefCell<Vec<HostChange>>,
}

/// Bytes that firmware wrote to one place, in one write or several.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "vectors"), allow(dead_code))] // only the replay of recordings reads it
pub(crate) struct HostChange {
    pub(crate) address: u64,
    pub(crate) before: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

impl SparseMemory {
    /// Returns what firmware wrote, in the order of the first write to each place.
    #[cfg(feature = "vectors")]
    pub(crate) fn take_changes(&self) -> Vec<HostChange> {
        self.changes.take()
    }

    /// Returns the bytes at an address, up to the end of the page.
    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes);
        bytes
    }

    /// Writes bytes as the host.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = usize::try_from(at % PAGE).unwrap_or(0);
            let (now, later) = rest.split_at(rest.len().min(4096usize.saturating_sub(offset)));
            let mut pages = self.pages.borrow_mut();
            let page = pages.entry(at / PAGE).or_insert_with(|| Box::new([0; 4096]));
            page.iter_mut().skip(offset).zip(now).for_each(|(slot, byte)| *slot = *byte);
            at = at.wrapping_add(u64::try_from(now.len()).unwrap_or(PAGE));
            rest = later;
        }
    }
}

impl PhysMemory for SparseMemory {
    fn read(&self, address: u64, out: &mut [u8]) {
        let offset = usize::try_from(address % PAGE).unwrap_or(0);
        match self.pages.borrow().get(&(address / PAGE)) {
            Some(page) => {
                out.iter_mut().zip(page.iter().skip(offset)).for_each(|(slot, byte)| *slot = *byte)
            }
            None => out.fill(0),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let before = self.bytes(address, bytes.len());
        self.put(address, bytes);
        let mut changes = self.changes.borrow_mut();
        let is_same = |change: &&mut HostChange| {
            change.address == address && change.after.len() == bytes.len()
        };
        match changes.iter_mut().find(is_same) {
            Some(change) => change.after = bytes.to_vec(),
            None => changes.push(HostChange { address, before, after: bytes.to_vec() }),
        }
    }
}
