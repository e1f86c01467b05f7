//! The embedder's side of an update: CPUs, waiting, addresses.

use crate::PhysAddr;

/// Whether a CPU that waits for others goes on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Look again.
    Wait,
    /// Enough: end the update for everybody.
    GiveUp,
}

/// What the library asks of the kernel, hypervisor or test that embeds it.
///
/// # Safety
///
/// An implementor has to return from [`phys_addr`](Self::phys_addr) the address under which the firmware finds the very
/// byte that was asked about, and the rest of its 4 KiB block behind it. It has to stay so for as long as the memory is
/// borrowed: pages must not be swapped, moved or shared copy-on-write. A host speaks for one machine: it is only to be used
/// with backends that reach that machine's firmware.
pub unsafe trait Host {
    /// The logical processor that calls: a number below that of all LPs that could ever come online. It has to stay the
    /// same from the start of an update to its end, so preemption has to be off, and no two LPs may have the same.
    fn current_lp(&self) -> u32;

    /// How many LPs take part in an update. Firmware wants every LP of the platform. LPs must neither come nor go between
    /// this answer and the end of the update.
    fn num_lps(&self) -> u32;

    /// Called again and again while this LP waits for others: the place for a pause instruction, for touching watchdogs,
    /// and for a deadline. An embedder whose LPs are certain to come returns [`Patience::Wait`].
    fn relax(&self) -> Patience;

    /// The physical address of a byte, `None` if it has none. Only addresses of memory that the library was given are
    /// asked for; their provenance has been exposed.
    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr>;
}
