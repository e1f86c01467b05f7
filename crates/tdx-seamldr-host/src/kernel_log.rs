//! The kernel's log lines on TDX, with addresses masked.

use crate::explain::is_tdx_line;
use crate::fact::Absent;
use crate::root::Root;

/// The kernel's log. Each read returns one record.
const KMSG: &str = "/dev/kmsg";

/// The most bytes of the log that are read.
const MAX_LOG: usize = 16 << 20;

/// The most lines that are kept: the last ones.
const MAX_LINES: usize = 200;

/// The fewest hexadecimal digits of a number that may be an address.
const ADDRESS_DIGITS: usize = 9;

/// The lowest number that is a status word and not an address. Error words have bit 62 or bit 63
/// set; physical addresses have neither.
const LEAST_STATUS: u64 = 0x4000_0000_0000_0000;

/// Returns the kernel's last lines on TDX. Each number that may be an address is masked.
///
/// # Errors
///
/// The log cannot be read. Only root may read it on most systems.
pub fn tdx_lines(root: &Root) -> Result<Vec<String>, Absent> {
    let records = root.read_records(KMSG, MAX_LOG)?;
    let mut lines: Vec<_> = records
        .iter()
        .map(|record| String::from_utf8_lossy(record))
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.starts_with(' ') && is_tdx_line(line))
        .map(|line| mask_addresses(line.split_once(';').map_or(line.as_str(), |(_, text)| text)))
        .collect();
    let surplus = lines.len().saturating_sub(MAX_LINES);
    lines.drain(..surplus);
    Ok(lines)
}

/// Replaces each hexadecimal number that may be an address. Status words and leaf numbers stay.
fn mask_addresses(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("0x") {
        masked.push_str(before);
        masked.push_str("0x");
        let end =
            after.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(after.len());
        let (digits, behind) = after.split_at_checked(end).unwrap_or((after, ""));
        masked.push_str(if may_be_address(digits) { "<address>" } else { digits });
        rest = behind;
    }
    masked.push_str(rest);
    masked
}

fn may_be_address(digits: &str) -> bool {
    let significant = digits.trim_start_matches('0').len();
    significant >= ADDRESS_DIGITS
        && u64::from_str_radix(digits, 16).map_or(true, |number| number < LEAST_STATUS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn addresses_are_masked_and_status_words_and_leaves_stay() {
        for (line, masked) in [
            (
                "SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000",
                "SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000",
            ),
            ("TDMR [0x0000000100000000, 0x0000008000000000)", "TDMR [0x<address>, 0x<address>)"),
            ("P-SEAMLDR 0x8000000000000001 failed", "P-SEAMLDR 0x8000000000000001 failed"),
            ("0x", "0x"),
            ("private KeyID range [0x40, 0x80)", "private KeyID range [0x40, 0x80)"),
            ("0x11112222333344445555", "0x<address>"),
        ] {
            assert_eq!(mask_addresses(line), masked);
        }
    }

    #[test]
    fn only_lines_on_tdx_are_kept_without_the_prefix() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dev")).unwrap();
        let log = "6,1,100,-;Linux version 7.2 (builder@host)\n6,2,200,-;virt/tdx: TDX-Module \
                   initialized\n SUBSYSTEM=x\n";
        fs::write(folder.path().join("dev/kmsg"), log).unwrap();
        let lines = tdx_lines(&Root::new(folder.path())).unwrap();
        assert_eq!(lines, ["virt/tdx: TDX-Module initialized"]);
    }

    proptest! {
        #[test]
        fn any_line_is_masked(line in "(0x|[0-9a-f ]|.){0,60}") {
            let _ = mask_addresses(&line);
        }
    }
}
