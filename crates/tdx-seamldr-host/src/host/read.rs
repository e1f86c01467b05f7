//! Reads a host's facts. Each file is read once.

use tdx_seamldr_core::TdxVersion;

use crate::cpu_list::CpuList;
use crate::cpuinfo::Cpuinfo;
use crate::fact::{Absent, Fact, Found, Reason};
use crate::host::interface::{self, Seen};
use crate::host::{Host, PlatformLps};
use crate::madt::parse_madt;
use crate::root::{Registers, Root};
use crate::version::parse_version;

/// The driver's device.
pub(super) const TDX_HOST: &str = "/sys/devices/faux/tdx_host";
/// The folder of the kernel's firmware upload.
pub(crate) const UPLOAD: &str = "/sys/class/firmware/tdx_module";

/// The most bytes of a file with a single value: a page, as in sysfs.
const VALUE: u64 = 4096;
/// The most bytes of the kernel's command line and of a list of LPs.
const LINE: u64 = 64 << 10;
/// The most bytes of `/proc/cpuinfo`: 8,192 LPs with 8 KiB each.
const CPUINFO: u64 = 64 << 20;
/// The most bytes of the MADT.
const MADT: u64 = 1 << 20;

/// Folders that may be the EFI system partition, where firmware finds TDX modules.
const ESP: [&str; 3] = ["/boot/efi", "/efi", "/boot"];
/// The most names that are read from a folder on the EFI system partition.
const ESP_NAMES: usize = 4096;
/// The most files of TDX modules that are listed.
const STAGED: usize = 64;

/// The MSRs of [`Host`], with their numbers.
const MSRS: [(u32, &str); 4] = [
    (0x480, "IA32_VMX_BASIC"),
    (0x1400, "IA32_SEAMRR_PHYS_BASE"),
    (0x1401, "IA32_SEAMRR_PHYS_MASK"),
    (0x503, "IA32_SGX_DEBUG_MODE"),
];

impl Host {
    /// Reads all facts. A fact that cannot be read is not an error: the fact contains the reason.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let cpuinfo = parse(root, "/proc/cpuinfo", CPUINFO, Cpuinfo::parse);
        let online = parse(root, "/sys/devices/system/cpu/online", LINE, CpuList::parse);
        let first_lp = online.as_ref().ok().and_then(|online| online.value.first()).unwrap_or(0);
        let [vmx_basic, seamrr_base, seamrr_mask, debug_mode] = read_msrs(root, first_lp);
        let module = version(root, &format!("{TDX_HOST}/version"));
        let tdx_flag = flag(&cpuinfo, "flags", |cpuinfo| cpuinfo.tdx_flag);
        let erratum = flag(&cpuinfo, "bugs", |cpuinfo| cpuinfo.erratum);
        let seen =
            Seen { tdx_flag: &tdx_flag, erratum: &erratum, vmx_basic: &vmx_basic, module: &module };
        let interface = interface::detect(root, &seen);
        let [seamldr, remaining] =
            interface::likely(root).seamldr_files().map(|file| format!("{TDX_HOST}/{file}"));
        Self {
            kernel: text(root, "/proc/sys/kernel/osrelease", VALUE),
            command_line: text(root, "/proc/cmdline", LINE),
            seamldr: version(root, &seamldr),
            remaining_updates: parse(root, &remaining, VALUE, count),
            upload_status: text(root, &format!("{UPLOAD}/status"), VALUE),
            present: parse(root, "/sys/devices/system/cpu/present", LINE, CpuList::parse),
            platform: platform(root),
            smt: text(root, "/sys/devices/system/cpu/smt/control", VALUE),
            cache_leaf: cache_leaf(root, first_lp),
            kvm_tdx: text(root, "/sys/module/kvm_intel/parameters/tdx", VALUE),
            staged: staged(root),
            sockets: cpuinfo.map(|cpuinfo| cpuinfo.map(|cpuinfo| cpuinfo.sockets)),
            interface,
            module,
            online,
            tdx_flag,
            erratum,
            vmx_basic,
            seamrr_base,
            seamrr_mask,
            debug_mode,
        }
    }
}

fn text(root: &Root, path: &str, limit: u64) -> Fact<String> {
    root.read_text(path, limit).map(|value| Found { value, source: path.to_owned() })
}

fn parse<T, E: ToString>(
    root: &Root,
    path: &str,
    limit: u64,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Fact<T> {
    understood(path, parse(&root.read_text(path, limit)?))
}

fn understood<T, E: ToString>(path: &str, value: Result<T, E>) -> Fact<T> {
    match value {
        Ok(value) => Ok(Found { value, source: path.to_owned() }),
        Err(error) => Err(absent(path, Reason::Malformed, error.to_string())),
    }
}

fn absent(path: &str, reason: Reason, problem: String) -> Absent {
    Absent { source: path.to_owned(), reason, problem }
}

fn version(root: &Root, path: &str) -> Fact<TdxVersion> {
    parse(root, path, VALUE, parse_version)
}

fn count(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text);
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        format!("{:?} is not a number below 2^32", text.chars().take(40).collect::<String>())
    })
}

fn flag(cpuinfo: &Fact<Cpuinfo>, line: &str, flag: fn(&Cpuinfo) -> Option<bool>) -> Fact<bool> {
    let Found { value, source } = cpuinfo.as_ref().map_err(Clone::clone)?;
    understood(source, flag(value).ok_or_else(|| format!("has no line {line:?}")))
}

fn platform(root: &Root) -> Fact<PlatformLps> {
    let path = "/sys/firmware/acpi/tables/APIC";
    understood(path, parse_madt(&root.read_bytes(path, MADT)?))
}

/// Opens a file of an LP's registers. A kernel module provides the file.
fn open_registers(root: &Root, lp: u32, module: &str) -> Result<(String, Registers), Absent> {
    let path = format!("/dev/cpu/{lp}/{module}");
    match root.open_registers(&path) {
        Ok(registers) => Ok((path, registers)),
        Err(error) if error.reason == Reason::Missing => {
            let problem =
                format!("{}: load the kernel's module {module} (modprobe {module})", error.problem);
            Err(Absent { problem, ..error })
        }
        Err(error) => Err(error),
    }
}

fn read_msrs(root: &Root, lp: u32) -> [Fact<u64>; MSRS.len()] {
    let opened = open_registers(root, lp, "msr");
    MSRS.map(|(number, name)| {
        let (path, registers) = opened.as_ref().map_err(Clone::clone)?;
        match registers.read_u64(number) {
            Ok(value) => Ok(Found { value, source: path.clone() }),
            Err(error) => {
                let problem =
                    format!("LP {lp} does not give {name} ({number:#x}): {}", error.problem);
                Err(Absent { problem, ..error })
            }
        }
    })
}

/// Reads CPUID leaf 4, subleaf 3.
fn cache_leaf(root: &Root, lp: u32) -> Fact<[u32; 4]> {
    let (path, registers) = open_registers(root, lp, "cpuid")?;
    let bytes: [u8; 16] = registers.read_at(3 << 32 | 4)?;
    let mut words = bytes
        .chunks_exact(4)
        .map(|word| word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    Ok(Found { value: [(); 4].map(|()| words.next().unwrap_or(0)), source: path })
}

/// Lists the files below `EFI/TDX` on possible EFI system partitions, ignoring the case of names.
/// Lists a partition with two paths once.
fn staged(root: &Root) -> Vec<String> {
    let below = |folder: &str, name: &str| {
        let names = root.list(folder, ESP_NAMES).unwrap_or_default();
        let same = names.into_iter().filter(|found| found.eq_ignore_ascii_case(name));
        same.map(|found| format!("{folder}/{found}")).collect::<Vec<_>>()
    };
    let mut files = Vec::new();
    let mut listed = Vec::new();
    for efi in ESP.iter().flat_map(|esp| below(esp, "EFI")) {
        for folder in below(&efi, "TDX") {
            let identity = root.identity(&folder);
            if listed.contains(&identity) {
                continue;
            }
            listed.push(identity);
            let names = root.list(&folder, ESP_NAMES).unwrap_or_default();
            let paths = names.into_iter().map(|name| format!("{folder}/{name}"));
            files.extend(paths.filter(|path| root.is_file(path)).take(STAGED));
        }
    }
    files.sort_unstable();
    files.truncate(STAGED);
    files
}
