//! The processors that a guest can see, and what their CPUID and RDMSR add to QEMU's.

use std::fmt;

use tdx_seamldr_core::abi::{SeamSigstruct, VMX_BASIC_SEAMRET_PRESERVES_VMCS};
use tdx_seamldr_host::Platform;
use tdx_seamldr_mock::model::Config;

/// A processor with TDX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its name in the options.
    pub name: &'static str,
    /// CPUID.1:EAX, with a stepping that was sold.
    pub fms: u32,
}

/// All of them, oldest first.
pub const PROCESSORS: [Processor; 4] = [
    Processor { name: "sapphire-rapids", fms: Platform::Spr.processor() },
    Processor { name: "emerald-rapids", fms: Platform::Emr.processor() },
    Processor { name: "granite-rapids", fms: Platform::Gnr.processor() },
    Processor { name: "sierra-forest", fms: Platform::Srf.processor() },
];

/// The bits of a physical address, KeyID bits included.
pub const ADDRESS_BITS: u32 = 46;
/// The bits of the KeyID. QEMU's CPUs have the other 40 bits by default.
pub const KEYID_BITS: u32 = 6;
/// The number of KeyIDs of MKTME. The KeyIDs of TDX follow.
const MKTME_KEYIDS: u64 = 31;

impl Processor {
    /// Returns the first processor that the image lists.
    #[must_use]
    pub fn fitting(sigstruct: &SeamSigstruct) -> Option<Self> {
        PROCESSORS.into_iter().find(|processor| sigstruct.lists_cpu(processor.fms))
    }

    /// Returns the family, as QEMU's `-cpu` takes it.
    const fn family(self) -> u32 {
        self.fms >> 8 & 0xf
    }

    /// Returns the model, as QEMU's `-cpu` takes it.
    const fn model(self) -> u32 {
        self.fms >> 12 & 0xf0 | self.fms >> 4 & 0xf
    }

    /// Returns the value that QEMU's option `-cpu` must have.
    #[must_use]
    pub fn cpu_option(self) -> String {
        let (family, model, stepping) = (self.family(), self.model(), self.fms & 0xf);
        format!("max,family={family},model={model},stepping={stepping},vendor=GenuineIntel,+ss")
    }
}

/// What CPUID returns, and for which leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the registers' own names
pub struct Cpuid {
    pub leaf: u32,
    pub subleaf: u32,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// A virtual CPU that is not the processor of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The vendor is not Intel.
    Vendor,
    /// CPUID.1:EAX has another family or model.
    Fms(u32),
    /// The CPU does not snoop its own cache. Linux then uses no TDX.
    NoSelfSnoop,
    /// The APIC ID is not the one that firmware expects.
    ApicId {
        /// CPUID.1:EBX, bits 31:24.
        found: u32,
        /// What the platform expects.
        expected: u32,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vendor => f.write_str("its vendor is not GenuineIntel"),
            Self::Fms(fms) => write!(f, "CPUID.1:EAX is {fms:#x}"),
            Self::NoSelfSnoop => {
                f.write_str("it has no self-snoop (CPUID.1:EDX bit 27), which Linux wants for TDX")
            }
            Self::ApicId { found, expected } => {
                write!(f, "its APIC ID is {found}, but the platform expects {expected}")
            }
        }
    }
}

const LEAF_1_ECX_VMX: u32 = 1 << 5;
const LEAF_1_EDX_SELF_SNOOP: u32 = 1 << 27;
const LEAF_7_ECX_TME: u32 = 1 << 13;
const LEAF_7_ECX_MOVDIR64B: u32 = 1 << 28;

impl Processor {
    /// Checks what QEMU's CPU says, before it is [completed](complete).
    ///
    /// # Errors
    ///
    /// It is not this processor.
    pub fn check(self, cpuid: &Cpuid, x2apic_id: Option<u32>) -> Result<(), Misfit> {
        match cpuid.leaf {
            0 if [cpuid.ebx, cpuid.edx, cpuid.ecx].map(u32::to_le_bytes).concat()
                != b"GenuineIntel" =>
            {
                Err(Misfit::Vendor)
            }
            1 if cpuid.eax >> 4 != self.fms >> 4 => Err(Misfit::Fms(cpuid.eax)),
            1 if cpuid.edx & LEAF_1_EDX_SELF_SNOOP == 0 => Err(Misfit::NoSelfSnoop),
            1 => match (cpuid.ebx >> 24, x2apic_id) {
                (found, Some(expected)) if found != expected & 0xff => {
                    Err(Misfit::ApicId { found, expected })
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Adds what a processor with TDX has and QEMU's CPU lacks: VMX, MOVDIR64B, TME, and address bits
/// for KeyIDs.
#[must_use]
pub fn complete(mut cpuid: Cpuid) -> Cpuid {
    match (cpuid.leaf, cpuid.subleaf) {
        (1, _) => cpuid.ecx |= LEAF_1_ECX_VMX,
        (7, 0) => cpuid.ecx |= LEAF_7_ECX_TME | LEAF_7_ECX_MOVDIR64B,
        (0x8000_0008, _) => cpuid.eax = cpuid.eax & !0xff | ADDRESS_BITS,
        _ => {}
    }
    cpuid
}

/// Leaves whose results are checked or completed.
pub const LEAVES: [u32; 4] = [0, 1, 7, 0x8000_0008];

/// Returns the value of an MSR that QEMU does not have, or has otherwise.
#[must_use]
pub fn msr(config: &Config, index: u32) -> Option<u64> {
    Some(match index {
        // IA32_FEATURE_CONTROL: locked, VMXON outside SMX.
        0x3a => 1 << 2 | 1,
        // IA32_MKTME_KEYID_PARTITIONING.
        0x87 => ((1 << KEYID_BITS) - 1 - MKTME_KEYIDS) << 32 | MKTME_KEYIDS,
        // IA32_MTRRCAP: QEMU's value, and SEAMRR.
        0xfe => 1 << 15 | 0x508,
        // IA32_VMX_BASIC: revision, region of 4 KiB, write-back, true controls. SEAMRET keeps the
        // current VMCS, unless the platform has the erratum.
        0x480 => {
            let preserves = VMX_BASIC_SEAMRET_PRESERVES_VMCS;
            let keeps_vmcs = if config.seamret_clears_vmcs { 0 } else { preserves };
            keeps_vmcs | 1 << 55 | 6 << 50 | 0x1000 << 32 | 0x5a
        }
        // What VMX can do: no VM can be entered here.
        0x481..=0x493 => 0,
        // IA32_TME_CAPABILITY and IA32_TME_ACTIVATE: AES-XTS-128, locked and enabled.
        0x981 => u64::from(KEYID_BITS) << 32 | ((1 << KEYID_BITS) - 1) << 36 | 1,
        0x982 => 1 << 48 | u64::from(KEYID_BITS) << 32 | 1 << 1 | 1,
        // IA32_SEAMRR_PHYS_BASE: configured.
        0x1400 => config.seamrr_base | 1 << 3,
        // IA32_SEAMRR_PHYS_MASK: enabled and locked.
        0x1401 => {
            let addresses = (1u64 << (ADDRESS_BITS - KEYID_BITS)).wrapping_sub(1);
            addresses & !config.seamrr_size.wrapping_sub(1) | 1 << 11 | 1 << 10
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::TdxImage;
    use tdx_seamldr_mock::model::LoaderProfile;
    use tdx_seamldr_mock::released_images;

    /// Compiled again when the variable changes: `test_with` decides at compile time.
    const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

    fn config() -> Config {
        Config::new(4, 1, 0x806f8, [0; 48], LoaderProfile::V1_5_00).unwrap()
    }

    #[test]
    fn the_option_for_qemu_names_family_model_and_stepping() {
        let options = PROCESSORS.map(Processor::cpu_option);
        assert_eq!(options[0], "max,family=6,model=143,stepping=8,vendor=GenuineIntel,+ss");
        assert!(options[1].contains("model=207,stepping=2"));
        assert!(options[2].contains("model=173,stepping=1"));
        assert!(options[3].contains("model=175,stepping=3"));
    }

    #[test_with::env(TDX_MODULE_BINARIES)]
    #[test]
    fn each_released_image_has_a_processor() {
        for image in released_images().unwrap().unwrap() {
            let parsed = TdxImage::parse(image.bytes.as_bytes()).unwrap();
            let fitting = Processor::fitting(parsed.sigstruct()).unwrap();
            let expected =
                if image.version.starts_with("2.") { "granite-rapids" } else { "sapphire-rapids" };
            assert_eq!(fitting.name, expected, "{}", image.version);
        }
    }

    #[test]
    fn a_cpu_that_is_not_the_processor_is_told_from_it() {
        let processor = PROCESSORS[0];
        let [ebx, edx, ecx] = [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes);
        let vendor = Cpuid { ebx, ecx, edx, ..Cpuid::default() };
        assert_eq!(processor.check(&vendor, None), Ok(()));
        assert_eq!(processor.check(&Cpuid { ebx: 0, ..vendor }, None), Err(Misfit::Vendor));
        let one = Cpuid { leaf: 1, eax: 0x806f1, ebx: 3 << 24, edx: 1 << 27, ..Cpuid::default() };
        assert_eq!(
            processor.check(&one, Some(3)),
            Ok(()),
            "another stepping is the same processor"
        );
        assert_eq!(processor.check(&one, Some(0x103)), Ok(()), "the APIC ID has 8 bits there");
        assert_eq!(processor.check(&one, Some(4)), Err(Misfit::ApicId { found: 3, expected: 4 }));
        assert_eq!(
            processor.check(&Cpuid { eax: 0xc06f2, ..one }, None),
            Err(Misfit::Fms(0xc06f2))
        );
        assert_eq!(processor.check(&Cpuid { edx: 0, ..one }, None), Err(Misfit::NoSelfSnoop));
    }

    /// The command reads the same registers.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_registers_tell_the_platform_that_the_model_simulates() {
        use tdx_seamldr_x86_64::{CpuidResult, Processor as Probed, Registers};
        struct Vcpu(Config);
        impl Registers for Vcpu {
            fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
                let eax = match leaf {
                    0 => 0x1f,
                    0x8000_0000 => 0x8000_0008,
                    1 => 0x806f8,
                    _ => 40,
                };
                let edx = if leaf == 1 { 1 << 12 } else { 0 };
                let Cpuid { eax, ebx, ecx, edx, .. } =
                    complete(Cpuid { leaf, subleaf, eax, edx, ..Cpuid::default() });
                CpuidResult { eax, ebx, ecx, edx }
            }
            fn msr(&self, index: u32) -> Option<u64> {
                msr(&self.0, index).or(Some(0))
            }
        }
        let config = config();
        let probed = Probed::probe(&Vcpu(config));
        assert_eq!(probed.check(), Ok(()));
        let memory = probed.shared_memory().unwrap();
        assert_eq!(u32::from(memory.address_bits), config.max_pa);
        assert_eq!(u32::from(memory.keyid_bits), config.keyid_bits);
        assert_eq!(u64::from(memory.first_private_keyid), config.private_hkid_min);
        assert_eq!(
            (memory.seam_range_base, memory.seam_range_size),
            (config.seamrr_base, config.seamrr_size)
        );
        let erratum = Config { seamret_clears_vmcs: true, ..config };
        assert_ne!(Probed::probe(&Vcpu(erratum)).current_vmcs(), probed.current_vmcs());
    }

    #[test]
    fn leaves_that_are_completed_are_those_that_are_looked_at() {
        for leaf in (0..0x30).chain(0x8000_0000..0x8000_0030) {
            let cpuid = Cpuid { leaf, ..Cpuid::default() };
            assert!(complete(cpuid) == cpuid || LEAVES.contains(&leaf), "{leaf:#x}");
        }
    }
}
