//! What becomes of the TDs wherever an update fails, with this library and with Linux 7.2's policy.

pub mod case;
mod changes;
pub(crate) mod linux;
mod misuse;
mod recorded;
#[cfg(test)]
mod schedules;
mod sweep;

pub use changes::run as changes;
pub use recorded::run as recorded;
pub use sweep::pairs;

use anyhow::Result;

/// The tables of all single faults and of misuse.
///
/// # Errors
///
/// An update hangs, claims what is not so, or loses TDs that could have been kept.
pub fn tables() -> Result<String> {
    Ok(format!("{}\n\n{}", sweep::run()?, misuse::run()?))
}
