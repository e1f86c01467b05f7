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
pub use sweep::{pairs, Counts, End, Harm};

use std::fmt;

use anyhow::Result;

/// The tables of all single faults and of misuse. Displays as Markdown.
#[derive(Debug)]
pub struct Tables {
    singles: sweep::Table,
    misuse: misuse::Table,
}

impl Tables {
    /// Makes every single fault and every misuse.
    ///
    /// # Errors
    ///
    /// An update does not end, makes a false claim, or loses TDs needlessly.
    pub fn compute() -> Result<Self> {
        Ok(Self { singles: sweep::run()?, misuse: misuse::run()? })
    }

    /// Returns the counts of all single faults, for each number of LPs.
    #[must_use]
    pub fn singles(&self) -> &[(u32, Counts)] {
        &self.singles.0
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{}", self.singles, self.misuse)
    }
}
