//! Variations of recordings of the TDX module: each bit that a check reads, each index that an
//! error names, and start states that no host can reach.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::path::Path;

use serde_json::{json, Value};
use tdx_seamldr_core::abi::TdxLeaf;
use tdx_seamldr_core::SeamcallRegs;
use tdx_seamldr_mock::model::{CpuRegister, PhysMemory, Platform, SeamMemory};
use tdx_seamldr_mock::vectors::{platform_of_json, replay_folder, replay_line, Replay};
use tdx_seamldr_verify::RustCrypto;

const INCORRECT_MSR: u64 = 0xc0000921 << 32;
const INCORRECT_CPUID: u64 = 0xc0000900 << 32;

/// The host's memory: one page of TDMR_INFO structures per address, and the list of their
/// addresses.
struct Host {
    list: Vec<u64>,
    infos: Vec<[u64; 40]>,
}

const LIST: u64 = 0x1000_0000;
const INFOS: u64 = 0x1001_0000;

impl PhysMemory for Host {
    fn read(&self, address: u64, out: &mut [u8]) {
        let words: &[u64] = match address {
            LIST => &self.list,
            _ if address >= INFOS => {
                &self.infos[usize::try_from((address - INFOS) / 0x1000).unwrap()]
            }
            _ => &[],
        };
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).chain(std::iter::repeat(0));
        out.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

/// Returns a platform of 2 LPs, as in most recordings, with the module in this state.
fn description(state: &str) -> Value {
    let lps: &[u32] = if state == "SYSINIT_PENDING" { &[] } else { &[0, 1] };
    json!({
        "platform": {
            "num_lps": 2, "num_sockets": 1, "lp_x2apic_ids": [0, 1], "addressable_lps": 4, "pkg_id_shift": 2,
            "socket_fms": ["0x806f8"], "keyid_bits": 6, "private_hkid_min": "0x20",
            "seamrr_base": "0x2000000000", "seamrr_size": "0x2000000",
            "cmrs": [["0x100000", "0x7ef00000"], ["0x100000000", "0x1f00000000"]],
            "rdrand": {"ok": true, "value": "0x1234567887654321"}, "seamops_capabilities": "0x7f",
        },
        "initial": {
            "module": {
                "build_date": 20230808, "build_num": 451, "major": 1, "minor": 5, "update": 1, "internal": 0,
                "built_module_hv": 0, "built_min_update_hv": 0, "built_no_downgrade": 0,
                "sysinfo": {"module_hv": 0, "min_update_hv": 0, "no_downgrade": 0, "num_handoff_pages": 15},
            },
            "state": state, "lps_initialized": lps, "handoff": null,
        },
    })
}

fn platform(state: &str) -> Platform<Box<SeamMemory>> {
    platform_of_json(&description(state).to_string()).unwrap()
}

/// Calls the module. Returns `None` if the call is fatal.
fn call(
    platform: &mut Platform<Box<SeamMemory>>,
    leaf: TdxLeaf,
    regs: SeamcallRegs,
    host: &dyn PhysMemory,
) -> Option<SeamcallRegs> {
    let mut regs = SeamcallRegs { rax: leaf.0.into(), ..regs };
    platform.seamcall(0, &mut regs, host, &RustCrypto).ok().map(|()| regs)
}

/// Calls TDH.SYS.INIT with these bits of a register flipped on all LPs. Returns `None` if the call
/// is fatal.
fn init_with(register: CpuRegister, bits: u64) -> Option<SeamcallRegs> {
    let mut platform = platform("SYSINIT_PENDING");
    assert!(platform.deviate(None, register, bits));
    let host = Host { list: vec![], infos: vec![] };
    call(&mut platform, TdxLeaf::SYS_INIT, SeamcallRegs::default(), &host)
}

#[test]
fn init_fails_for_each_msr_bit_that_the_module_checks() {
    let all = u64::MAX;
    // MSR, bits that fail when flipped, and the MSR that the error names.
    for (msr, failing, named) in [
        (0x10a, 0x20_fd6f, 0x10a),
        (0xbd, all, 0xbd),
        (0xbc, 1, 0xbc),
        (0x345, 1 << 13, 0x345),
        // Not checked, or two algorithms of which one is sufficient.
        (0xcf, 0, 0),
        (0x122, 0, 0),
        (0x3b, 0, 0),
        (0x981, 0, 0),
        // The size of a VMCS is 1,024; 3,072 and 5,120 are too large. INS and OUTS; true controls.
        (0x480, 3 << 43 | 3 << 54, 0x480),
        // The number of CR3 targets is 4.
        (0x485, 1 << 5 | 1 << 6 | 1 << 7 | 1 << 14 | 1 << 18 | 1 << 29, 0x485),
        (0x48c, 0x101_0633_4041, 0x48c),
        // Protection, paging, and bits that the module always sets may be fixed to 1.
        (0x486, !0x8000_0021, 0x486),
        (0x488, !0x2040, 0x488),
        (0x489, 0x2040, 0x489),
        // Both MSRs count the same blocks.
        (0x98, all, 0x99),
        (0x99, all, 0x99),
    ] {
        for bit in 0..64 {
            let answer = init_with(CpuRegister::Msr(msr), 1 << bit).map(|regs| regs.rax);
            let expected = if failing >> bit & 1 == 1 { INCORRECT_MSR | named } else { 0 };
            assert_eq!(answer, Some(expected), "bit {bit} of {msr:#x}");
        }
    }
}

#[test]
fn the_error_for_a_cr0_bit_names_the_msr_of_the_check() {
    for bit in 0..64 {
        let expected = match bit {
            0 | 5 => INCORRECT_MSR | 0x487,
            // Bits that virtual machines inside TDs choose.
            1..=4 | 16 | 18 | 31 => INCORRECT_MSR | 0x486,
            _ => 0,
        };
        let answer = init_with(CpuRegister::Msr(0x487), 1 << bit).map(|regs| regs.rax);
        assert_eq!(answer, Some(expected), "bit {bit}");
    }
}

#[test]
fn a_required_control_that_cannot_be_1_is_fatal() {
    // The pin-based controls 1, 2 and 4 have to be 1; the processor reports that they can be.
    for (bit, is_fatal) in
        [(32 + 1, true), (32 + 2, true), (32 + 4, true), (32 + 3, false), (32 + 7, false)]
    {
        let answer = init_with(CpuRegister::Msr(0x48d), 1u64 << bit).map(|regs| regs.rax);
        assert_eq!(answer, (!is_fatal).then_some(INCORRECT_MSR | 0x48d), "bit {bit}");
    }
}

#[test]
fn mtrrs_and_key_ids_have_different_errors() {
    let status = |msr, bits| init_with(CpuRegister::Msr(msr), bits).map(|regs| regs.rax);
    let class_9 = |code: u64, details: u64| Some(0xc000_0900_0000_0000 | code << 32 | details);
    assert_eq!(status(0xfe, 1 << 11), class_9(0x14, 0));
    assert_eq!(status(0xfe, 1 << 14), class_9(0x13, 0));
    // Without SMRR2, its registers are not checked.
    assert_eq!(status(0xfe, 1 << 13), Some(0));
    for (index, (base, mask)) in [(0x1f2, 0x1f3), (0x1f6, 0x1f7)].into_iter().enumerate() {
        let index = u64::try_from(index).unwrap();
        assert_eq!(status(mask, 1 << 10), class_9(0x10, index), "not locked");
        assert_eq!(status(mask, 1 << 11), Some(0), "not valid");
        assert_eq!(status(mask, 1 << 25), class_9(0x11, index), "the mask is not contiguous");
        assert_eq!(status(mask, 0xff80_0000), class_9(0x11, index), "the mask is empty");
        assert_eq!(
            status(base, 1 << 12),
            class_9(0x11, index),
            "the base is not a multiple of the size"
        );
        assert_eq!(status(base, 0xff), Some(0), "the memory type");
        // Region 0 of convertible memory begins at 1 MiB. SMRRs end below 4 GiB.
        let at_16_mib = (if index == 0 { 0x7f80_0000 } else { 0x7f00_0000 }) ^ 0x0100_0000;
        assert_eq!(status(base, at_16_mib), class_9(0x12, index), "overlaps");
    }
    assert_eq!(status(0x982, 1), Some(INCORRECT_MSR | 0x982), "not locked");
    assert_eq!(status(0x982, 0xa << 48), Some(INCORRECT_MSR | 0x982));
    assert_eq!(
        status(0x982, 0x5 << 48),
        Some(0),
        "algorithms without integrity are not checked here"
    );
    assert_eq!(status(0x981, 0xa), Some(INCORRECT_MSR | 0x981));
    // At most 31 KeyIDs of the host and 2,016 KeyIDs of TDs.
    let too_many = Some(0xc000_0825_0000_0800);
    assert_eq!(status(0x87, (0x20 ^ 2016) << 32), Some(0));
    assert_eq!(status(0x87, (0x20 ^ 2017) << 32), too_many);
}

#[test]
fn init_fails_for_each_cpuid_bit_that_the_module_checks_and_returns_the_mask() {
    const NONE: u32 = u32::MAX;
    let all = 0xffff_ffff_u64;
    // Masks of EAX, EBX, ECX and EDX, and the values under the masks.
    for (leaf, subleaf, mask, value) in [
        (1, NONE, [0, 0xff00, 0x47fa_a217, 0x1fa9_fbff], [0, 0x800, 0x47fa_a217, 0x1fa9_fbff]),
        (4, 0, [0, 0xfff, 0, 0], [0, 0x3f, 0, 0]),
        (4, 2, [0, 0xfff, 0, 0], [0, 0x3f, 0, 0]),
        (4, 4, [0x1f, 0, 0, 0], [0; 4]),
        (6, NONE, [0x80_0000, 0, 0, 0], [0; 4]),
        (7, 2, [0, 0, 0, 0x17], [0, 0, 0, 0x17]),
        (0x14, 0, [all, 0, 0, 0], [1, 0, 0, 0]),
        (0x1f, 5, [0, 0, 0xff00, 0], [0; 4]),
        (0x8000_0001, NONE, [0, 0, 0x121, 0x2c10_0800], [0, 0, 0x121, 0x2c10_0800]),
        (0x8000_0006, NONE, [0, 0, 0xff, 0], [0, 0, 0x40, 0]),
        (0x8000_0007, NONE, [0, 0, 0, 0x100], [0, 0, 0, 0x100]),
        // Not checked.
        (3, NONE, [0; 4], [0; 4]),
        (5, NONE, [0; 4], [0; 4]),
        (0x12, NONE, [0; 4], [0; 4]),
        (0x1e, NONE, [0; 4], [0; 4]),
    ] {
        let halves = |[eax, ebx, ecx, edx]: [u64; 4]| (ebx << 32 | eax, edx << 32 | ecx);
        for output in 0..4u8 {
            for bit in 0..32 {
                let register = CpuRegister::Cpuid { leaf, subleaf, output };
                let answer = init_with(register, 1 << bit).unwrap();
                let place = format!("bit {bit} of output {output} of {leaf:#x}.{subleaf:#x}");
                if mask[usize::from(output)] >> bit & 1 == 0 {
                    assert_eq!(answer.rax, 0, "{place}");
                    continue;
                }
                assert_eq!(
                    (answer.rax, answer.rcx),
                    (INCORRECT_CPUID, pair(leaf, subleaf)),
                    "{place}"
                );
                assert_eq!((answer.rdx, answer.r8), halves(mask), "{place}");
                assert_eq!((answer.r9, answer.r10), halves(value), "{place}");
            }
        }
    }
}

fn pair(leaf: u32, subleaf: u32) -> u64 {
    u64::from(subleaf) << 32 | u64::from(leaf)
}

#[test]
fn cpuid_leaves_with_special_rules_follow_them() {
    const NONE: u32 = u32::MAX;
    let status = |leaf, subleaf, output, bits| {
        let answer = init_with(CpuRegister::Cpuid { leaf, subleaf, output }, bits);
        answer.map(|regs| (regs.rax, regs.rdx, regs.r8, regs.r9, regs.r10))
    };
    let passed = Some((0, 0, 0, 0, 0));
    let missing = |leaf: u64| Some((0xc000_0908_0000_0000 | leaf, 0, 0, 0, 0));
    // The last leaf is 0x20. 0x1F is sufficient, 0x1E is not.
    assert_eq!(status(0, NONE, 0, 0x20 ^ 0x1f), passed);
    assert_eq!(status(0, NONE, 0, 0x20 ^ 0x1e), missing(0x1f));
    assert_eq!(status(0x8000_0000, NONE, 0, 8 ^ 9), passed);
    assert_eq!(status(0x8000_0000, NONE, 0, 8 ^ 7), missing(0x8000_0008));
    // Performance monitoring: the lowest version is 5, the most counters are 7.
    assert_eq!(status(0xa, NONE, 0, 5 ^ 6), passed);
    assert_eq!(status(0xa, NONE, 0, 5 ^ 4), Some((INCORRECT_CPUID, 0xf, 0, 5, 0)));
    assert_eq!(status(0xa, NONE, 3, 4 ^ 7), passed);
    assert_eq!(status(0xa, NONE, 3, 4 ^ 8), Some((INCORRECT_CPUID, 0, 0x1f << 32, 0, 7 << 32)));
    // The TSC: a missing ratio is an error; a missing denominator and a low frequency are fatal.
    assert_eq!(status(0x15, NONE, 1, 0xa0), missing(0x15));
    assert_eq!(status(0x15, NONE, 0, 2), None);
    assert_eq!(status(0x15, NONE, 2, 0x17d_7840), None);
    // Last branch records without a depth.
    assert_eq!(status(0x1c, NONE, 0, 0xb), None);
    // A supervisor state that claims to be a user state.
    assert_eq!(status(0xd, 8, 2, 1), None);
    assert_eq!(status(0xd, 9, 2, 1), None);
    assert_eq!(status(0xd, 3, 2, 1), passed);
    // Linear addresses have 57 bits, or 48 with four-level paging.
    assert_eq!(status(0x8000_0008, NONE, 0, 1 << 8), Some((INCORRECT_CPUID, 0xff00, 0, 0x3900, 0)));
    assert_eq!(status(7, 0, 2, 1 << 16), Some((INCORRECT_CPUID, 0xff00, 0, 0x3000, 0)));
    // Topology levels have to be in order, of known types, and contain cores.
    let unrecognized = Some((0xc000_0904_0000_0000, 0, 0, 0, 0));
    assert_eq!(status(0x1f, 1, 2, (2 ^ 1) << 8), unrecognized, "a second level of threads");
    assert_eq!(status(0x1f, 2, 2, 6 << 8), unrecognized, "a type that does not exist");
    assert_eq!(status(0x1f, 0, 2, 1 << 8), missing(0), "no levels");
    assert_eq!(status(0x1f, 1, 2, (2 ^ 3) << 8), missing(0), "no cores");
    let wrong_scope = Some((0xc000_0905_0000_0000, 0, 0, 0, 0));
    assert_eq!(status(0x1f, 1, 0, 2 ^ 3), wrong_scope, "a package larger than its cache");
    assert_eq!(status(0x1f, 1, 0, 2), None, "a package smaller than a core");
}

/// Returns the default TDMR, moved by `number` GiB, with its own PAMTs.
fn tdmr(number: u64) -> [u64; 40] {
    let mut words = [0; 40];
    let pamts = 0x2_0000_0000 + number * 0x100_0000;
    let info = [
        0x1_0000_0000 + number * 0x4000_0000,
        0x4000_0000,
        pamts,
        0x1000,
        pamts + 0x1000,
        0x2000,
        pamts + 0x40_0000,
        0x40_0000,
    ];
    words[..8].copy_from_slice(&info);
    words
}

/// Calls CONFIG with 3 TDMRs after `change`. Returns the status and the module's tables.
fn config(change: impl Fn(&mut Host)) -> (u64, (u32, u32, u16)) {
    let mut platform = platform("SYSINIT_DONE");
    let infos: Vec<_> = (0..3).map(tdmr).collect();
    let mut host = Host { list: (0..3).map(|index| INFOS + index * 0x1000).collect(), infos };
    change(&mut host);
    let regs = SeamcallRegs { rcx: LIST, rdx: 3, r8: 0x21, ..SeamcallRegs::default() };
    let answer = call(&mut platform, TdxLeaf::SYS_CONFIG, regs, &host).unwrap();
    (answer.rax, platform.tables())
}

#[test]
fn config_errors_name_the_tdmr_and_its_part_and_keep_the_key_id() {
    /// Indexes of words in a TDMR_INFO structure.
    const PAMTS: [(u64, usize); 3] = [(2, 2), (1, 4), (0, 6)];
    const RESERVED: usize = 8;
    let failed = |status: u64, details: u64| (status << 32 | details, (0, 0, 0x21));
    assert_eq!(config(|_| {}), (0, (0, 3, 0x21)));
    for which in 0..3usize {
        let at = u64::try_from(which).unwrap();
        let with = |word: usize, value: u64| config(|host| host.infos[which][word] = value);
        assert_eq!(with(0, tdmr(at)[0] + 0x1000), failed(0xc000_0a00, at), "base");
        assert_eq!(with(1, 0), failed(0xc000_0a00, at), "size");
        for (level, word) in PAMTS {
            let details = at | level << 8;
            assert_eq!(
                with(word, tdmr(at)[word] + 1),
                failed(0xc000_0a10, details),
                "PAMT, alignment"
            );
            assert_eq!(with(word + 1, 0), failed(0xc000_0a10, details), "PAMT, size");
            assert_eq!(with(word, 1 << 46), failed(0xc000_0a10, details), "PAMT, beyond memory");
            assert_eq!(
                with(word, 0x7f00_0000),
                failed(0xc000_0a11, details),
                "PAMT, outside of CMRs"
            );
        }
        for area in 0..15usize {
            let place = RESERVED + 2 * area;
            let fill = |host: &mut Host, count: usize| {
                for index in 0..count {
                    host.infos[which][RESERVED + 2 * index] =
                        0x10_0000 * u64::try_from(index).unwrap();
                    host.infos[which][RESERVED + 2 * index + 1] = 0x1000;
                }
            };
            let details = at | u64::try_from(area).unwrap() << 8;
            let with = |word: usize, value: u64| {
                config(|host| {
                    fill(host, area + 1);
                    host.infos[which][word] = value;
                })
            };
            assert_eq!(with(place + 1, 0x1001), failed(0xc000_0a20, details), "area, alignment");
            assert_eq!(with(place + 1, 0x4000_1000), failed(0xc000_0a20, details), "area, outside");
            assert_eq!(
                with(place, u64::MAX - 0xfff),
                failed(0xc000_0a20, details),
                "area, overflow"
            );
            if area > 0 {
                assert_eq!(with(place, 0), failed(0xc000_0a21, details), "area, not in order");
            }
            let hole = config(|host| {
                fill(host, area + 2);
                host.infos[which][place + 1] = 0;
            });
            assert_eq!(hole, failed(0xc000_0a21, details), "area after an empty one");
        }
    }
    let unordered = config(|host| host.infos.swap(1, 2));
    assert_eq!(unordered, failed(0xc000_0a01, 2));
    // An overlapping PAMT: its TDMR and level, its word, and the other TDMR.
    for (which, level, word, other) in [(2, 1, 4, 0), (2, 2, 2, 1), (1, 0, 6, 0)] {
        let taken = config(|host| host.infos[which][word] = tdmr(other)[2]);
        let which = u64::try_from(which).unwrap();
        assert_eq!(taken, failed(0xc000_0a12, which | level << 8 | other << 16), "another PAMT");
    }
    let own = config(|host| host.infos[1][4] = tdmr(1)[2]);
    assert_eq!(own, failed(0xc000_0a12, 1 | 1 << 8 | 1 << 16), "a PAMT of the same TDMR");
    let used = config(|host| host.infos[2][4] = tdmr(1)[0]);
    assert_eq!(used, failed(0xc000_0a12, 2 | 1 << 8 | 1 << 16), "memory of an earlier TDMR");
    let used = config(|host| host.infos[0][4] = tdmr(2)[0]);
    assert_eq!(used, failed(0xc000_0a12, 1 << 8 | 2 << 16), "memory of a later TDMR");
    // CONFIG checks an address of the list only when it reaches this entry.
    let address = config(|host| host.list[1] += 8);
    assert_eq!(address, failed(0xc000_0100, 1));
    let both = config(|host| {
        host.list[1] += 8;
        host.infos[0][1] = 0;
    });
    assert_eq!(both, failed(0xc000_0a00, 0), "the error of TDMR 0 comes first");
}

#[test]
fn adjacent_convertible_regions_count_as_one() {
    let mut description = description("SYSINIT_DONE");
    description["platform"]["cmrs"] = json!([
        ["0x100000", "0x7ef00000"],
        ["0x100000000", "0x20000000"],
        ["0x120000000", "0x1ee0000000"]
    ]);
    let mut platform = platform_of_json(&description.to_string()).unwrap();
    let host = Host { list: vec![INFOS], infos: vec![tdmr(0)] };
    let regs = SeamcallRegs { rcx: LIST, rdx: 1, r8: 0x20, ..SeamcallRegs::default() };
    assert_eq!(call(&mut platform, TdxLeaf::SYS_CONFIG, regs, &host).map(|regs| regs.rax), Some(0));
}

/// Returns a recording of one call, as a line.
fn recording(change: impl Fn(&mut Value), steps: Value, last: Value) -> String {
    let mut vector = description("SYSINIT_DONE");
    change(&mut vector);
    vector["name"] = json!("variation/one");
    vector["group"] = json!("variation");
    vector["steps"] = steps;
    vector["final"] = last;
    vector.to_string()
}

fn replayed(line: &str) -> Replay {
    replay_line(line, Path::new(".")).unwrap()
}

#[test]
fn a_field_about_an_unknown_processor_is_fatal() {
    for id in ["0x9900000100000800", "0x9900000300000810", "0x9900000300000811"] {
        let line = recording(
            |vector| vector["platform"]["socket_fms"] = json!(["0x606a6"]),
            json!([{"lp": 0, "rax": "0x22", "rdx": id, "expect": {"fatal": true}}]),
            json!({"fatal": true}),
        );
        assert_eq!(replayed(&line), Replay::Passed, "{id}");
    }
}

#[test]
fn a_second_info_into_the_same_buffers_changes_nothing() {
    let call = |writes: Value| {
        json!({"lp": 0, "rax": "0x20", "rcx": "0x20000000", "rdx": "0x400", "r8": "0x20001000", "r9": "0x20",
               "expect": {"rax": "0x0", "writes": writes}})
    };
    let recorded = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/tdx-module/state.jsonl"),
    )
    .unwrap();
    let info = recorded.lines().find(|line| line.contains("\"state/info-in-done1\"")).unwrap();
    let info: Value = serde_json::from_str(info).unwrap();
    let writes = info["steps"][0]["expect"]["writes"].clone();
    for state in ["SYSINIT_DONE", "SYSCONFIG_DONE", "SYS_READY"] {
        let line = recording(
            |vector| vector["initial"]["state"] = json!(state),
            json!([call(writes.clone()), call(json!([]))]),
            json!({}),
        );
        assert_eq!(replayed(&line), Replay::Passed, "{state}");
    }
}

#[test]
fn a_recording_can_have_own_handoff_data_although_sys_init_fails() {
    let refused = json!([
        {"lp": 0, "rax": "0x21", "expect": {"rax": "0xc000050a00000000"},
         "after": {"sys_state": "SYSINIT_PENDING", "num_init_lps": 0, "lp_is_init": [0, 0],
                   "handoff": {"valid": true, "hv": 2, "size": 53386}}},
    ]);
    for (built, told) in [
        (json!([2, 1, 0]), json!([2, 1, 0, 12])),
        (json!([2, 1, 0]), json!([3, 1, 0, 15])),
        (json!([2, 1, 0]), json!([2, 0, 0, 15])),
        (json!([2, 1, 1]), json!([2, 1, 0, 15])),
    ] {
        let line = recording(
            |vector| {
                let module = &mut vector["initial"]["module"];
                module["built_module_hv"] = built[0].clone();
                module["built_min_update_hv"] = built[1].clone();
                module["built_no_downgrade"] = built[2].clone();
                module["sysinfo"] = json!({"module_hv": told[0], "min_update_hv": told[1],
                    "no_downgrade": told[2], "num_handoff_pages": told[3]});
                vector["initial"]["state"] = json!("SYSINIT_PENDING");
                vector["initial"]["lps_initialized"] = json!([]);
                vector["initial"]["handoff"] =
                    json!({"valid": true, "hv": 2, "size": 53386, "payload": "own"});
            },
            refused.clone(),
            json!({"sys_state": "SYSINIT_PENDING"}),
        );
        assert_eq!(replayed(&line), Replay::Passed, "built {built}, told {told}");
    }
}

#[test]
fn a_recording_with_an_unreachable_start_fails_without_ending_the_replay() {
    let folder = std::env::temp_dir().join(format!("tdx-unreachable-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let unreachable = recording(
        |vector| vector["initial"]["module"]["sysinfo"]["module_hv"] = json!(1),
        json!([]),
        json!({}),
    );
    let good = recording(|_| {}, json!([]), json!({"sys_state": "SYSINIT_DONE"}));
    std::fs::write(folder.join("some.jsonl"), format!("{unreachable}\n{good}\n")).unwrap();
    let mut replays = Vec::new();
    replay_folder(&folder, None, |replayed| replays.push(replayed.replay)).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let [Replay::Failed { step: None, differences }, Replay::Passed] = &replays[..] else {
        panic!("{replays:?}");
    };
    let found = &differences[0].found;
    assert!(
        found.contains("does not reach its initial state")
            && found.contains("SYS_INCOMPATIBLE_SIGSTRUCT"),
        "{found}"
    );
}

#[test]
fn lp_init_compares_in_the_recorded_order() {
    const NONE: u32 = u32::MAX;
    let msr =
        |number| (CpuRegister::Msr(number), 1 << 40, 0xc000_0920_0000_0000 | u64::from(number));
    let cpuid = |leaf, subleaf, output, bits| {
        (CpuRegister::Cpuid { leaf, subleaf, output }, bits, 0xc000_0902_0000_0000)
    };
    let order = [
        msr(0xcf),
        msr(0x10a),
        msr(0xbc),
        msr(0xbd),
        (CpuRegister::Msr(0x1a0), 1 << 22, 0xc000_0901_0000_0000),
        cpuid(1, NONE, 2, 1),
        cpuid(4, 0, 0, 1),
        cpuid(7, 0, 1, 1),
        cpuid(0x8000_0008, NONE, 0, 1),
        cpuid(0, NONE, 0, 1),
        cpuid(0xd, 0, 0, 1),
        cpuid(0x15, NONE, 0, 1),
        cpuid(0x1f, 0, 0, 1),
        cpuid(0x8000_0006, NONE, 2, 1),
        cpuid(5, NONE, 0, 1),
        msr(0x3b),
        msr(0xfe),
        msr(0x1f2),
        msr(0x1f3),
        msr(0x1f6),
        msr(0x1f7),
        msr(0x480),
        msr(0x48d),
        msr(0x48e),
        msr(0x48b),
        msr(0x492),
        msr(0x48f),
        msr(0x490),
        msr(0x485),
        msr(0x48c),
        msr(0x486),
        msr(0x487),
        msr(0x488),
        msr(0x489),
        msr(0x345),
        msr(0x981),
        msr(0x982),
        msr(0x87),
        msr(0x98),
        msr(0x99),
    ];
    let mut platform = platform("SYSINIT_PENDING");
    let host = Host { list: vec![], infos: vec![] };
    let init = call(&mut platform, TdxLeaf::SYS_INIT, SeamcallRegs::default(), &host);
    assert_eq!(init.map(|regs| regs.rax), Some(0));
    for (register, bits, _) in order {
        assert!(platform.deviate(Some(0), register, bits));
    }
    for (register, bits, expected) in order {
        let regs =
            call(&mut platform, TdxLeaf::SYS_LP_INIT, SeamcallRegs::default(), &host).unwrap();
        assert_eq!(regs.rax, expected, "{register:x?}");
        if let CpuRegister::Cpuid { leaf, subleaf, .. } = register {
            assert_eq!(regs.rcx, pair(leaf, subleaf), "{register:x?}");
        }
        // Restore this register, so that the next difference decides.
        assert!(platform.deviate(Some(0), register, bits));
    }
    let regs = call(&mut platform, TdxLeaf::SYS_LP_INIT, SeamcallRegs::default(), &host);
    assert_eq!(regs.map(|regs| regs.rax), Some(0));
}
