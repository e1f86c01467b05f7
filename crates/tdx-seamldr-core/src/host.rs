//! The interface to the embedder: CPUs, waiting, addresses.

use crate::addr::PhysAddr;
use crate::backend::SeamcallBackend;

/// Whether a CPU that waits for other CPUs goes on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Go on waiting.
    Wait,
    /// Stop waiting and end the update for all LPs.
    GiveUp,
}

/// The machine that a [`Host`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineId(pub u64);

impl MachineId {
    /// The machine that this code runs on.
    pub const THIS: Self = Self(0);
}

/// The calling CPU and its machine: executes SEAMCALL, and knows the physical addresses that the
/// machine's firmware reads.
///
/// # Safety
///
/// The implementor guarantees what [`SeamcallBackend`] asks, and that
/// - [`phys_addr`](Self::phys_addr) returns the address at which the firmware that
///   [`seamcall`](SeamcallBackend::seamcall) calls finds this byte, followed by the rest of its 4
///   KiB block. The address is valid as long as the memory is borrowed: pages are not swapped,
///   moved or shared copy-on-write;
/// - two hosts have the same [`machine`](Self::machine) only if they call the same firmware, and so
///   agree on all addresses;
/// - [`current_lp`](Self::current_lp) returns a number that no other LP of the machine has. The
///   number does not change during an update.
pub unsafe trait Host: SeamcallBackend {
    /// Returns the number of the calling LP, from 0 and below the number of LPs that can come
    /// online. Preemption must be off during an update.
    fn current_lp(&self) -> u32;

    /// Returns how many LPs take part in an update. P-SEAMLDR waits for every LP of the platform.
    ///
    /// Each LP calls this at the start of the update. If the number differs from the update's, the
    /// update ends before it changes anything.
    fn num_lps(&self) -> u32;

    /// Waits for a short time. The LP calls this repeatedly while it waits for other LPs. An
    /// implementation executes a pause instruction, touches watchdogs and checks a deadline. It may
    /// always return [`Patience::Wait`] if all LPs are certain to come.
    fn relax(&self) -> Patience;

    /// Returns the physical address of a byte, `None` if it has none. The library asks only for
    /// memory that its caller passed in, and exposes the provenance of the address first.
    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr>;

    /// Returns the machine whose firmware this host calls. Only simulations have more than one
    /// machine.
    fn machine(&self) -> MachineId {
        MachineId::THIS
    }
}
