//! The lock that keeps all CPUs but one out of P-SEAMLDR.

/// A lock that may be taken with interrupts off, and in a kernel turns them off itself.
///
/// It is held for one call of P-SEAMLDR at a time, during an update with a few calls after it that ask whether a module can be reached,
/// and never while waiting for another CPU. An implementor must not sleep, allocate or
/// make a SEAMCALL. If two holders were possible, a SEAMCALL would fail with VMfailInvalid; memory would not be at risk.
///
/// Whoever waits for the lock waits for nothing but these calls, and [`Host::relax`](crate::Host::relax) is not called
/// meanwhile: the firmware always returns, or takes the machine down.
pub trait Lock {
    /// What holding the lock means: a guard, or the saved interrupt flags of a kernel.
    type Held<'a>
    where
        Self: 'a;

    /// Waits until nobody holds the lock, then holds it.
    fn acquire(&self) -> Self::Held<'_>;

    /// Lets the lock go.
    fn release<'a>(&'a self, held: Self::Held<'a>);
}

/// A spin lock, for callers that have interrupts off already or run in user space.
#[cfg(feature = "spin")]
#[derive(Debug, Default)]
pub struct SpinLock(spin::mutex::SpinMutex<()>);

#[cfg(feature = "spin")]
impl SpinLock {
    /// A lock that nobody holds.
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
    fn nobody_gets_a_lock_that_is_held() {
        let lock = SpinLock::new();
        let held = lock.acquire();
        assert!(lock.0.try_lock().is_none());
        lock.release(held);
        assert!(lock.0.try_lock().is_some());
    }
}
