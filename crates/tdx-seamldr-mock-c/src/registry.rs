//! All platforms by handle. A handle is a number that is looked up here, never an address.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::platform::Sim;
use crate::status::Failure;
use crate::TdxSimStatus;

/// A simulated platform. C sees only a handle, not a valid pointer.
#[derive(Debug)]
pub struct TdxSim {
    _nothing: (),
}

/// The slot of a platform. It outlives the platform if a thread still waits for it.
#[derive(Debug)]
pub(crate) struct Place {
    sim: Mutex<Option<Sim>>,
    /// Notified when a SEAMCALL was made, or the platform was freed.
    changed: Condvar,
}

struct Registry {
    /// The next number.
    next: usize,
    places: BTreeMap<usize, Arc<Place>>,
}

/// The first number. On x86-64 it is not a valid address, so an access through a handle faults.
const FIRST: usize = usize::MAX / 4 * 3;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: FIRST, places: BTreeMap::new() });

thread_local! {
    /// Whether this thread is inside a callback, while a platform is locked.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a callback. Meanwhile, functions that take a platform are refused in this thread. Otherwise
/// two threads could wait for each other, whatever platform they use.
pub(crate) fn in_callback<R>(run: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = IN_CALLBACK.try_with(|inside| inside.set(self.0));
        }
    }
    // A thread that is about to end has no flag; its callbacks run nevertheless.
    let _reset = Reset(IN_CALLBACK.try_with(|inside| inside.replace(true)).unwrap_or(false));
    run()
}

fn registry() -> MutexGuard<'static, Registry> {
    // A panic leaves no inconsistent state here.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a platform.
pub(crate) fn add(sim: Sim) -> Result<*mut TdxSim, Failure> {
    let place = Arc::new(Place { sim: Mutex::new(Some(sim)), changed: Condvar::new() });
    let mut registry = registry();
    let number = registry.next;
    // Numbers are never used twice; after the last one, no platform can be created.
    registry.next = number.checked_add(1).ok_or(TdxSimStatus::NoRoom)?;
    registry.places.insert(number, place);
    Ok(ptr::without_provenance_mut(number))
}

/// Removes a platform. After this call no thread is inside the platform, and none can enter it.
pub(crate) fn remove(handle: *const TdxSim) -> Result<(), Failure> {
    let number = number(handle)?;
    let place = take(number)?;
    // A platform in which a thread panicked can be freed as well.
    let sim = place.sim.lock().unwrap_or_else(PoisonError::into_inner).take();
    place.changed.notify_all();
    drop(sim);
    Ok(())
}

/// Removes a platform's slot from the registry.
fn take(number: usize) -> Result<Arc<Place>, Failure> {
    let mut registry = registry();
    let place = registry.places.remove(&number).ok_or(TdxSimStatus::BadHandle)?;
    if registry.places.is_empty() {
        // An empty map keeps memory, which leak checkers report at the end of the program.
        registry.places = BTreeMap::new();
    }
    Ok(place)
}

/// Returns the slot of a platform.
pub(crate) fn find(handle: *const TdxSim) -> Result<Arc<Place>, Failure> {
    let number = number(handle)?;
    Ok(registry().places.get(&number).cloned().ok_or(TdxSimStatus::BadHandle)?)
}

/// Runs a function on a platform. Waits until no other call is inside the platform.
pub(crate) fn with<R>(
    handle: *const TdxSim,
    run: impl FnOnce(&mut Sim) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let place = find(handle)?;
    let mut sim = place.lock()?;
    run(sim.as_mut().ok_or(TdxSimStatus::BadHandle)?)
}

fn number(handle: *const TdxSim) -> Result<usize, Failure> {
    if handle.is_null() {
        Err(TdxSimStatus::Null.into())
    } else if IN_CALLBACK.try_with(Cell::get).unwrap_or(false) {
        Err(TdxSimStatus::Reentrant.into())
    } else {
        Ok(handle.addr())
    }
}

impl Place {
    /// Returns the platform, unless it was freed meanwhile.
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Option<Sim>>, Failure> {
        self.sim.lock().map_err(|_| TdxSimStatus::Internal.into())
    }

    pub(crate) const fn changed(&self) -> &Condvar {
        &self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::tests::sim;
    use crate::status::guarded;
    use crate::{tdx_sim_clear_faults, tdx_sim_free, tdx_sim_set_debug_unlocked};

    #[test]
    fn a_platform_in_which_a_call_panicked_can_only_be_freed() {
        let (handle, other) = (add(sim()).unwrap(), add(sim()).unwrap());
        assert_eq!(guarded(|| with(handle, |_| panic!("of the test"))), TdxSimStatus::Internal);
        assert_eq!(tdx_sim_clear_faults(handle), TdxSimStatus::Internal);
        assert_eq!(tdx_sim_set_debug_unlocked(handle, 1), TdxSimStatus::Internal);
        assert_eq!(tdx_sim_clear_faults(other), TdxSimStatus::Ok);
        assert_eq!(tdx_sim_free(handle), TdxSimStatus::Ok);
        assert_eq!(tdx_sim_clear_faults(handle), TdxSimStatus::BadHandle);
        assert_eq!(tdx_sim_free(other), TdxSimStatus::Ok);
    }

    #[test]
    fn handles_are_not_used_again() {
        let first = add(sim()).unwrap();
        remove(first).unwrap();
        let second = add(sim()).unwrap();
        assert_ne!(first, second);
        assert_eq!(remove(first), Err(TdxSimStatus::BadHandle.into()));
        remove(second).unwrap();
    }

    #[test]
    fn platforms_are_refused_inside_a_callback_and_usable_after_it() {
        let (handle, other) = (add(sim()).unwrap(), add(sim()).unwrap());
        in_callback(|| {
            for sim in [handle, other] {
                assert_eq!(tdx_sim_clear_faults(sim), TdxSimStatus::Reentrant);
                assert_eq!(tdx_sim_free(sim), TdxSimStatus::Reentrant);
            }
            in_callback(|| ());
            assert_eq!(
                tdx_sim_clear_faults(handle),
                TdxSimStatus::Reentrant,
                "the thread is still inside the outer callback"
            );
            let elsewhere = std::thread::spawn({
                let number = handle.addr();
                move || tdx_sim_clear_faults(ptr::without_provenance_mut(number))
            });
            assert_eq!(elsewhere.join().unwrap(), TdxSimStatus::Ok, "another thread is not inside");
        });
        assert_eq!([handle, other].map(|sim| tdx_sim_free(sim)), [TdxSimStatus::Ok; 2]);
    }
}
