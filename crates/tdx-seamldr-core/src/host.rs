//! The embedder's side: CPUs, waiting, addresses.

use crate::addr::PhysAddr;
use crate::backend::SeamcallBackend;

/// Whether a CPU that waits for others goes on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Look again.
    Wait,
    /// Enough: end the update for everybody.
    GiveUp,
}

/// Which machine a [`Host`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineId(pub u64);

impl MachineId {
    /// The machine that this code runs on.
    pub const THIS: Self = Self(0);
}

/// One CPU of a machine: it executes SEAMCALL there, and knows the physical addresses that this machine's firmware reads.
///
/// # Safety
///
/// The implementor guarantees, beside what [`SeamcallBackend`] asks, that
/// - [`phys_addr`](Self::phys_addr) returns the address under which the firmware that [`seamcall`](SeamcallBackend::seamcall) reaches
///   finds the very byte that was asked about, and behind it the rest of its 4 KiB block. It stays so for as long as the memory is
///   borrowed: pages are not swapped, moved or shared copy-on-write;
/// - two hosts have the same [`machine`](Self::machine) only if they reach the same firmware, and so agree on all addresses;
/// - [`current_lp`](Self::current_lp) returns a number that no other LP of the machine has, and the same one from the start of an
///   update to its end.
pub unsafe trait Host: SeamcallBackend {
    /// The logical processor that calls: a number below that of all LPs that could ever come online. Preemption has to be off during
    /// an update.
    fn current_lp(&self) -> u32;

    /// How many LPs take part in an update. Firmware wants every LP of the platform. Each LP asks when it arrives, and the update ends
    /// with nothing touched if the answer differs from that of preflight.
    fn num_lps(&self) -> u32;

    /// Called again and again while this LP waits for others: the place for a pause instruction, for touching watchdogs,
    /// and for a deadline. An embedder whose LPs are certain to come returns [`Patience::Wait`].
    fn relax(&self) -> Patience;

    /// The physical address of a byte, `None` if it has none. Only addresses of memory that the library was given are
    /// asked for; their provenance has been exposed.
    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr>;

    /// The machine whose firmware this host reaches. Only simulations have more than one.
    fn machine(&self) -> MachineId {
        MachineId::THIS
    }
}
