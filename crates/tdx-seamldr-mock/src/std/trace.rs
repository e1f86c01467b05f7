//! What calls were made, and what became of them.

use core::fmt;

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, Trap};

/// One SEAMCALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// On which LP.
    pub lp: u32,
    /// The registers that went in.
    pub input: SeamcallRegs,
    /// The registers that came out.
    pub output: Result<SeamcallRegs, Trap>,
}

impl TraceEntry {
    /// The leaf's name, or its number.
    #[must_use]
    pub fn leaf(&self) -> String {
        match SeamldrLeaf::from_rax(self.input.rax) {
            Some(leaf) => leaf.name().to_owned(),
            None if self.input.rax >> 63 == 1 => format!("{:#x}", self.input.rax),
            None => format!("{:?}", TdxLeaf::from_rax(self.input.rax)),
        }
    }

    /// The status, by its name if it has one.
    #[must_use]
    pub fn status(&self) -> String {
        match self.output {
            Err(trap) => format!("{trap:?}"),
            Ok(regs) if self.input.rax >> 63 == 1 => format!("{:?}", SeamldrStatus(regs.rax)),
            Ok(regs) => format!("{:?}", TdxStatus(regs.rax)),
        }
    }
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lp, input, .. } = self;
        write!(
            f,
            "LP {lp:4}  {:20} rcx={:#x} rdx={:#x}  ->  {}",
            self.leaf(),
            input.rcx,
            input.rdx,
            self.status()
        )?;
        match self.output {
            Ok(regs) if regs.rdx != input.rdx || regs.r8 != input.r8 => {
                write!(f, " rdx={:#x} r8={:#x}", regs.rdx, regs.r8)
            }
            _ => Ok(()),
        }
    }
}
