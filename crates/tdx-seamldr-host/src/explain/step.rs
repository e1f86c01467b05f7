//! The steps of an update, and the cost of a failure at each step under Linux.

use serde::Serialize;
use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf};

use super::leaf::Leaf;

/// The relation of a word or a log line to an update of the TDX module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// Not related to an update.
    None,
    /// Occurs in updates and elsewhere.
    Possible,
    /// An update succeeded.
    Updated,
    /// An update was refused or ended before the old module was shut down. The TDs are safe.
    Refused,
    /// An update failed after the old module was shut down. Linux has lost its TDs.
    Failed,
}

/// A step of an update, in Linux's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The kernel checks the image and asks the old module for its handoff version.
    Prepare,
    /// TDH.SYS.SHUTDOWN: the old module writes the handoff data.
    Shutdown,
    /// SEAMLDR.INSTALL on every LP: P-SEAMLDR loads the new module.
    Install,
    /// TDH.SYS.INIT once, and TDH.SYS.LP.INIT on every LP.
    Init,
    /// TDH.SYS.UPDATE: the new module takes the handoff data.
    Update,
}

impl Step {
    /// Returns the step of an update that calls this leaf.
    #[must_use]
    pub fn of(leaf: Leaf) -> Option<Self> {
        Some(match leaf {
            Leaf::Tdx(TdxLeaf::SYS_RD) => Self::Prepare,
            Leaf::Tdx(TdxLeaf::SYS_SHUTDOWN) => Self::Shutdown,
            Leaf::Seamldr(SeamldrLeaf::Install) => Self::Install,
            Leaf::Tdx(TdxLeaf::SYS_INIT | TdxLeaf::SYS_LP_INIT) => Self::Init,
            Leaf::Tdx(TdxLeaf::SYS_UPDATE) => Self::Update,
            _ => return None,
        })
    }

    /// Returns the cost of an error at this step under Linux.
    #[must_use]
    pub const fn fate(self) -> &'static str {
        match self {
            Self::Prepare => {
                "At boot TDX does not start. During an update the kernel makes this call before it \
                 shuts the old module down: the old module keeps running, the TDs are safe, and \
                 the update can be tried again."
            }
            Self::Shutdown => {
                "The old module refused to shut down and keeps running. The TDs are safe, and the \
                 update can be tried again."
            }
            Self::Install => {
                "The old module was already shut down. Linux has lost all TDs, and TDX is gone \
                 until reboot. RDX shows whether P-SEAMLDR kept the handoff data (0) or not (1), \
                 but Linux does not print RDX and makes no second attempt."
            }
            Self::Init => {
                "At boot TDX does not start. During an update the old module is gone by then: \
                 Linux has lost all TDs, and TDX is gone until reboot."
            }
            Self::Update => {
                "The new module runs but did not take the TDs over. Linux has lost all TDs, and \
                 TDX is gone until reboot. The firmware allows another attempt, but Linux makes \
                 none."
            }
        }
    }

    /// Returns the relation of an error at this step to an update. Linux also calls SYS.RD,
    /// SYS.INIT and SYS.LP.INIT at boot.
    #[must_use]
    pub const fn relation(self) -> Relation {
        match self {
            Self::Prepare | Self::Init => Relation::Possible,
            Self::Shutdown => Relation::Refused,
            Self::Install | Self::Update => Relation::Failed,
        }
    }
}
