//! Folders that look like the root of a TDX host, for tests. Needs the feature `testing`.
//!
//! A tree starts as a kind of host ([`HostTree::linux_7_2`] and others), changes by its setters,
//! and is written into an empty folder by [`HostTree::write`]. [`Root`](crate::Root) reads it
//! there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{symlink, FileExt};
use std::path::Path;

use rustix::fs::{mknodat, FileType, Mode, CWD};

use crate::cpu_list::CpuList;
use crate::host::Interface;

/// The device that the driver makes.
const TDX_HOST: &str = "/sys/devices/faux/tdx_host";

/// A host that is written as a folder.
///
/// LPs are numbered socket by socket. Within a socket, the first threads of all cores come before
/// the second threads, as in Linux on a machine with one socket. The x2APIC ID of an LP is its
/// number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTree {
    interface: Option<Interface>,
    has_tdx: bool,
    has_erratum: bool,
    is_initialised: bool,
    module: String,
    seamldr: String,
    remaining: u32,
    upload_status: String,
    /// CPUID.1:EAX and the number of LPs of each socket.
    sockets: Vec<(u32, u32)>,
    microcode: u32,
    offline: CpuList,
    /// The kernel does not know LPs from this number on.
    unknown_from: u32,
    kernel: String,
    command_line: String,
    smt: String,
    msrs: BTreeMap<u32, u64>,
    cache_leaf: [u32; 4],
    madt: Option<Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl HostTree {
    /// Linux 7.2 on one Sapphire Rapids with 8 LPs: module 1.5.05, P-SEAMLDR 1.5.00, 8 updates
    /// left.
    #[must_use]
    pub fn linux_7_2() -> Self {
        Self {
            interface: Some(Interface::Flat),
            has_tdx: true,
            has_erratum: false,
            is_initialised: true,
            module: "1.5.05".to_owned(),
            seamldr: "1.5.00".to_owned(),
            remaining: 8,
            upload_status: "idle".to_owned(),
            sockets: vec![(0x806f8, 8)],
            microcode: 0x2b000603,
            offline: CpuList::default(),
            unknown_from: u32::MAX,
            kernel: "7.2.1-amd64".to_owned(),
            command_line: "BOOT_IMAGE=/vmlinuz-7.2.1-amd64 root=/dev/sda2 ro kvm_intel.tdx=1"
                .to_owned(),
            smt: "on".to_owned(),
            msrs: BTreeMap::from([
                // Bit 60: a return from P-SEAMLDR leaves the VMCS pointer alone.
                (0x480, 0x10da_0400_0000_0004),
                // 64 MiB at 0x1000_0000 (32 MiB units); the range is on and locked.
                (0x1400, 0x1000_0000),
                (0x1401, 0x000f_ffff_fc00_0c00),
                (0x503, 0),
            ]),
            // Level 3, shared by up to 128 LP IDs, 15 ways, 64 B lines.
            cache_leaf: [0x01fc_0163, 0x0380_003f, 0x0001_bfff, 0x4],
            madt: None,
            files: BTreeMap::new(),
        }
    }

    /// The same host with version 6 of the patch series.
    #[must_use]
    pub fn series_v6() -> Self {
        let kernel = "7.0.0-tdx-v6".to_owned();
        Self { interface: Some(Interface::Folder), kernel, ..Self::linux_7_2() }
    }

    /// A host without TDX: the processor has none, or TDX is off in the BIOS.
    #[must_use]
    pub fn without_tdx() -> Self {
        Self { interface: None, has_tdx: false, is_initialised: false, ..Self::linux_7_2() }
    }

    /// A host whose module was never initialised: the device exists, `version` returns no version,
    /// and the upload is missing.
    #[must_use]
    pub fn not_initialised() -> Self {
        Self { is_initialised: false, interface: None, ..Self::linux_7_2() }
    }

    /// A host with the bug `seamret_invd_vmcs`: the device and `version` exist, but the upload is
    /// missing.
    #[must_use]
    pub fn erratum() -> Self {
        Self { has_erratum: true, interface: None, ..Self::linux_7_2() }
            .msr(0x480, 0x00da_0400_0000_0004)
    }

    /// Sets the version of the running module, e.g. `1.5.05`.
    #[must_use]
    pub fn module(self, version: &str) -> Self {
        Self { module: version.to_owned(), ..self }
    }

    /// Makes `version` answer ENXIO, as after a failed update. All other files stay.
    #[must_use]
    pub fn module_gone(self) -> Self {
        Self { is_initialised: false, ..self }
    }

    /// Sets the version of P-SEAMLDR.
    #[must_use]
    pub fn seamldr(self, version: &str) -> Self {
        Self { seamldr: version.to_owned(), ..self }
    }

    /// Sets how many updates remain.
    #[must_use]
    pub fn remaining(self, updates: u32) -> Self {
        Self { remaining: updates, ..self }
    }

    /// Sets the status of the firmware upload, e.g. `programming`.
    #[must_use]
    pub fn upload_status(self, status: &str) -> Self {
        Self { upload_status: status.to_owned(), ..self }
    }

    /// Sets CPUID.1:EAX and the number of LPs of each socket.
    #[must_use]
    pub fn sockets(self, sockets: &[(u32, u32)]) -> Self {
        Self { sockets: sockets.to_vec(), ..self }
    }

    /// Sets the microcode of all LPs.
    #[must_use]
    pub fn microcode(self, microcode: u32) -> Self {
        Self { microcode, ..self }
    }

    /// Takes LPs offline.
    #[must_use]
    pub fn offline(self, lps: &[u32]) -> Self {
        Self { offline: self.offline.iter().chain(lps.iter().copied()).collect(), ..self }
    }

    /// Boots with `nosmt`: the upper half of the LPs of each socket is offline.
    #[must_use]
    pub fn nosmt(self) -> Self {
        let mut first = 0_u32;
        let mut second_threads = Vec::new();
        for (_, lps) in &self.sockets {
            let end = first.saturating_add(*lps);
            second_threads.extend(first.saturating_add(lps.div_ceil(2))..end);
            first = end;
        }
        Self { smt: "off".to_owned(), ..self.offline(&second_threads).parameter("nosmt") }
    }

    /// Boots with `maxcpus=`: LPs from this number on are offline.
    #[must_use]
    pub fn maxcpus(self, lps: u32) -> Self {
        let offline: Vec<u32> = (lps..self.num_lps()).collect();
        self.offline(&offline).parameter(&format!("maxcpus={lps}"))
    }

    /// Boots with `nr_cpus=`: the kernel does not know LPs from this number on.
    #[must_use]
    pub fn nr_cpus(self, lps: u32) -> Self {
        Self { unknown_from: lps, ..self.parameter(&format!("nr_cpus={lps}")) }
    }

    /// Adds a word to the kernel's command line.
    #[must_use]
    pub fn parameter(self, word: &str) -> Self {
        Self { command_line: format!("{} {word}", self.command_line), ..self }
    }

    /// Sets the kernel's release.
    #[must_use]
    pub fn kernel(self, release: &str) -> Self {
        Self { kernel: release.to_owned(), ..self }
    }

    /// Sets the text of `smt/control`.
    #[must_use]
    pub fn smt(self, control: &str) -> Self {
        Self { smt: control.to_owned(), ..self }
    }

    /// Sets an MSR of all LPs.
    #[must_use]
    pub fn msr(mut self, number: u32, value: u64) -> Self {
        self.msrs.insert(number, value);
        self
    }

    /// Sets CPUID leaf 4, subleaf 3.
    #[must_use]
    pub fn cache_leaf(self, registers: [u32; 4]) -> Self {
        Self { cache_leaf: registers, ..self }
    }

    /// Sets the bytes of the MADT. The default MADT lists the LPs of all sockets as enabled.
    #[must_use]
    pub fn madt(self, table: Vec<u8>) -> Self {
        Self { madt: Some(table), ..self }
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn file(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), bytes.into());
        self
    }

    /// Returns the number of LPs of the platform.
    #[must_use]
    pub fn num_lps(&self) -> u32 {
        self.sockets.iter().map(|(_, lps)| *lps).fold(0, u32::saturating_add)
    }

    /// Writes the host into an empty folder.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let tree = Tree { folder };
        self.write_proc(&tree)?;
        self.write_lps(&tree)?;
        self.write_tdx(&tree)?;
        for (path, bytes) in &self.files {
            tree.write(path, bytes)?;
        }
        Ok(())
    }

    fn write_proc(&self, tree: &Tree<'_>) -> io::Result<()> {
        tree.line("/proc/sys/kernel/osrelease", &self.kernel)?;
        tree.line("/proc/cmdline", &self.command_line)?;
        tree.line("/proc/sys/kernel/random/boot_id", "01234567-89ab-4cde-8f01-23456789abcd")?;
        tree.write("/proc/cpuinfo", self.cpuinfo().as_bytes())
    }

    fn write_lps(&self, tree: &Tree<'_>) -> io::Result<()> {
        let present: CpuList = (0..self.num_lps().min(self.unknown_from)).collect();
        let online = present.difference(&self.offline);
        tree.line("/sys/devices/system/cpu/present", &present.to_string())?;
        tree.line("/sys/devices/system/cpu/online", &online.to_string())?;
        tree.line("/sys/devices/system/cpu/smt/control", &self.smt)?;
        let table = self.madt.clone().unwrap_or_else(|| madt(0..self.num_lps()));
        tree.write("/sys/firmware/acpi/tables/APIC", &table)?;
        let first_lp = online.first().unwrap_or(0);
        // The files are created empty, because registers lie at offsets with holes between them.
        let msr = tree.create(&format!("/dev/cpu/{first_lp}/msr"))?;
        for (number, value) in &self.msrs {
            msr.write_all_at(&value.to_le_bytes(), u64::from(*number).saturating_mul(8))?;
        }
        let leaf: Vec<u8> =
            self.cache_leaf.iter().flat_map(|register| register.to_le_bytes()).collect();
        tree.create(&format!("/dev/cpu/{first_lp}/cpuid"))?.write_all_at(&leaf, 3 << 32 | 4)
    }

    fn write_tdx(&self, tree: &Tree<'_>) -> io::Result<()> {
        if !self.has_tdx {
            return tree.line("/sys/module/kvm_intel/parameters/tdx", "N");
        }
        tree.line(
            "/sys/module/kvm_intel/parameters/tdx",
            if self.is_initialised { "Y" } else { "N" },
        )?;
        let version = format!("{TDX_HOST}/version");
        match self.is_initialised {
            true => tree.line(&version, &self.module)?,
            false => tree.enxio(&version)?,
        }
        let [seamldr, remaining] = match self.interface {
            None => return Ok(()),
            Some(interface) => interface.seamldr_files(),
        };
        tree.line(&format!("{TDX_HOST}/{seamldr}"), &self.seamldr)?;
        tree.line(&format!("{TDX_HOST}/{remaining}"), &self.remaining.to_string())?;
        let upload = format!("{TDX_HOST}/firmware/tdx_module");
        tree.line(&format!("{upload}/status"), &self.upload_status)?;
        tree.line(&format!("{upload}/loading"), "0")?;
        for empty in ["data", "error", "cancel"] {
            tree.write(&format!("{upload}/{empty}"), b"")?;
        }
        tree.line(&format!("{upload}/remaining_size"), "0")?;
        tree.link(
            "/sys/class/firmware/tdx_module",
            "../../devices/faux/tdx_host/firmware/tdx_module",
        )
    }

    /// Returns the text of `/proc/cpuinfo`.
    #[must_use]
    pub fn cpuinfo(&self) -> String {
        let flags = if self.has_tdx {
            "fpu vme msr vmx smx ht tdx_host_platform"
        } else {
            "fpu vme msr vmx ht"
        };
        let bugs = if self.has_erratum {
            "spectre_v1 spectre_v2 seamret_invd_vmcs"
        } else {
            "spectre_v1 spectre_v2"
        };
        let mut text = String::new();
        let mut first = 0_u32;
        for (socket, (signature, lps)) in self.sockets.iter().enumerate() {
            let end = first.saturating_add(*lps);
            for lp in
                (first..end).filter(|lp| *lp < self.unknown_from && !self.offline.contains(*lp))
            {
                text.push_str(&self.cpuinfo_of(lp, socket, *signature, flags, bugs));
            }
            first = end;
        }
        text
    }

    /// Returns the lines of one LP, including lines that the parser skips.
    fn cpuinfo_of(
        &self,
        lp: u32,
        socket: usize,
        signature: u32,
        flags: &str,
        bugs: &str,
    ) -> String {
        let [family, model, stepping] = family_model_stepping(signature);
        let microcode = self.microcode;
        format!(
            "processor\t: {lp}\nvendor_id\t: GenuineIntel\ncpu family\t: {family}\nmodel\t\t: \
             {model}\nmodel name\t: Intel(R) Xeon(R) Platinum: a processor\nstepping\t: \
             {stepping}\nmicrocode\t: {microcode:#x}\ncpu MHz\t\t: 2000.000\nphysical id\t: \
             {socket}\ncore id\t\t: {lp}\nflags\t\t: {flags}\nvmx flags\t: vnmi \
             preemption_timer\nbugs\t\t: {bugs}\npower management:\n\n"
        )
    }
}

/// Returns family, model and stepping as Linux shows them.
fn family_model_stepping(signature: u32) -> [u32; 3] {
    let base = signature >> 8 & 0xf;
    let extended = if base == 0xf { signature >> 20 & 0xff } else { 0 };
    [base.saturating_add(extended), signature >> 12 & 0xf0 | signature >> 4 & 0xf, signature & 0xf]
}

/// Returns a MADT with a correct checksum that lists LPs with these x2APIC IDs as enabled. IDs
/// below 255 have entries of type 0, all others of type 9, as in firmware.
#[must_use]
pub fn madt(apic_ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut table = b"APIC\0\0\0\0\x05\0INTEL INTEL ID".to_vec();
    table.resize(44, 0);
    // An entry that is not an LP: an I/O APIC.
    table.extend([1, 12, 8, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    for (uid, id) in (0_u32..).zip(apic_ids) {
        match u8::try_from(id) {
            Ok(id) if id != u8::MAX => {
                table.extend([0, 8, uid.to_le_bytes()[0], id, 1, 0, 0, 0]);
            }
            _ => {
                table.extend([9, 16, 0, 0]);
                for word in [id, 1, uid] {
                    table.extend(word.to_le_bytes());
                }
            }
        }
    }
    seal(&mut table);
    table
}

/// Sets length and checksum of an ACPI table. The table must have at least the 36 bytes of the
/// header.
pub fn seal(table: &mut [u8]) {
    let length = u32::try_from(table.len()).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(field) = table.get_mut(4..8) {
        field.copy_from_slice(&length);
    }
    let sum = table.iter().copied().fold(0, u8::wrapping_add);
    if let Some(checksum) = table.get_mut(9) {
        *checksum = checksum.wrapping_sub(sum);
    }
}

/// The folder that the host is written into.
struct Tree<'a> {
    folder: &'a Path,
}

impl Tree<'_> {
    /// Creates the folder of a path, and returns the path below the root.
    fn place(&self, path: &str) -> io::Result<std::path::PathBuf> {
        let place = self.folder.join(path.trim_start_matches('/'));
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(place)
    }

    fn create(&self, path: &str) -> io::Result<File> {
        File::create(self.place(path)?)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(path)?;
        // A socket, which stands for ENXIO, cannot be opened.
        if fs::symlink_metadata(&place).is_ok_and(|metadata| !metadata.is_file()) {
            fs::remove_file(&place)?;
        }
        fs::write(place, bytes)
    }

    fn line(&self, path: &str, text: &str) -> io::Result<()> {
        self.write(path, format!("{text}\n").as_bytes())
    }

    fn link(&self, path: &str, target: &str) -> io::Result<()> {
        symlink(target, self.place(path)?)
    }

    /// Makes a file that answers ENXIO, as `version` does without a module. The file is a socket,
    /// which cannot be opened.
    fn enxio(&self, path: &str) -> io::Result<()> {
        Ok(mknodat(CWD, self.place(path)?, FileType::Socket, Mode::RUSR, 0)?)
    }
}
