//! A hypervisor in miniature that replaces the TDX module under its running TDs.
//!
//! The hypervisor boots in QEMU. The command line sets the number of CPUs (`cpus=4`). The program
//! loads a module, starts TDs and updates the module. A second update fails at the stage that the
//! command line names (`fault=cpu-install`). SEAMCALL is the real instruction. QEMU has no SEAM, so
//! the instruction raises #UD, and [`firmware`] answers it. All other parts work as on a machine
//! with TDX.
//!
//! [`update`] is the part that a hypervisor needs.
#![no_std]
#![no_main]

mod firmware;
mod machine;
mod update;

use core::ffi::CStr;

use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf, TdxStatus};
use tdx_seamldr_core::update::{NextStep, Outcome, TdFate};
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::model::{Answer, Fault};

use machine::{cpus, memory};

/// PVH's `hvm_start_info`, from QEMU. Only the command line is used.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
}

#[no_mangle]
extern "C" fn main_of_first(start: &'static StartInfo) -> ! {
    // SAFETY: the command line is a string that ends in a zero byte, and all memory is mapped.
    let command_line =
        unsafe { CStr::from_ptr(start.command_line as *const _) }.to_str().unwrap_or_default();
    let option = |name: &str| {
        command_line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let cpus = option("cpus").map_or(Some(1), |number| number.parse().ok());
    let Some(cpus) = cpus.filter(|count| (1..=cpus::MAX_CPUS as u32).contains(count)) else {
        print!("cpus= should be a number from 1 to {}", cpus::MAX_CPUS);
        machine::exit(false);
    };
    let fault = option("fault").unwrap_or("cpu-install");
    machine::exit(story(cpus, fault))
}

/// Returns a copy of an image that `build.rs` made.
macro_rules! image {
    ($name:literal) => {
        TdxImage::parse(memory::copy(include_bytes!(concat!(env!("OUT_DIR"), "/", $name))))
            .expect("build.rs makes images")
    };
}

/// Loads a module, updates it, and updates it again with a failure. `true` if each step has the
/// expected result.
fn story(cpus: u32, fault: &str) -> bool {
    cpus::start(cpus);
    print!("CPUs: {}", cpus::count());
    firmware::switch_on(cpus);

    print!("load a module");
    let old = image!("old.blob");
    if !load(&old) {
        return false;
    }
    print!("  running TDs: {}", firmware::tds_alive());

    print!("update to a newer one");
    let new = image!("new.blob");
    let Some(passed) = update::check(&new) else { return false };
    let outcome = update::update(&passed, &old);
    if !is_true(&outcome, TdFate::Preserved, Some(6)) {
        return false;
    }

    print!("update again, with a failure: {fault}");
    second_update(fault, cpus, &new)
}

/// Loads a module, configures it and starts TDs, as at boot. `false` if the module is not loaded.
fn load(image: &TdxImage<'static>) -> bool {
    if update::load(image).is_none_or(|outcome| outcome.next != NextStep::Configure) {
        return false;
    }
    update::configure();
    firmware::start_tds();
    true
}

/// Runs an update that fails at the stage that the command line names. `true` if the outcome is the
/// expected one.
fn second_update(fault: &str, cpus: u32, running: &TdxImage<'static>) -> bool {
    let newest = image!("newest.blob");
    let Some(passed) = update::check(&newest) else { return false };
    let update = || update::update(&passed, running);
    let once = |leaf: TdxLeaf, after: u32, status: TdxStatus| {
        let answer = Answer::Return { rax: status.0, rdx: 0 };
        firmware::plan(Fault { after, ..Fault::first(leaf.rax(0), answer) });
    };
    match fault {
        // The old module stays busy, so the update changes nothing.
        "shutdown" => {
            let answer = Answer::Return { rax: TdxStatus::SYS_BUSY.0, rdx: 0 };
            firmware::plan(Fault {
                times: u32::MAX,
                ..Fault::first(TdxLeaf::SYS_SHUTDOWN.rax(0), answer)
            });
            let outcome = update();
            firmware::repair();
            is_true(&outcome, TdFate::NeverAtRisk, Some(6))
        }
        // Preflight refuses an image with a wrong signature. After preflight a bit of the right
        // signature flips. P-SEAMLDR refuses the image, and the fallback, the old module, takes the
        // TDs back.
        "cpu-install" => {
            if update::check(&image!("forged.blob")).is_some() {
                return false;
            }
            firmware::flip(&newest.sigstruct().signature[0]);
            let outcome = update();
            outcome.image == 1 && is_true(&outcome, TdFate::Preserved, Some(6))
        }
        // The new module does not initialise on one CPU. P-SEAMLDR refuses the old module, which
        // has a lower SVN. The library installs the new module again, and the module initialises.
        "cpu-init" => {
            once(TdxLeaf::SYS_LP_INIT, cpus - 1, TdxStatus::INCONSISTENT_MSR);
            let outcome = update();
            outcome.image == 0 && is_true(&outcome, TdFate::Preserved, Some(7))
        }
        // The new module refuses the handoff data. The library installs it again, and the module
        // takes the data.
        "run-update" => {
            once(TdxLeaf::SYS_UPDATE, 0, TdxStatus::SYS_INVALID_HANDOFF);
            let outcome = update();
            outcome.image == 0 && is_true(&outcome, TdFate::Preserved, Some(7))
        }
        // INSTALL raises an exception on one CPU once. The library tries again.
        "trap" => {
            let trap = Answer::Trap(tdx_seamldr_core::Trap::GeneralProtection);
            firmware::plan(Fault {
                after: cpus / 2,
                ..Fault::first(SeamldrLeaf::Install.rax(), trap)
            });
            let outcome = update();
            outcome.image == 0 && is_true(&outcome, TdFate::Preserved, Some(7))
        }
        // Preflight refuses a damaged image. After preflight a bit of the good image flips.
        // P-SEAMLDR finds the damage after it destroyed the old module. No software can keep these
        // TDs, but TDX comes back.
        "point-of-no-return" => {
            if update::check(&image!("damaged.blob")).is_some() {
                return false;
            }
            firmware::flip(&newest.module()[9000]);
            let outcome = update();
            if outcome.next != NextStep::Load || !is_true(&outcome, TdFate::Lost, None) {
                return false;
            }
            print!("load a module, as the outcome says");
            // The image is copied to other memory, without the flipped bit.
            load(&image!("newest.blob"))
                && firmware::running_svn() == Some(7)
                && firmware::tds_alive() == 3
        }
        _ => {
            print!("there is no failure of this name");
            false
        }
    }
}

/// Whether the TDs have this fate, and the machine agrees.
fn is_true(outcome: &Outcome, wanted: TdFate, running: Option<u8>) -> bool {
    let (alive, svn) = (firmware::tds_alive(), firmware::running_svn());
    let all_alive = alive == 3;
    match svn {
        Some(minor) => print!("  running TDs: {alive}; the running module has SVN 1.{minor}"),
        None => print!("  running TDs: {alive}; no module runs"),
    }
    outcome.tds == wanted
        && all_alive == matches!(outcome.tds, TdFate::Preserved | TdFate::NeverAtRisk)
        && svn == running
}
