//! Changes of the platform that no call makes: what goes wrong on a machine, as data that travels
//! over the control socket.

use serde::{Deserialize, Serialize};
use tdx_seamldr_mock::model::{GlobalLock, Platform, SeamMemory};

use crate::fault::{self, FaultText};

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// P-SEAMLDR remembers this number of updates.
    RemainingUpdates(u32),
    /// The processor's database of modules has this number of entries in use.
    SeamdbUsed(u32),
    /// The next insertions into the database fail.
    SeamdbInsertFailures(u32),
    /// A full database ends P-SEAMLDR with a fatal error.
    FullSeamdbIsFatal(bool),
    /// P-SEAMLDR was not entered since boot: the next call makes its canary.
    NeverEntered,
    /// RDRAND gives numbers, or never does.
    Rdrand(bool),
    /// RDRAND fails this number of times.
    RdrandFailures(u32),
    /// Bits of an MSR on one LP change; the same bits twice change it back.
    Msr {
        /// The LP.
        lp: u32,
        /// The MSR.
        msr: u32,
        /// The bits.
        bits: u64,
    },
    /// An LP is inside the module, in the middle of something.
    InModule {
        /// The LP.
        lp: u32,
        /// Whether the LP is inside.
        inside: bool,
    },
    /// Another call holds the module's global lock exclusively, or none holds it.
    ModuleLocked(bool),
    /// Calls go wrong.
    Fault(FaultText),
    /// Ends all of these changes, except `RemainingUpdates`, `SeamdbUsed` and `NeverEntered`.
    Repair,
}

impl Change {
    /// Makes the change.
    ///
    /// # Errors
    ///
    /// The change is not possible. The text says why.
    pub fn apply(&self, model: &mut Platform<Box<SeamMemory>>) -> Result<(), String> {
        match self {
            Self::RemainingUpdates(number) => model.set_num_remaining_updates(*number),
            Self::NeverEntered => model.set_seamldr_entered(false),
            Self::SeamdbUsed(number) => model.seamdb_mut().used = *number,
            Self::SeamdbInsertFailures(number) => model.seamdb_mut().insert_failures = *number,
            Self::FullSeamdbIsFatal(is_fatal) => {
                model.config_mut().full_seamdb_is_fatal = *is_fatal
            }
            Self::Rdrand(works) => model.config_mut().rdrand_ok = *works,
            Self::RdrandFailures(number) => model.config_mut().rdrand_failures = *number,
            Self::Msr { lp, msr, bits } => {
                check_lp(model, *lp)?;
                if !model.deviate_msr(*lp, *msr, *bits) {
                    return Err(format!(
                        "msr={msr:#x} of lp={lp}: the platform has no room for another deviation"
                    ));
                }
            }
            Self::InModule { lp, inside } => {
                check_lp(model, *lp)?;
                model.set_in_module(*lp, *inside);
            }
            Self::ModuleLocked(locked) => {
                let lock = if *locked { GlobalLock::Exclusive } else { GlobalLock::Free };
                model.module_mut().ok_or("there is no module")?.set_lock(lock);
            }
            Self::Fault(text) => {
                let fault = fault::fault(text).map_err(|error| error.to_string())?;
                fault.lp.map_or(Ok(()), |lp| check_lp(model, lp))?;
                model.faults_mut().add(fault).map_err(|error| error.to_string())?;
            }
            Self::Repair => {
                model.faults_mut().clear();
                model.seamdb_mut().insert_failures = 0;
                let config = model.config_mut();
                (config.rdrand_ok, config.rdrand_failures, config.full_seamdb_is_fatal) =
                    (true, 0, false);
                for lp in 0..config.num_lps {
                    model.restore_lp(lp);
                    model.set_in_module(lp, false);
                }
                model.module_mut().into_iter().for_each(|module| module.set_lock(GlobalLock::Free));
            }
        }
        Ok(())
    }
}

/// Refuses the number of an LP that the platform does not have.
fn check_lp(model: &Platform<Box<SeamMemory>>, lp: u32) -> Result<(), String> {
    let lps = model.config().num_lps;
    match model.x2apic_id(lp) {
        Some(_) => Ok(()),
        None => Err(format!("lp={lp}: the platform has {lps} LPs")),
    }
}
