//! What calls were made, and what became of them.

use core::fmt;

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, Trap};

/// One SEAMCALL. Displays as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceEntry {
    /// On which LP.
    pub lp: u32,
    /// The registers that went in.
    pub input: SeamcallRegs,
    /// The registers that came out.
    pub output: Result<SeamcallRegs, Trap>,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lp, input, output } = self;
        let is_for_seamldr = input.rax >> 63 == 1;
        write!(f, "LP {lp:4}  ")?;
        let name = if is_for_seamldr {
            SeamldrLeaf::from_rax(input.rax).map(SeamldrLeaf::name)
        } else {
            TdxLeaf::from_rax(input.rax).name().filter(|_| input.rax <= 0xffff)
        };
        match name {
            Some(name) => write!(f, "{name:20}")?,
            None => write!(f, "{:<#20x}", input.rax)?,
        }
        write!(f, " rcx={:#x} rdx={:#x}  ->  ", input.rcx, input.rdx)?;
        match output {
            Err(trap) => write!(f, "{trap:?}"),
            Ok(regs) => {
                if is_for_seamldr {
                    write!(f, "{:?}", SeamldrStatus(regs.rax))?;
                } else {
                    write!(f, "{:?}", TdxStatus(regs.rax))?;
                }
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
        let input = SeamcallRegs { rax: 0x8000000000000001, rcx: 0x1000, ..SeamcallRegs::default() };
        let output = Ok(SeamcallRegs { rax: 0x8000000000020001, rdx: 1, ..input });
        let line = TraceEntry { lp: 3, input, output }.to_string();
        assert_eq!(line, "LP    3  SEAMLDR.INSTALL      rcx=0x1000 rdx=0x0  ->  EBADHASH rdx=0x1 r8=0x0");
        let input = SeamcallRegs { rax: 0x10035, ..input };
        let line = TraceEntry { lp: 0, input, output: Err(Trap::VmFailInvalid) }.to_string();
        assert_eq!(line, "LP    0  0x10035              rcx=0x1000 rdx=0x0  ->  VmFailInvalid");
    }
}
