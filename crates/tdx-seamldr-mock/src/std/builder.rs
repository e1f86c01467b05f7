//! How a platform comes to be: what it is to be like, and why it did not come up.

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
    /// There is no such platform.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The copy of the image that firmware reads is no image.
    #[error("the boot image cannot be read: {0}")]
    Image(#[from] ImageError),
    /// The image cannot be handed to P-SEAMLDR.
    #[error("the boot image cannot be installed: {0}")]
    Build(#[from] BuildError),
    /// There is no memory for the platform.
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// P-SEAMLDR refused the image.
    #[error("the boot image was not installed: {0}")]
    Install(#[from] InstallError),
    /// P-SEAMLDR could not be asked.
    #[error("P-SEAMLDR could not be asked after booting: {0}")]
    Seamldr(#[from] SeamldrError),
    /// The module did not come up.
    #[error("the boot module did not come up: {0}")]
    Module(#[from] TdxError),
    /// The module waits for a package that has no LP.
    #[error("the boot module is not ready after every LP has called TDH.SYS.KEY.CONFIG")]
    NotReady,
}

/// What a platform is to be like.
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

/// Whoever hashes and verifies for the firmware.
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

    /// So many LPs; otherwise 4.
    #[must_use]
    pub const fn lps(mut self, lps: u32) -> Self {
        self.lps = lps;
        self
    }

    /// So many sockets; otherwise 1.
    #[must_use]
    pub const fn sockets(mut self, sockets: u32) -> Self {
        self.sockets = sockets;
        self
    }

    /// Processors of this kind (CPUID.1:EAX); otherwise 0x806F8.
    #[must_use]
    pub const fn fms(mut self, fms: u32) -> Self {
        self.fms = fms;
        self
    }

    /// Processors of the first kind in the image's list, and a P-SEAMLDR of the image's line. Whom
    /// it trusts remains as it is.
    #[must_use]
    pub fn fitting(self, image: &TdxImage<'_>) -> Self {
        let sigstruct = image.sigstruct();
        let fms = sigstruct.cpus().first().map_or(self.fms, |cpu| cpu.get());
        self.fms(fms).profile(LoaderProfile::fitting(sigstruct))
    }

    /// P-SEAMLDR trusts this signer; otherwise [`TEST_SIGNER`].
    #[must_use]
    pub const fn signer(mut self, signer: Sha384Digest) -> Self {
        self.signer = signer;
        self
    }

    /// This generation of P-SEAMLDR; otherwise 1.5.00.
    #[must_use]
    pub const fn profile(mut self, profile: LoaderProfile) -> Self {
        self.profile = profile;
        self
    }

    /// So many modules can be installed, the one at boot included; otherwise 64.
    #[must_use]
    pub const fn seamdb_size(mut self, size: u32) -> Self {
        self.seamdb.size = size;
        self
    }

    /// The host's own pages have this size, 4096 to 65536; otherwise 4096.
    #[must_use]
    pub const fn host_page_size(mut self, size: usize) -> Self {
        self.host_page_size = size;
        self
    }

    /// An LP that waits gives up after so many looks at the others; otherwise after 100 million.
    #[must_use]
    pub const fn patience(mut self, looks: u32) -> Self {
        self.patience = looks;
        self
    }

    /// What an LP calls where others may come before it: on the way into firmware and inside of it,
    /// and while it waits. Otherwise [`std::thread::yield_now`]; [`boot`](Self::boot),
    /// [`run_on_threads`](crate::run_on_threads) and [`run_stepped`](crate::run_stepped) then
    /// call it only while an LP waits. The place for a scheduler that tries orders out.
    #[must_use]
    pub const fn yielding(mut self, yielding: fn()) -> Self {
        self.yielding = Some(yielding);
        self
    }

    /// Firmware hashes and verifies with this; otherwise with [`RustCrypto`]. For tests that do the
    /// same many times, and remember.
    #[must_use]
    pub const fn crypto(mut self, crypto: &'static (dyn Crypto + Sync)) -> Self {
        self.crypto = Provider(crypto);
        self
    }

    /// This LP is there when firmware counts, and takes part in booting, but goes offline then.
    #[must_use]
    pub fn offline(mut self, lp: u32) -> Self {
        self.offline.insert(lp);
        self
    }

    /// Boots: firmware loads `image`, which passes all of P-SEAMLDR's checks, and the module comes
    /// up on every LP.
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

/// A number that no other platform of this process has. Nothing that a platform answers depends on
/// it.
fn next_machine() -> MachineId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    MachineId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Memory for a platform, from the heap.
pub(super) fn seam_memory() -> Result<Box<SeamMemory>, NoMemory> {
    SeamMemory::new_box_zeroed().map_err(|_| NoMemory)
}

/// There is no memory for a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for another platform; each takes 2.3 MiB")]
pub struct NoMemory;
