//! The platform of the guest: what the options make of it, what the BIOS does at power-on, and its
//! TDs.

use std::path::PathBuf;

use tdx_seamldr_core::abi::TdxLeaf;
use tdx_seamldr_core::image::ImageError;
use tdx_seamldr_core::{Crypto as _, TdxImage};
use tdx_seamldr_mock::model::{
    Config, ConfigError, LoaderProfile, ModuleState, PlanIsFull, Platform, SeamDb, SeamMemory,
    TdPhase,
};
use tdx_seamldr_mock::{boot, NotBooted, PageBuf, Tds, TestImage};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros as _;

use crate::options::{BootImage, Options};
use crate::processor::{Processor, PROCESSORS};

/// The most virtual CPUs.
const MAX_VCPUS: u32 = 255;

/// Why there is no such platform.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image's file cannot be read.
    #[error("image={path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no image.
    #[error("the image is no TDX module: {0}")]
    Image(#[from] ImageError),
    /// None of the processors is in the image's list.
    #[error("the image runs on none of the processors {names}; give processor=NAME to try one", names = PROCESSORS.map(|processor| processor.name).join(", "))]
    NoProcessor,
    /// The guest has too many CPUs, or none.
    #[error("QEMU's machine has {0} CPUs (-smp); 1 to {MAX_VCPUS} are possible")]
    Vcpus(u32),
    /// CPUs could be added later, of which firmware knows nothing.
    #[error("QEMU's machine has {vcpus} CPUs and could have {max} (-smp maxcpus); firmware counts LPs at boot, so both have to be the same. For LPs that are never online give extra-lps={extra}", extra = max.saturating_sub(*vcpus))]
    Hotplug {
        /// CPUs.
        vcpus: u32,
        /// CPUs at most.
        max: u32,
    },
    /// CPUs cannot be divided evenly.
    #[error("sockets={sockets}: QEMU's machine has {vcpus} CPUs, which is no multiple")]
    Sockets {
        /// CPUs.
        vcpus: u32,
        /// Sockets.
        sockets: u32,
    },
    /// The model does not make it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no memory.
    #[error("the host has no memory for the platform, which takes 2.3 MiB")]
    Memory,
    /// The signer of the image cannot be computed.
    #[error("the image's signer: {0}")]
    Signer(tdx_seamldr_core::CryptoUnavailable),
    /// P-SEAMLDR refuses the image at boot.
    #[error(
        "the BIOS cannot load the image: {refusal}; fitting are the options processor={processor} \
         and seamldr={seamldr}"
    )]
    Boot {
        /// What it says.
        refusal: NotBooted,
        /// A processor in the image's list.
        processor: &'static str,
        /// The generation of the image's line.
        seamldr: &'static str,
    },
    /// A fault is for an LP that the platform does not have.
    #[error("fault: lp={lp}, but the platform has {lps} LPs, numbered from 0")]
    FaultLp {
        /// The LP.
        lp: u32,
        /// LPs of the platform.
        lps: u32,
    },
    /// There are too many faults.
    #[error("option fault: {0}")]
    Faults(#[from] PlanIsFull),
}

/// What every power-on begins with.
#[derive(Clone, Debug)]
pub struct Settings {
    options: Options,
    image: PageBuf,
    /// The processor of all LPs.
    pub processor: Processor,
    /// What the platform is made of.
    pub config: Config,
}

impl Settings {
    /// Checks the options and QEMU's machine.
    ///
    /// # Errors
    ///
    /// There is no such platform.
    pub fn new(options: Options, vcpus: u32, max_vcpus: u32) -> Result<Self, StartError> {
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            return Err(StartError::Vcpus(vcpus));
        }
        if max_vcpus > vcpus {
            return Err(StartError::Hotplug { vcpus, max: max_vcpus });
        }
        let per_socket = vcpus.checked_div(options.sockets).unwrap_or(0);
        if per_socket.checked_mul(options.sockets) != Some(vcpus) {
            return Err(StartError::Sockets { vcpus, sockets: options.sockets });
        }
        let image = match &options.image {
            BootImage::Test => TestImage::default().build(),
            BootImage::File(path) => {
                let bytes = std::fs::read(path);
                PageBuf::copy_of(
                    &bytes.map_err(|error| StartError::Read { path: path.clone(), error })?,
                )
            }
        };
        let parsed = TdxImage::parse(image.as_bytes())?;
        let sigstruct = parsed.sigstruct();
        let fitting = Processor::fitting(sigstruct);
        let processor = options.processor.or(fitting).ok_or(StartError::NoProcessor)?;
        let profile = options.seamldr.unwrap_or_else(|| LoaderProfile::fitting(sigstruct));
        let signer = RustCrypto.sha384(&[&sigstruct.modulus]).map_err(StartError::Signer)?;
        let lps = vcpus.saturating_add(options.extra_lps);
        let mut config = Config::new(lps, options.sockets, processor.fms, signer, profile)?;
        // QEMU numbers the LPs of a socket without gaps, and its CPUs say how many there could be.
        let slots = lps.div_ceil(options.sockets).next_power_of_two();
        config.x2apic_stride = 1;
        config.package_shift = slots.trailing_zeros();
        config.addressable_lps_per_socket = slots;
        config.seamret_clears_vmcs = options.erratum;
        if let Some(lp) = options.faults.iter().filter_map(|fault| fault.lp).find(|lp| *lp >= lps) {
            return Err(StartError::FaultLp { lp, lps });
        }
        Ok(Self { options, image, processor, config })
    }

    /// Returns addresses where the guest must have no memory: the first address of each gap in the
    /// convertible memory.
    pub fn gaps(&self) -> impl Iterator<Item = u64> {
        let table = self.config.platform_table();
        table
            .cmrs
            .into_iter()
            .map(|cmr| cmr.base.get().saturating_add(cmr.size.get()))
            .filter(|end| *end != 0)
    }

    /// Returns the x2APIC ID that the CPU with this number must have.
    #[must_use]
    pub fn x2apic_id(&self, vcpu: u32) -> Option<u32> {
        self.config.x2apic_ids().nth(usize::try_from(vcpu).ok()?)
    }

    /// Does what firmware does before the operating system: P-SEAMLDR installs the image, called on
    /// each LP.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR refuses the image, or there is no memory.
    pub fn power_on(&self) -> Result<Simulated, StartError> {
        let size = self.options.remaining_updates.saturating_add(1);
        let seamdb = SeamDb { size, used: 0, insert_failures: 0 };
        let memory = SeamMemory::new_box_zeroed().map_err(|_| StartError::Memory)?;
        let mut model = Platform::new(self.config, seamdb, memory);
        let image = TdxImage::parse(self.image.as_bytes())?;
        boot(&mut model, &image, ModuleState::SysInitPending).map_err(|refusal| {
            let fitting = LoaderProfile::fitting(image.sigstruct());
            let seamldr = LoaderProfile::ALL.into_iter().find(|(_, known)| *known == fitting);
            StartError::Boot {
                refusal,
                processor: Processor::fitting(image.sigstruct())
                    .map_or("NAME", |fitting| fitting.name),
                seamldr: seamldr.map_or("NAME", |(name, _)| name),
            }
        })?;
        for fault in &self.options.faults {
            model.faults_mut().add(*fault)?;
        }
        let Options { tds, tds_in_build, tds_in_migration, .. } = self.options;
        let tds_to_come = vec![
            (tds, TdPhase::Running),
            (tds_in_build, TdPhase::Build),
            (tds_in_migration, TdPhase::InterruptedMigration),
        ];
        Ok(Simulated { model, tds: Tds::default(), tds_to_come })
    }
}

/// The platform, switched on.
#[derive(Debug)]
pub struct Simulated {
    /// The platform itself.
    pub model: Platform<Box<SeamMemory>>,
    /// Its TDs.
    pub tds: Tds,
    /// TDs that are made when a module is ready.
    tds_to_come: Vec<(u32, TdPhase)>,
}

impl Simulated {
    /// Makes the TDs that the options ask for, if this call has made the module ready for the first
    /// time: TDH.SYS.KEY.CONFIG, not TDH.SYS.UPDATE, which finds the TDs of the module before.
    /// Returns how many TDs found no room.
    pub fn after_call(&mut self, rax: u64) -> u32 {
        let is_ready =
            self.model.module().is_some_and(|module| module.state() == ModuleState::Ready);
        if self.tds_to_come.is_empty()
            || !is_ready
            || TdxLeaf::from_rax(rax) != TdxLeaf::SYS_KEY_CONFIG
        {
            return 0;
        }
        let mut without_room = 0u32;
        for (count, phase) in std::mem::take(&mut self.tds_to_come) {
            for _ in 0..count {
                if self.tds.create(&mut self.model, phase).is_err() {
                    without_room = without_room.saturating_add(1);
                }
            }
        }
        without_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_mock::released_images;

    /// Compiled again when the variable changes: `test_with` decides at compile time.
    const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

    fn settings(options: &[&str], vcpus: u32) -> Result<Settings, StartError> {
        Settings::new(Options::parse(options.iter().copied()).unwrap(), vcpus, vcpus)
    }

    #[test]
    fn the_bios_leaves_the_module_for_the_kernel_to_initialise() {
        let platform =
            settings(&["image=test", "remaining-updates=3"], 4).unwrap().power_on().unwrap();
        assert!(platform.model.module_is_callable());
        assert_eq!(platform.model.module().unwrap().state(), ModuleState::SysInitPending);
        assert_eq!(platform.model.loader().num_remaining_updates(), 3);
        assert_eq!(platform.model.lp_in_seamldr(), None);
    }

    #[test_with::env(TDX_MODULE_BINARIES)]
    #[test]
    fn each_released_image_is_loaded_by_the_p_seamldr_of_its_line() {
        for image in released_images().unwrap().unwrap() {
            let option = format!("image={}", image.path.display());
            let platform = settings(&[&option], 2).unwrap().power_on().unwrap();
            let version = platform.model.module().unwrap().build().version;
            assert_eq!(version.to_string(), image.version);
        }
    }

    #[test]
    fn fault_of_an_lp_that_does_not_exist_is_refused_at_the_start() {
        let options = |lp: u32| format!("fault=leaf=SEAMLDR.INSTALL:lp={lp}:delay=1");
        assert!(settings(&["image=test", &options(3)], 4).is_ok());
        let error = settings(&["image=test", &options(4)], 4).unwrap_err().to_string();
        assert!(error.contains("lp=4") && error.contains("4 LPs"), "{error}");
    }

    #[test]
    fn lps_have_the_ids_that_qemu_gives_them() {
        let ids = |options: &[&str], vcpus| {
            let settings = settings(options, vcpus).unwrap();
            (0..vcpus).map(|vcpu| settings.x2apic_id(vcpu).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&["image=test"], 6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(ids(&["image=test", "sockets=2"], 6), [0, 1, 2, 4, 5, 6]);
        assert_eq!(ids(&["image=test", "extra-lps=4"], 4), [0, 1, 2, 3]);
    }

    #[test]
    fn lps_beyond_the_cpus_are_counted() {
        let settings = settings(&["image=test", "extra-lps=4"], 4).unwrap();
        assert_eq!(settings.config.num_lps, 8);
        let platform = settings.power_on().unwrap();
        assert_eq!(platform.model.x2apic_id(7), Some(7));
    }

    #[test]
    fn a_machine_that_does_not_fit_is_refused_with_what_to_change() {
        for (options, vcpus, max, words) in [
            (&["image=test"][..], 0, 0, "has 0 CPUs"),
            (&["image=test"], 256, 256, "256 CPUs"),
            (&["image=test"], 4, 8, "extra-lps=4"),
            (&["image=test", "sockets=3"], 4, 4, "no multiple"),
            (&["image=/does/not/exist"], 4, 4, "image=/does/not/exist: "),
            (&["image=/proc/self/status"], 4, 4, "no TDX module"),
        ] {
            let options = Options::parse(options.iter().copied()).unwrap();
            let message = Settings::new(options, vcpus, max).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn an_image_that_p_seamldr_refuses_at_boot_is_refused_with_the_options_that_fit() {
        let settings = settings(&["image=test", "processor=granite-rapids"], 2).unwrap();
        let message = settings.power_on().unwrap_err().to_string();
        assert!(
            message.contains("EUNSUPCPU") && message.contains("processor=sapphire-rapids"),
            "{message}"
        );
    }
}
