//! The fate of the TDs for every failure of an update, with this library and with Linux 7.2's
//! policy.

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

/// Returns the tables of all single faults and of misuse.
///
/// # Errors
///
/// An update does not end, makes a false claim, or loses TDs needlessly.
pub fn tables() -> Result<String> {
    Ok(format!("{}\n\n{}", sweep::run()?, misuse::run()?))
}
