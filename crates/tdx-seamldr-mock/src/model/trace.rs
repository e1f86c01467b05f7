//! The trace of calls, and names of leaves and statuses.

use core::fmt;

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, Trap};

/// One SEAMCALL. Displays as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceEntry {
    /// The LP, by its place in the platform's list.
    pub lp: u32,
    /// Registers before the call.
    pub input: SeamcallRegs,
    /// Registers after the call, or why the instruction failed.
    pub output: Result<SeamcallRegs, Trap>,
}

/// The leaf in RAX. Displays as its name in the specification, or as a number; honours a width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafName(pub u64);

impl LeafName {
    /// Whether P-SEAMLDR takes the call: bit 63 of RAX is 1. Else the module takes it.
    #[must_use]
    pub const fn is_for_seamldr(self) -> bool {
        self.0 >> 63 == 1
    }
}

impl fmt::Display for LeafName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rax) = *self;
        let name = if self.is_for_seamldr() {
            SeamldrLeaf::from_rax(rax).map(SeamldrLeaf::name)
        } else {
            TdxLeaf::from_rax(rax).name().filter(|_| rax <= 0xffff)
        };
        match name {
            Some(name) => f.pad(name),
            None => write!(f, "{rax:<#width$x}", width = f.width().unwrap_or(0)),
        }
    }
}

/// The status that a leaf returned in RAX. Displays as its name. P-SEAMLDR and the module give the
/// same number different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerName {
    /// RAX before the call.
    pub leaf: LeafName,
    /// RAX after the call.
    pub rax: u64,
}

impl fmt::Display for AnswerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seamldr, module) = (SeamldrStatus(self.rax), TdxStatus(self.rax));
        match (self.leaf.is_for_seamldr(), seamldr.name(), module.info()) {
            (true, Some(name), _) => f.write_str(name),
            (false, _, Some(_)) => write!(f, "{module:?}"),
            _ => write!(f, "{:#x}", self.rax),
        }
    }
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lp, input, output } = self;
        let leaf = LeafName(input.rax);
        write!(f, "LP {lp:4}  {leaf:20} rcx={:#x} rdx={:#x}  ->  ", input.rcx, input.rdx)?;
        match output {
            Err(trap) => write!(f, "{trap:?}"),
            Ok(regs) => {
                write!(f, "{}", AnswerName { leaf, rax: regs.rax })?;
                if regs.rdx != input.rdx || regs.r8 != input.r8 {
                    write!(f, " rdx={:#x} r8={:#x}", regs.rdx, regs.r8)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_line() {
        let input =
            SeamcallRegs { rax: 0x8000000000000001, rcx: 0x1000, ..SeamcallRegs::default() };
        let output = Ok(SeamcallRegs { rax: 0x8000000000020001, rdx: 1, ..input });
        let line = TraceEntry { lp: 3, input, output }.to_string();
        assert_eq!(
            line,
            "LP    3  SEAMLDR.INSTALL      rcx=0x1000 rdx=0x0  ->  EBADHASH rdx=0x1 r8=0x0"
        );
        let input = SeamcallRegs { rax: 0x10035, ..input };
        let line = TraceEntry { lp: 0, input, output: Err(Trap::VmFailInvalid) }.to_string();
        assert_eq!(line, "LP    0  0x10035              rcx=0x1000 rdx=0x0  ->  VmFailInvalid");
    }
}
