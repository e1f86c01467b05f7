//! The lock that lets one CPU at a time into P-SEAMLDR.

/// A lock that works with interrupts off. In a kernel the lock turns them off itself.
///
/// The library holds the lock for one call of P-SEAMLDR. In an update it also holds the lock for a
/// few calls that follow and ask whether a module or P-SEAMLDR answers. The holder never waits for
/// another CPU, so a waiter waits for firmware only. The library does not call
/// [`Host::relax`](crate::Host::relax) while it waits for the lock.
///
/// An implementor must not sleep, allocate or make a SEAMCALL. With two holders a SEAMCALL would
/// fail with VMfailInvalid; memory would not be at risk.
pub trait Lock {
    /// The proof that the lock is held: a guard, or the saved interrupt flags of a kernel.
    type Held<'a>
    where
        Self: 'a;

    /// Waits until the lock is free and takes it.
    fn acquire(&self) -> Self::Held<'_>;

    /// Releases the lock.
    fn release<'a>(&'a self, held: Self::Held<'a>);
}

/// A spin lock for callers that run with interrupts off or in user space.
#[cfg(feature = "spin")]
#[derive(Debug, Default)]
pub struct SpinLock(spin::mutex::SpinMutex<()>);

#[cfg(feature = "spin")]
impl SpinLock {
    /// Returns a free lock.
    #[must_use]
    pub const fn new() -> Self {
        Self(spin::mutex::SpinMutex::new(()))
    }
}

#[cfg(feature = "spin")]
impl Lock for SpinLock {
    type Held<'a> = spin::mutex::SpinMutexGuard<'a, ()>;

    fn acquire(&self) -> Self::Held<'_> {
        self.0.lock()
    }

    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held);
    }
}

#[cfg(all(test, feature = "spin"))]
mod tests {
    use super::*;

    #[test]
    fn spin_lock_has_one_holder() {
        let lock = SpinLock::new();
        let held = lock.acquire();
        assert!(lock.0.try_lock().is_none());
        lock.release(held);
        assert!(lock.0.try_lock().is_some());
    }
}
