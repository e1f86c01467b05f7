//! The locks that are compared with the library's lock.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tdx_seamldr_core::Lock;

/// The standard library's mutex.
#[derive(Default)]
pub(crate) struct StdMutex(Mutex<()>);

impl Lock for StdMutex {
    type Held<'a> = MutexGuard<'a, ()>;

    fn acquire(&self) -> Self::Held<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held);
    }
}

/// The mutex of `parking_lot`.
#[derive(Default)]
pub(crate) struct ParkingLot(parking_lot::Mutex<()>);

impl Lock for ParkingLot {
    type Held<'a> = parking_lot::MutexGuard<'a, ()>;

    fn acquire(&self) -> Self::Held<'_> {
        self.0.lock()
    }

    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held);
    }
}

/// The C library's spin lock.
pub(crate) struct PthreadSpin(Box<UnsafeCell<libc::pthread_spinlock_t>>);

// SAFETY: the lock is made for several threads.
unsafe impl Send for PthreadSpin {}
// SAFETY: as above.
unsafe impl Sync for PthreadSpin {}

impl Default for PthreadSpin {
    fn default() -> Self {
        let mut lock = MaybeUninit::uninit();
        // SAFETY: the memory is not initialised as a lock yet.
        let result =
            unsafe { libc::pthread_spin_init(lock.as_mut_ptr(), libc::PTHREAD_PROCESS_PRIVATE) };
        assert_eq!(result, 0, "pthread_spin_init");
        // SAFETY: the lock is initialised. In glibc and musl it is an int, which may be moved
        // before its first use.
        Self(Box::new(UnsafeCell::new(unsafe { lock.assume_init() })))
    }
}

impl Drop for PthreadSpin {
    fn drop(&mut self) {
        // SAFETY: the lock is initialised and free, because all borrows have ended.
        unsafe { libc::pthread_spin_destroy(self.0.get()) };
    }
}

impl Lock for PthreadSpin {
    type Held<'a> = ();

    fn acquire(&self) {
        // SAFETY: the lock is initialised.
        unsafe { libc::pthread_spin_lock(self.0.get()) };
    }

    fn release(&self, (): ()) {
        // SAFETY: the lock is initialised, and this thread holds it.
        unsafe { libc::pthread_spin_unlock(self.0.get()) };
    }
}
