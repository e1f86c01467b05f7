//! Parses lines about a failed SEAMCALL, in the wordings of all kernels.

use serde::{Serialize, Serializer};

use super::super::leaf::Leaf;
use super::super::word;

/// The registers that the kernel printed with a failed SEAMCALL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Registers {
    /// RCX.
    #[serde(serialize_with = "as_hex")]
    pub rcx: Option<u64>,
    /// RDX.
    #[serde(serialize_with = "as_hex")]
    pub rdx: Option<u64>,
    /// R8.
    #[serde(serialize_with = "as_hex")]
    pub r8: Option<u64>,
}

/// Writes a register as text, because readers of JSON numbers lose bits above 2^53.
fn as_hex<S: Serializer>(register: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    register.map(|value| format!("{value:#x}")).serialize(serializer)
}

/// A failed SEAMCALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) leaf: Option<Leaf>,
    pub(super) status: u64,
    pub(super) registers: Registers,
}

/// Reads a line that says that a SEAMCALL failed.
///
/// The wordings:
/// `SEAMCALL (0x22) failed: 0xc0...` with or without registers, `SEAMCALL (34) failed: ...`,
/// `SEAMCALL TDH_MEM_PAGE_ADD failed: 0x..., rcx 0x..., rdx 0x...`,
/// `SEAMCALL[TDH_MNG_INIT] failed`, `TDH.MNG.INIT failed with status: 0x...`,
/// `SEAMCALL failed: CPU 94: leaf 33, error 0x...`, and `TD vp_enter_ret 0x...`.
pub(super) fn failed(text: &str) -> Option<Failed> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "()[],:;=".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let number = |word: &&str| word::number(word.trim_end_matches('.'));
    let place = |wanted: &str| words.iter().position(|word| word.eq_ignore_ascii_case(wanted));
    if let Some(at) = place("vp_enter_ret") {
        let status = words.get(at.checked_add(1)?).and_then(number)?;
        let leaf = Some(Leaf::from_rax(0));
        return Some(Failed { leaf, status, registers: Registers::default() });
    }
    let seamcall = place("SEAMCALL");
    let failed = place("failed").or_else(|| place("error"))?;
    let name = words.iter().find_map(|word| named(word));
    if seamcall.is_none() && name.is_none() {
        return None;
    }
    let number_after = |at: usize| words.get(at.checked_add(1)?).and_then(number);
    let leaf = name
        .or_else(|| place("leaf").and_then(number_after).map(Leaf::from_rax))
        .or_else(|| seamcall.filter(|at| *at < failed).and_then(number_after).map(Leaf::from_rax));
    let status = place("error").and_then(number_after).or_else(|| {
        let after = words.get(failed.checked_add(1)?..)?;
        // "failed with status: 0x..." has words in between, "failed: CPU 94: leaf 33" small
        // numbers.
        after.iter().take(4).filter_map(number).find(|number| number >> 32 != 0)
    })?;
    Some(Failed { leaf, status, registers: registers(text).unwrap_or_default() })
}

/// Reads a leaf by name, as kernels write it: `TDH_MEM_PAGE_ADD`, `TDH.MNG.INIT`,
/// `tdh_mem_page_add`.
fn named(word: &str) -> Option<Leaf> {
    let upper = word.to_ascii_uppercase();
    let is_name =
        ["TDH_", "TDH.", "SEAMLDR.", "SEAMLDR_"].iter().any(|prefix| upper.starts_with(prefix));
    is_name.then(|| Leaf::from_name(&upper)).flatten()
}

/// Reads registers: `RCX 0x0 RDX 0x1 R08 0x2` or `rcx 0x0, rdx 0x1`. `None` if the line has none.
pub(super) fn registers(text: &str) -> Option<Registers> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || ",:=".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let mut found = Registers::default();
    let mut any = false;
    for pair in words.windows(2) {
        let [name, value] = pair else { continue };
        let value = value.trim_end_matches('.');
        let is_hexadecimal = |_: &u64| value.starts_with("0x");
        let Some(value) = word::number(value).filter(is_hexadecimal) else { continue };
        match name.to_ascii_uppercase().as_str() {
            "RCX" => found.rcx = Some(value),
            "RDX" => found.rdx = Some(value),
            "R8" | "R08" => found.r8 = Some(value),
            // These have no meaning here, but their line is known.
            "R9" | "R09" | "R10" | "R11" => {}
            _ => continue,
        }
        any = true;
    }
    any.then_some(found)
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn leaf(name: &str) -> Option<Leaf> {
        Some(Leaf::parse(name).unwrap())
    }

    #[test]
    fn every_wording_gives_leaf_and_status() {
        let lines = [
            (
                "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000",
                "TDH.SYS.RD",
                0xc0000c0000000000,
            ),
            (
                "tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000092100000122.",
                "TDH.SYS.INIT",
                0xc000092100000122,
            ),
            (
                "virt/tdx: SEAMCALL (33) failed: 0xc000092100000122",
                "TDH.SYS.INIT",
                0xc000092100000122,
            ),
            (
                "SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x0000000000000000 \
                 RDX 0x0",
                "TDH.PHYMEM.PAGE.RECLAIM",
                0xc000030000000001,
            ),
            (
                "kvm_intel: SEAMCALL TDH_MEM_PAGE_ADD failed: 0x8000020000000080, rcx 0x1, rdx 0x2",
                "TDH.MEM.PAGE.ADD",
                0x8000020000000080,
            ),
            (
                "SEAMCALL[TDH_MNG_INIT] failed: 0xc000010000000045",
                "TDH.MNG.INIT",
                0xc000010000000045,
            ),
            (
                "TDH.MNG.INIT failed with status: 0xc000010000000045",
                "TDH.MNG.INIT",
                0xc000010000000045,
            ),
            (
                "kvm_intel: tdh_vp_flush failed, err: 0x8000070200000000",
                "TDH.VP.FLUSH",
                0x8000070200000000,
            ),
            ("kvm_intel: TD vp_enter_ret 0x8000ff00ffff0000", "TDH.VP.ENTER", 0x8000ff00ffff0000),
            (
                "virt/tdx: SEAMCALL (0x8000000000000001) failed: 0x8000000000020000",
                "SEAMLDR.INSTALL",
                0x8000000000020000,
            ),
            (
                "virt/tdx: SEAMCALL (0x35) failed: -4611680499394412544",
                "TDH.SYS.UPDATE",
                0xc000050500000000,
            ),
        ];
        for (line, name, status) in lines {
            let found = failed(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((found.leaf, found.status), (leaf(name), status), "{line}");
        }
        let registers = failed(lines[4].0).unwrap().registers;
        assert_eq!(registers, Registers { rcx: Some(1), rdx: Some(2), r8: None });
    }

    #[test]
    fn lines_of_registers_are_read() {
        let line = "virt/tdx: RCX 0x0000000000000000 RDX 0x9100000100000008 R08 0x0000000000000005";
        let expected = Registers { rcx: Some(0), rdx: Some(0x9100000100000008), r8: Some(5) };
        assert_eq!(registers(line), Some(expected));
        assert_eq!(registers("virt/tdx: R09 0x0 R10 0x0 R11 0x0"), Some(Registers::default()));
        assert!(registers(
            "tdx: additional output: rcx 0x0, rdx 0x0, r8 0x0, r9 0x0, r10 0x0, r11 0x0."
        )
        .is_some());
        assert_eq!(registers("virt/tdx: module initialized"), None);
    }

    #[test]
    fn other_lines_are_not_failed_calls() {
        for line in [
            "virt/tdx: module initialization failed (-5)",
            "virt/tdx: SEAMCALL failed",
            "virt/tdx: update failed (-5)",
            "kvm_intel: Failed to initialize TDX module.",
            "virt/tdx: BIOS enabled: private KeyID range [32, 64)",
        ] {
            assert_eq!(failed(line), None, "{line}");
        }
    }
}
