//! All public functions of the core. Those with type parameters are listed here, for a kernel's
//! types; `cargo xtask embed-check` makes the list of the others, sees that none is missing, and
//! links this. The link fails if any of them can reach a panic.
#![no_std]
#![no_main]

mod kernel;

use core::fmt::Debug;
use core::ops::Deref;

use kernel::Kernel;
use tdx_seamldr_core::abi::{SeamldrFeatures0, TdxFeatures0};
use tdx_seamldr_core::preflight::elf::{self, ElfHeader};
use tdx_seamldr_core::preflight::{self, Facts, PassedImage};
use tdx_seamldr_core::update::Update;
use tdx_seamldr_core::{Crypto, Host, InstallRequest, Lock, LpBits, SeamcallBackend};

type Cpu = tdx_seamldr_core::update::Cpu<'static, Kernel, Kernel>;
type ModuleState = tdx_seamldr_core::ModuleState<[LpBits; 128]>;
type Seamldr = tdx_seamldr_core::Seamldr<'static, Kernel, Kernel>;
type TdxModule = tdx_seamldr_core::TdxModule<'static, Kernel>;

extern "C" {
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never linked.
    unsafe { a_panic_can_be_reached() }
}

#[allow(unused_imports, dead_code)] // after a failure, parts of the list are tried
mod public {
    use core::fmt::{Binary, Debug, Display, LowerHex, Octal, UpperHex};
    use core::hash::{Hash, Hasher};
    use core::ops::{
        BitAnd, BitAndAssign, BitOr, BitOrAssign, BitXor, BitXorAssign, Not, Sub, SubAssign,
    };

    use bitflags::Flags;
    use tdx_seamldr_core::{Crypto, Lock};

    /// Takes everything and does nothing.
    struct NoHasher;

    impl Hasher for NoHasher {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, _: &[u8]) {}
    }

    include!(env!("PUBLIC_FUNCTIONS"));
}

macro_rules! functions {
    ($($function:expr),* $(,)?) => { [$($function as *const ()),*] };
}

/// Where those with type parameters are.
#[no_mangle]
pub fn probe_all() -> [*const (); 60] {
    functions![
        Cpu::new,
        Cpu::run,
        Cpu::step,
        Cpu::abandon,
        Cpu::fmt,
        Facts::gather::<Kernel, Kernel>,
        InstallRequest::build::<Kernel>,
        ModuleState::new,
        ModuleState::default,
        ModuleState::deref,
        ModuleState::fmt,
        PassedImage::prepare::<Kernel>,
        Seamldr::new,
        Seamldr::host,
        Seamldr::info,
        Seamldr::install,
        Seamldr::seam_info,
        Seamldr::seamldr_call,
        Seamldr::shutdown,
        Seamldr::clone,
        Seamldr::fmt,
        SeamldrFeatures0::extend::<[SeamldrFeatures0; 2]>,
        SeamldrFeatures0::from_iter::<[SeamldrFeatures0; 2]>,
        TdxFeatures0::extend::<[TdxFeatures0; 2]>,
        TdxFeatures0::from_iter::<[TdxFeatures0; 2]>,
        TdxModule::new,
        TdxModule::enable_lp,
        TdxModule::features0,
        TdxModule::sys_config,
        TdxModule::sys_disable,
        TdxModule::sys_init,
        TdxModule::sys_key_config,
        TdxModule::sys_lp_init,
        TdxModule::sys_lp_shutdown,
        TdxModule::sys_rd,
        TdxModule::sys_shutdown,
        TdxModule::sys_tdmr_init,
        TdxModule::sys_update,
        TdxModule::sys_update_v1,
        TdxModule::tdx_call,
        TdxModule::version,
        TdxModule::clone,
        TdxModule::fmt,
        Update::finish::<Kernel>,
        Update::load::<Kernel>,
        Update::new::<Kernel>,
        Update::resume::<Kernel>,
        elf::read::<ElfHeader>,
        preflight::preflight::<Kernel>,
        preflight::preflight_image::<Kernel>,
        <Kernel as Crypto>::rsa3072_verify,
        <Kernel as Crypto>::sha384,
        <Kernel as Host>::current_lp,
        <Kernel as Host>::machine,
        <Kernel as Host>::num_lps,
        <Kernel as Host>::phys_addr,
        <Kernel as Host>::relax,
        <Kernel as Lock>::acquire,
        <Kernel as Lock>::release,
        <&Kernel as SeamcallBackend>::seamcall,
    ]
}
