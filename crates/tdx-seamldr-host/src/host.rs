//! The host: all facts on TDX that user space can read, each with its source.

mod interface;
mod json;
mod lps;
mod read;

use serde::Serialize;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxVersion;

pub use crate::cpu_list::CpuList;
pub use crate::host::lps::MissingLps;
pub(crate) use crate::host::read::UPLOAD;

use crate::fact::Fact;

/// The facts on a host that user space can read.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release, e.g. `7.2.1-amd64`. Source: `/proc/sys/kernel/osrelease`.
    pub kernel: Fact<String>,
    /// The kernel's command line. Source: `/proc/cmdline`.
    pub command_line: Fact<String>,
    /// The kernel's interface for updates, or why the kernel has none.
    pub interface: Result<Interface, NoInterface>,
    /// The version of the running module. [`Reason::NoDevice`](crate::fact::Reason::NoDevice): TDX
    /// is not initialised, or lost until a reboot. Source: `tdx_host/version`.
    pub module: Fact<TdxVersion>,
    /// The version of P-SEAMLDR. Source: `tdx_host/seamldr_version` or `tdx_host/seamldr/version`;
    /// for root only.
    pub seamldr: Fact<TdxVersion>,
    /// The number of updates that remain until a reboot. Source: `tdx_host/num_remaining_updates`
    /// or `tdx_host/seamldr/num_remaining_updates`; for root only.
    pub remaining_updates: Fact<u32>,
    /// The status of the firmware upload. Source: `/sys/class/firmware/tdx_module/status`.
    pub upload_status: Fact<String>,
    /// The processor of each socket, in the order of the sockets. Source: `/proc/cpuinfo`.
    pub sockets: Fact<Vec<Socket>>,
    /// The LPs that the kernel knows. Source: `/sys/devices/system/cpu/present`.
    pub present: Fact<CpuList>,
    /// The LPs that are online. Source: `/sys/devices/system/cpu/online`.
    pub online: Fact<CpuList>,
    /// The LPs of the platform, for which P-SEAMLDR waits. Source: the ACPI MADT.
    pub platform: Fact<PlatformLps>,
    /// Whether SMT is in use. Source: `/sys/devices/system/cpu/smt/control`.
    pub smt: Fact<String>,
    /// Whether the processor has the flag `tdx_host_platform`. Source: `/proc/cpuinfo`.
    pub tdx_flag: Fact<bool>,
    /// Whether the processor has the bug `seamret_invd_vmcs`. Source: `/proc/cpuinfo`.
    pub erratum: Fact<bool>,
    /// IA32_VMX_BASIC (0x480). Source: `/dev/cpu/N/msr`, N the first LP online.
    pub vmx_basic: Fact<u64>,
    /// IA32_SEAMRR_PHYS_BASE (0x1400). Source: `/dev/cpu/N/msr`.
    pub seamrr_base: Fact<u64>,
    /// IA32_SEAMRR_PHYS_MASK (0x1401). Source: `/dev/cpu/N/msr`.
    pub seamrr_mask: Fact<u64>,
    /// IA32_SGX_DEBUG_MODE (0x503). Source: `/dev/cpu/N/msr`.
    pub debug_mode: Fact<u64>,
    /// CPUID leaf 4, subleaf 3: EAX, EBX, ECX, EDX. Source: `/dev/cpu/N/cpuid`.
    pub cache_leaf: Fact<[u32; 4]>,
    /// KVM's parameter for TDX: `Y` or `N`. Source: `/sys/module/kvm_intel/parameters/tdx`.
    pub kvm_tdx: Fact<String>,
    /// Files of TDX modules on the EFI system partition, e.g. `/boot/efi/EFI/TDX/TDX-SEAM.so`. The
    /// firmware may load one of them at the next boot. None of them shows which module runs.
    pub staged: Vec<String>,
}

/// The kernel's interface for updates of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// Linux 7.2: flat files `tdx_host/seamldr_version`, and images of format v2.
    Flat,
    /// Versions 5 to 7 of the patch series: the folder `tdx_host/seamldr`, and images of format
    /// v1.
    Folder,
}

impl Interface {
    /// Returns the files with P-SEAMLDR's version and the remaining updates, relative to the device
    /// `tdx_host`.
    #[must_use]
    pub const fn seamldr_files(self) -> [&'static str; 2] {
        match self {
            Self::Flat => ["seamldr_version", "num_remaining_updates"],
            Self::Folder => ["seamldr/version", "seamldr/num_remaining_updates"],
        }
    }

    /// Returns the format of the images that the kernel takes.
    #[must_use]
    pub const fn image_format(self) -> ImageFormat {
        match self {
            Self::Flat => ImageFormat::ImageV2,
            Self::Folder => ImageFormat::BlobV1,
        }
    }
}

/// The first reason why the kernel has no interface for updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum NoInterface {
    /// The processor's flags have no `tdx_host_platform`.
    #[error(
        "the processor has no TDX, or TDX is off in the BIOS: /proc/cpuinfo has no flag \
         tdx_host_platform"
    )]
    NoTdx,
    /// The processor loses its VMCS pointer on return from P-SEAMLDR.
    #[error(
        "the processor loses its VMCS pointer on return from P-SEAMLDR (seamret_invd_vmcs): \
         install newer microcode"
    )]
    Erratum,
    /// The kernel has no driver `tdx_host`, it is not loaded, or it found no TDX module and left.
    #[error(
        "the kernel has no device tdx_host: updates need Linux 7.2 or later with \
         CONFIG_TDX_HOST_SERVICES, the module tdx-host loaded, and TDX initialised (look for \
         \"TDX\" in the kernel's log)"
    )]
    NoDriver,
    /// The driver is loaded, but TDX is not initialised.
    #[error(
        "the TDX module is not initialised, or was lost: reboot, and look for \"TDX\" in the \
         kernel's log"
    )]
    NotInitialised,
    /// The driver is loaded, but it offers no upload.
    #[error(
        "the driver tdx_host offers no upload: the module cannot hand its TDs over, or the kernel \
         is too old"
    )]
    NoUpload,
    /// A file of the interface is missing.
    #[error("the interface is incomplete: {missing} is missing")]
    Incomplete {
        /// The file.
        missing: String,
    },
}

/// The processor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The socket's number (physical id).
    pub id: u32,
    /// Family, as Linux shows it.
    pub family: u32,
    /// Model, as Linux shows it.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Microcode, if Linux shows it.
    pub microcode: Option<u32>,
    /// The number of LPs of the socket that are online.
    pub online_lps: u32,
}

impl Socket {
    /// Returns CPUID.1:EAX with family, model and stepping, and type 0.
    #[must_use]
    pub const fn signature(&self) -> u32 {
        let (extended, base) = if self.family >= 0xf {
            (self.family.saturating_sub(0xf), 0xf)
        } else {
            (0, self.family)
        };
        (extended & 0xff) << 20
            | (self.model >> 4 & 0xf) << 16
            | base << 8
            | (self.model & 0xf) << 4
            | self.stepping & 0xf
    }
}

/// The LPs in the ACPI MADT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlatformLps {
    /// The number of enabled LPs.
    pub enabled: u32,
    /// The highest x2APIC ID of an enabled LP.
    pub highest_x2apic_id: u32,
}
