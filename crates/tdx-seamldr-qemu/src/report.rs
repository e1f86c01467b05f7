//! Messages to whoever runs QEMU, and panics that must not get into QEMU.

use std::fmt::Display;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of panics that were caught.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Writes a line to standard error.
#[allow(clippy::print_stderr)] // the only place for messages
pub(crate) fn message(text: impl Display) {
    eprintln!("tdx-seamldr-qemu: {text}");
}

/// Ends QEMU: the guest cannot be given the platform that was asked for.
pub(crate) fn refuse(text: impl Display) -> ! {
    message(text);
    std::process::exit(1)
}

/// Runs the body of a callback. A panic ends the body and is counted; its message is on standard
/// error already.
pub(crate) fn guarded<T: Default>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        message(
            "an internal error; please report it with the lines above. The guest goes on without \
             this instruction",
        );
        T::default()
    })
}

/// Returns the number of panics that were caught.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_goes_no_further() {
        let before = panics();
        assert_eq!(guarded(|| if before < u64::MAX { panic!("on purpose") } else { 7 }), 0);
        assert!(panics() > before);
    }
}
