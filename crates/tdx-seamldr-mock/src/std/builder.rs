//! Builds a platform, and says why a platform did not come up.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use tdx_seamldr_core::image::ImageError;
use tdx_seamldr_core::{
    BuildError, Crypto, InstallError, MachineId, ModuleState, SeamldrError, Sha384Digest, TdxError,
    TdxImage,
};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros;

use super::host_memory::HostMemory;
use super::platform::{Inner, SimPlatform};
use super::tds::Tds;
use crate::model::{self, Config, ConfigError, LoaderProfile, SeamDb, SeamMemory};
use crate::TEST_SIGNER;

/// Why a platform did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// No platform can have this configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The copy of the image that firmware reads is not an image.
    #[error("the boot image cannot be read: {0}")]
    Image(#[from] ImageError),
    /// The image does not fit into SEAMLDR_PARAMS.
    #[error("the boot image cannot be installed: {0}")]
    Build(#[from] BuildError),
    /// There is no memory for another platform.
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// P-SEAMLDR refused the image.
    #[error("the boot image was not installed: {0}")]
    Install(#[from] InstallError),
    /// P-SEAMLDR did not answer after the module was installed.
    #[error("P-SEAMLDR could not be asked after booting: {0}")]
    Seamldr(#[from] SeamldrError),
    /// The module did not come up.
    #[error("the boot module did not come up: {0}")]
    Module(#[from] TdxError),
    /// A package has no LP, and the module waits for this package.
    #[error("the boot module is not ready after every LP has called TDH.SYS.KEY.CONFIG")]
    NotReady,
}

/// The configuration of a platform that is to be booted.
#[derive(Clone, Debug)]
pub struct Builder {
    lps: u32,
    sockets: u32,
    fms: u32,
    signer: Sha384Digest,
    profile: LoaderProfile,
    seamdb: SeamDb,
    host_page_size: usize,
    patience: u32,
    yielding: Option<fn()>,
    crypto: Provider,
    offline: BTreeSet<u32>,
}

/// The hash and signature implementation that the firmware uses.
#[derive(Clone, Copy)]
pub(super) struct Provider(pub(super) &'static (dyn Crypto + Sync));

impl core::fmt::Debug for Provider {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl Builder {
    /// See [`SimPlatform::builder`].
    pub(super) const fn new() -> Self {
        Self {
            lps: 4,
            sockets: 1,
            fms: 0x806f8,
            signer: TEST_SIGNER,
            profile: LoaderProfile::V1_5_00,
            seamdb: SeamDb { size: 64, used: 0, insert_failures: 0 },
            host_page_size: 4096,
            patience: 100_000_000,
            yielding: None,
            crypto: Provider(&RustCrypto),
            offline: BTreeSet::new(),
        }
    }

    /// Sets the number of LPs. Default: 4.
    #[must_use]
    pub const fn lps(mut self, lps: u32) -> Self {
        self.lps = lps;
        self
    }

    /// Sets the number of sockets. Default: 1.
    #[must_use]
    pub const fn sockets(mut self, sockets: u32) -> Self {
        self.sockets = sockets;
        self
    }

    /// Sets the kind of processor (CPUID.1:EAX). Default: 0x806F8.
    #[must_use]
    pub const fn fms(mut self, fms: u32) -> Self {
        self.fms = fms;
        self
    }

    /// Sets the processor to the first one in the image's CPU list, and P-SEAMLDR to the generation
    /// of the image. The trusted signer does not change.
    #[must_use]
    pub fn fitting(self, image: &TdxImage<'_>) -> Self {
        let sigstruct = image.sigstruct();
        let fms = sigstruct.cpus().first().map_or(self.fms, |cpu| cpu.get());
        self.fms(fms).profile(LoaderProfile::fitting(sigstruct))
    }

    /// Sets the signer that P-SEAMLDR trusts. Default: [`TEST_SIGNER`].
    #[must_use]
    pub const fn signer(mut self, signer: Sha384Digest) -> Self {
        self.signer = signer;
        self
    }

    /// Sets the generation of P-SEAMLDR. Default: 1.5.00.
    #[must_use]
    pub const fn profile(mut self, profile: LoaderProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Sets how many modules can be installed, including the one at boot. Default: 64.
    #[must_use]
    pub const fn seamdb_size(mut self, size: u32) -> Self {
        self.seamdb.size = size;
        self
    }

    /// Sets the host's page size in bytes, 4096 to 65536. Default: 4096.
    #[must_use]
    pub const fn host_page_size(mut self, size: usize) -> Self {
        self.host_page_size = size;
        self
    }

    /// Sets how often a waiting LP looks at the other LPs before it gives up. Default: 100 million.
    #[must_use]
    pub const fn patience(mut self, looks: u32) -> Self {
        self.patience = looks;
        self
    }

    /// Sets the function that an LP calls wherever another LP may overtake it: when it enters
    /// firmware, inside firmware, and while it waits. A test can use it as a scheduler.
    ///
    /// Default: [`std::thread::yield_now`]. By default, [`boot`](Self::boot),
    /// [`run_on_threads`](crate::run_on_threads) and [`run_stepped`](crate::run_stepped) call it
    /// only while an LP waits.
    #[must_use]
    pub const fn yielding(mut self, yielding: fn()) -> Self {
        self.yielding = Some(yielding);
        self
    }

    /// Sets the hash and signature implementation of the firmware. Default: [`RustCrypto`]. Tests
    /// that repeat the same update can use one that caches its results.
    #[must_use]
    pub const fn crypto(mut self, crypto: &'static (dyn Crypto + Sync)) -> Self {
        self.crypto = Provider(crypto);
        self
    }

    /// Takes an LP offline after boot. Firmware counts this LP, and the LP takes part in booting.
    #[must_use]
    pub fn offline(mut self, lp: u32) -> Self {
        self.offline.insert(lp);
        self
    }

    /// Boots the platform. Firmware loads `image`, which has to pass all checks of P-SEAMLDR, and
    /// every LP initialises the module.
    ///
    /// # Errors
    ///
    /// See [`BootError`].
    pub fn boot(self, image: &TdxImage<'_>) -> Result<SimPlatform, BootError> {
        let config = Config::new(self.lps, self.sockets, self.fms, self.signer, self.profile)?;
        let platform = SimPlatform {
            num_lps: self.lps,
            patience: self.patience,
            yielding: self.yielding,
            crypto: self.crypto,
            offline: self.offline,
            inner: Mutex::new(Inner {
                model: model::Platform::new(config, self.seamdb, seam_memory()?),
                calls: 0,
                trace: Vec::new(),
                tds: Tds::new(),
            }),
            memory: HostMemory::new(self.host_page_size),
            module_state: ModuleState::new(),
            machine: next_machine(),
        };
        platform.load(image)?;
        platform.memory.forget();
        platform.clear_trace();
        Ok(platform)
    }
}

/// Returns a number that no other platform of this process has. No answer of a platform depends on
/// this number.
fn next_machine() -> MachineId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    MachineId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Allocates the memory of a platform.
pub(super) fn seam_memory() -> Result<Box<SeamMemory>, NoMemory> {
    SeamMemory::new_box_zeroed().map_err(|_| NoMemory)
}

/// There is no memory for another platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for another platform; each takes 2.3 MiB")]
pub struct NoMemory;
