//! Which platforms there are. A handle is a number that is looked up here, never an address.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::platform::Sim;
use crate::status::Failure;
use crate::TdxSimStatus;

/// A simulated platform, as C knows it. The pointer to it leads nowhere.
#[derive(Debug)]
pub struct TdxSim {
    _nothing: (),
}

/// A platform's place. It outlives the platform if somebody still waits here while it is freed.
#[derive(Debug)]
pub(crate) struct Place {
    sim: Mutex<Option<Sim>>,
    /// Somebody has made a SEAMCALL, or the platform is gone.
    changed: Condvar,
}

struct Registry {
    /// The next number.
    next: usize,
    places: BTreeMap<usize, Arc<Place>>,
}

/// The first number. On x86-64 it is no address that a program can have, so that following it is
/// noticed.
const FIRST: usize = usize::MAX / 4 * 3;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: FIRST, places: BTreeMap::new() });

thread_local! {
    /// This thread is inside a callback, while a platform is locked.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a callback of the caller's. Functions that take a platform are refused in this thread
/// meanwhile: whatever platform it is, two threads could wait for each other.
pub(crate) fn in_callback<R>(run: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = IN_CALLBACK.try_with(|inside| inside.set(self.0));
        }
    }
    // A thread that is about to end cannot be told apart; its callbacks run all the same.
    let _reset = Reset(IN_CALLBACK.try_with(|inside| inside.replace(true)).unwrap_or(false));
    run()
}

fn registry() -> MutexGuard<'static, Registry> {
    // Nothing is left half done here.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a platform.
pub(crate) fn add(sim: Sim) -> Result<*mut TdxSim, Failure> {
    let place = Arc::new(Place { sim: Mutex::new(Some(sim)), changed: Condvar::new() });
    let mut registry = registry();
    let number = registry.next;
    // Numbers are never used twice, even if they come to an end.
    registry.next = number.checked_add(1).ok_or(TdxSimStatus::NoRoom)?;
    registry.places.insert(number, place);
    Ok(ptr::without_provenance_mut(number))
}

/// Removes a platform. When this returns, nobody is inside it, and nobody will be.
pub(crate) fn remove(handle: *const TdxSim) -> Result<(), Failure> {
    let number = number(handle)?;
    let place = take(number)?;
    // A platform in which somebody panicked can be freed, too.
    let sim = place.sim.lock().unwrap_or_else(PoisonError::into_inner).take();
    place.changed.notify_all();
    drop(sim);
    Ok(())
}

/// Takes a platform's place out of the registry.
fn take(number: usize) -> Result<Arc<Place>, Failure> {
    let mut registry = registry();
    let place = registry.places.remove(&number).ok_or(TdxSimStatus::BadHandle)?;
    if registry.places.is_empty() {
        // An empty map keeps memory, which tools for leaks show at the end of the program.
        registry.places = BTreeMap::new();
    }
    Ok(place)
}

/// The place of a platform.
pub(crate) fn find(handle: *const TdxSim) -> Result<Arc<Place>, Failure> {
    let number = number(handle)?;
    Ok(registry().places.get(&number).cloned().ok_or(TdxSimStatus::BadHandle)?)
}

/// Does something with a platform, when no other call is inside it.
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
    /// The platform, unless it was freed meanwhile.
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
    fn a_platform_in_which_the_library_panicked_can_only_be_freed() {
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
    fn numbers_are_not_used_again() {
        let first = add(sim()).unwrap();
        remove(first).unwrap();
        let second = add(sim()).unwrap();
        assert_ne!(first, second);
        assert_eq!(remove(first), Err(TdxSimStatus::BadHandle.into()));
        remove(second).unwrap();
    }

    #[test]
    fn in_a_callback_no_platform_can_be_used_and_after_it_they_all_can() {
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
                "still inside the outer one"
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
