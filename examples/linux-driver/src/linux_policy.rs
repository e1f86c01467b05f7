// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles an upload like Linux 7.2's own driver, for the parameter `policy=linux`. The driver
//! checks the file's framing, shuts the module down, and gives up at the first failure. It does not
//! check CPUs, counters, hash or signature.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::prelude::*;
use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrLeaf, ShutdownRequest, TdxLeaf, TdxStatus};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::update::linux::Errno;
use tdx_seamldr_core::{
    CurrentVmcs, InstallError, InstallRequest, ModuleState, SeamcallBackend, Seamldr, TdxError,
    TdxImage, TdxModule,
};

use crate::kernel_side::{cpu, online_cpus, stop_machine, Kernel, Page, SeamldrLock};

/// ENOMEM.
const NO_MEMORY: Errno = Errno(12);

/// The CPU that calls the module in stages for one CPU.
const LEAD: u32 = 0;

/// The stages, in their order. Every CPU performs each stage between [`START`] and [`DONE`].
const START: u32 = 0;
const SHUTDOWN: u32 = 1;
const INSTALL: u32 = 2;
const INIT: u32 = 3;
const UPDATE: u32 = 4;
const DONE: u32 = 5;

/// The current stage. The last CPU to acknowledge a stage begins the next one.
struct Stages {
    stage: AtomicU32,
    acknowledged: AtomicU32,
    failed: AtomicU32,
}

impl Stages {
    const fn new() -> Self {
        Self {
            stage: AtomicU32::new(START + 1),
            acknowledged: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    fn have_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst) != 0
    }

    /// Calls `step` with each stage, until all stages are done or a CPU has failed.
    fn run(&self, step: impl Fn(u32) -> bool) {
        let mut stage = START;
        while stage != DONE && !self.have_failed() {
            let current = self.stage.load(Ordering::SeqCst);
            if current == stage {
                core::hint::spin_loop();
                continue;
            }
            stage = current;
            if !step(stage) {
                self.failed.fetch_add(1, Ordering::SeqCst);
            }
            let last = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1 == online_cpus();
            if last && stage != DONE && !self.have_failed() {
                self.acknowledged.store(0, Ordering::SeqCst);
                self.stage.store(stage + 1, Ordering::SeqCst);
            }
        }
    }
}

/// The calls of an update.
struct Calls<'a, B> {
    backend: &'a B,
    current_vmcs: CurrentVmcs,
    request: InstallRequest<'a>,
    state: &'a ModuleState,
}

/// A leaf and its status. `None` if the instruction failed, which Linux does not log.
struct Failed(u64, Option<u64>);

impl Failed {
    fn module(leaf: TdxLeaf, error: TdxError) -> Self {
        match error {
            TdxError::Trap(_) => Self(leaf.rax(0), None),
            TdxError::Status(status) => Self(leaf.rax(0), Some(status.0)),
        }
    }

    /// Linux treats every status except 0 as a failure.
    fn unless_zero(leaf: TdxLeaf, result: Result<TdxStatus, TdxError>) -> Result<(), Self> {
        match result {
            Ok(TdxStatus(0)) => Ok(()),
            Ok(status) => Err(Self(leaf.rax(0), Some(status.0))),
            Err(error) => Err(Self::module(leaf, error)),
        }
    }
}

impl<B: SeamcallBackend> Calls<'_, B> {
    /// Performs this CPU's part of a stage.
    fn make(&self, stage: u32, stages: &Stages) -> Result<(), Failed> {
        let host = Kernel::new(self.backend);
        let module = TdxModule::new(self.backend);
        let leads = cpu() == LEAD;
        match stage {
            SHUTDOWN if leads => {
                let hv = module.sys_rd(FieldId::MODULE_HV);
                let hv = hv.map_err(|error| Failed::module(TdxLeaf::SYS_RD, error))?.value as u16;
                let request = ShutdownRequest { hv, avoid_compat_sensitive: false };
                Failed::unless_zero(TdxLeaf::SYS_SHUTDOWN, module.sys_shutdown(request))?;
                self.state.reset();
            }
            INSTALL => {
                let leaf = SeamldrLeaf::Install.rax();
                let seamldr = Seamldr::new(&host, &SeamldrLock, self.current_vmcs);
                let seamldr = seamldr.map_err(|_| Failed(leaf, None))?;
                seamldr.install(&self.request).map_err(|error| match error {
                    InstallError::Refused { status, .. } => Failed(leaf, Some(status.0)),
                    InstallError::OtherMachine | InstallError::Trap(_) => Failed(leaf, None),
                })?;
            }
            INIT => {
                let enable = || module.enable_lp(self.state, cpu());
                while !enable().map_err(|(leaf, error)| Failed::module(leaf, error))? {
                    if stages.have_failed() {
                        break;
                    }
                    core::hint::spin_loop();
                }
            }
            UPDATE if leads => {
                Failed::unless_zero(TdxLeaf::SYS_UPDATE, module.sys_update())?;
                self.state.set_ready();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Updates the module as Linux does. After an `Err`, TDX is lost if `state` is not ready.
pub(crate) fn update<B: SeamcallBackend + Sync>(
    backend: &B,
    current_vmcs: CurrentVmcs,
    file: &[u8],
    state: &ModuleState,
) -> Result<(), Errno> {
    let image = TdxImage::parse_only(ImageFormat::ImageV2, file).map_err(|_| Errno::EINVAL)?;
    let mut params = Page::new().ok_or(NO_MEMORY)?;
    let host = Kernel::new(backend);
    let request = InstallRequest::build(params.get(), &image, Scenario::Update, &host);
    let calls =
        Calls { backend, current_vmcs, request: request.map_err(|_| Errno::EINVAL)?, state };
    let stages = Stages::new();
    stop_machine(&|| {
        stages.run(|stage| match calls.make(stage, &stages) {
            Ok(()) => true,
            Err(Failed(leaf, status)) => {
                if let Some(status) = status {
                    pr_err!("SEAMCALL (0x{:016x}) failed: 0x{:016x}\n", leaf, status);
                }
                false
            }
        });
    });
    if stages.have_failed() {
        return Err(Errno::EIO);
    }
    Ok(())
}
