//! Reads any bytes as a list of LPs, as `/proc/cpuinfo` and as an ACPI MADT. Each parser returns an
//! error with a description, or consistent data.

use std::fmt::Display;

use tdx_seamldr_host::cpu_list::CpuList;
use tdx_seamldr_host::cpuinfo::Cpuinfo;
use tdx_seamldr_host::host::PlatformLps;
use tdx_seamldr_host::madt::parse_madt;
use tdx_seamldr_host::testing::seal;

/// Size in bytes of a MADT before its entries.
const MADT_HEADER: usize = 44;

/// Takes a file for each parser. The MADT's parser also gets it with a correct length and checksum.
pub fn host_tree(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        cpu_list(text);
        cpuinfo(text);
    }
    let _ = madt(input);
    let mut table = input.to_vec();
    if table.starts_with(b"APIC") && table.len() >= MADT_HEADER {
        seal(&mut table);
        let once = madt(&table);
        // Listing the same LPs again adds no LPs.
        if once.is_some() {
            table.extend_from_within(MADT_HEADER..);
            seal(&mut table);
            assert_eq!(madt(&table), once);
        }
    }
}

fn in_words<T, E: Display>(read: Result<T, E>) -> Option<T> {
    read.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

fn cpu_list(text: &str) {
    let Some(list) = in_words(CpuList::parse(text)) else { return };
    assert_eq!(CpuList::parse(&list.to_string()).as_ref(), Ok(&list));
    assert_eq!(list.iter().count(), list.len() as usize);
    assert_eq!(list.first().is_none(), list.is_empty());
    assert!(list.first().is_none_or(|first| list.contains(first)));
    assert!(list.difference(&list).is_empty());
    let odd: CpuList = list.iter().filter(|lp| lp % 2 == 1).collect();
    let even = list.difference(&odd);
    assert!(even.iter().all(|lp| lp % 2 == 0));
    assert_eq!(even.len() + odd.len(), list.len());
    assert_eq!(list.difference(&even), odd);
}

fn cpuinfo(text: &str) {
    let Some(cpuinfo) = in_words(Cpuinfo::parse(text)) else { return };
    let lines = text.lines().filter(|line| line.starts_with("processor")).count();
    let lps: u32 = cpuinfo.sockets.iter().map(|socket| socket.online_lps).sum();
    assert!(cpuinfo.sockets.iter().all(|socket| socket.online_lps > 0));
    assert!(lps > 0 && lps as usize <= lines, "LPs: {lps}, lines: {lines}");
    assert!(cpuinfo.sockets.is_sorted_by(|before, after| before.id < after.id));
}

fn madt(table: &[u8]) -> Option<PlatformLps> {
    let lps = in_words(parse_madt(table))?;
    let most = (table.len() - MADT_HEADER) / 8;
    assert!(lps.enabled > 0 && lps.enabled as usize <= most, "{lps:?}");
    assert!(lps.enabled - 1 <= lps.highest_x2apic_id, "each LP has an ID of its own: {lps:?}");
    Some(lps)
}
