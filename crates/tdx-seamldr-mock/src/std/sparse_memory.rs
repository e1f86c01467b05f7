//! Memory of a host that is made as it is written.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::model::PhysMemory;

const PAGE: u64 = 4096;

/// Memory of a host, by pages. An address with another KeyID is another page.
#[derive(Debug, Default)]
pub(crate) struct SparseMemory {
    pages: RefCell<HashMap<u64, Box<[u8; 4096]>>>,
    /// What firmware wrote since it was last asked for.
    writes: RefCell<Vec<HostWrite>>,
}

/// A write by firmware.
#[derive(Clone, Debug)]
pub(crate) struct HostWrite {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
    /// There was something else before.
    pub(crate) changed: bool,
}

impl SparseMemory {
    /// What firmware wrote, in order.
    pub(crate) fn take_writes(&self) -> Vec<HostWrite> {
        self.writes.take()
    }

    /// The host puts bytes somewhere.
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
            Some(page) => out.iter_mut().zip(page.iter().skip(offset)).for_each(|(slot, byte)| *slot = *byte),
            None => out.fill(0),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let mut before = vec![0; bytes.len()];
        self.read(address, &mut before);
        let changed = before != bytes;
        self.put(address, bytes);
        self.writes.borrow_mut().push(HostWrite { address, bytes: bytes.to_vec(), changed });
    }
}
