//! A hypervisor in miniature that replaces the TDX module under its running TDs.
//!
//! It boots in QEMU with as many CPUs as the command line says (`cpus=4`), loads a module, starts TDs, updates the module, and then
//! does so once more, with something going wrong at a stage that the command line names (`fault=cpu-install`). SEAMCALL is the real
//! instruction. Since QEMU has no SEAM it raises #UD, and [`firmware`] answers it; all else is as on a machine with TDX.
//!
//! [`update`] is the part for those who write the same for their hypervisor.
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

/// What QEMU tells about the start: only where the command line is.
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
    // SAFETY: the command line is text that ends in a zero, and mapped like all memory.
    let command_line = unsafe { CStr::from_ptr(start.command_line as *const _) }.to_str().unwrap_or_default();
    let option = |name: &str| {
        command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let cpus = option("cpus").map_or(Some(1), |number| number.parse().ok());
    let Some(cpus) = cpus.filter(|count| (1..=cpus::MAX_CPUS as u32).contains(count)) else {
        print!("cpus= should be a number from 1 to {}", cpus::MAX_CPUS);
        machine::exit(false);
    };
    let fault = option("fault").unwrap_or("cpu-install");
    machine::exit(story(cpus, fault))
}

/// The image of a module that came with this program.
macro_rules! image {
    ($name:literal) => {
        TdxImage::parse(memory::copy(include_bytes!(concat!(env!("OUT_DIR"), "/", $name))))
            .expect("build.rs makes images")
    };
}

/// Everything in order; whether it ended as it should.
fn story(cpus: u32, fault: &str) -> bool {
    cpus::start(cpus);
    print!("{} CPUs", cpus::count());
    firmware::switch_on(cpus);

    print!("load a module");
    let old = image!("old.blob");
    let loaded = update::load(&old);
    if loaded.next != NextStep::Configure {
        return false;
    }
    update::configure();
    firmware::start_tds();
    print!("  {} TDs run", firmware::tds_alive());

    print!("update to a newer one");
    let new = image!("new.blob");
    let Some(options) = update::check(&new) else { return false };
    let outcome = update::update(&new, &old, options);
    if !is_true(&outcome, &[TdFate::Preserved], Some(6)) {
        return false;
    }

    print!("update again, with a failure: {fault}");
    second_update(fault, cpus, &new)
}

/// An update that goes wrong at some stage, and what the library makes of it.
fn second_update(fault: &str, cpus: u32, running: &TdxImage<'static>) -> bool {
    let newest = image!("newest.blob");
    let Some(options) = update::check(&newest) else { return false };
    let once = |leaf: TdxLeaf, after: u32, status: TdxStatus| {
        let answer = Answer::Return { rax: status.0, rdx: 0 };
        firmware::plan(Fault { after, ..Fault::first(leaf.rax(0), answer) });
    };
    match fault {
        // The old module goes on being busy: nothing has happened.
        "shutdown" => {
            let answer = Answer::Return { rax: TdxStatus::SYS_BUSY.0, rdx: 0 };
            firmware::plan(Fault { times: u32::MAX, ..Fault::first(TdxLeaf::SYS_SHUTDOWN.rax(0), answer) });
            let outcome = update::update(&newest, running, options);
            firmware::repair();
            is_true(&outcome, &[TdFate::NeverAtRisk], Some(6))
        }
        // P-SEAMLDR refuses the image, as preflight has said it would: the module that ran before takes the TDs back.
        "cpu-install" => {
            let forged = image!("forged.blob");
            let foreseen = update::check(&forged).is_none();
            print!("  in spite of that:");
            let outcome = update::update(&forged, running, options);
            foreseen && outcome.image == 1 && is_true(&outcome, &[TdFate::Preserved], Some(6))
        }
        // The new module does not come up on one CPU. The one that ran before has a lower SVN, so P-SEAMLDR does not take it back; the
        // new one is put in place once more, and comes up.
        "cpu-init" => {
            once(TdxLeaf::SYS_LP_INIT, cpus - 1, TdxStatus::INCONSISTENT_MSR);
            let outcome = update::update(&newest, running, options);
            outcome.image == 0 && is_true(&outcome, &[TdFate::Preserved], Some(7))
        }
        // The new module does not take the handoff data: the same.
        "run-update" => {
            once(TdxLeaf::SYS_UPDATE, 0, TdxStatus::SYS_INVALID_HANDOFF);
            let outcome = update::update(&newest, running, options);
            outcome.image == 0 && is_true(&outcome, &[TdFate::Preserved], Some(7))
        }
        // A CPU's INSTALL raises an exception, once: that passes by itself.
        "trap" => {
            let trap = Answer::Trap(tdx_seamldr_core::Trap::GeneralProtection);
            firmware::plan(Fault { after: cpus / 2, ..Fault::first(SeamldrLeaf::Install.rax(), trap) });
            let outcome = update::update(&newest, running, options);
            outcome.image == 0 && is_true(&outcome, &[TdFate::Preserved], Some(7))
        }
        // P-SEAMLDR finds the image damaged when the old module is gone already: no TD can be kept, but TDX comes back.
        "point-of-no-return" => {
            let damaged = image!("damaged.blob");
            let foreseen = update::check(&damaged).is_none();
            print!("  in spite of that:");
            let outcome = update::update(&damaged, running, options);
            if !foreseen || outcome.next != NextStep::Load || !is_true(&outcome, &[TdFate::Lost], None) {
                return false;
            }
            print!("load a module, as the outcome says");
            if update::load(&newest).next != NextStep::Configure {
                return false;
            }
            update::configure();
            firmware::start_tds();
            firmware::running_svn() == Some(7) && firmware::tds_alive() == 3
        }
        _ => {
            print!("there is no failure of this name");
            false
        }
    }
}

/// Whether an outcome is one of those wanted and says what the machine knows to be true.
fn is_true(outcome: &Outcome, wanted: &[TdFate], running: Option<u8>) -> bool {
    let (alive, svn) = (firmware::tds_alive(), firmware::running_svn());
    let all_alive = alive == 3;
    match svn {
        Some(minor) => print!("  {alive} TDs run; the module that runs has SVN 1.{minor}"),
        None => print!("  {alive} TDs run; no module does"),
    }
    wanted.contains(&outcome.tds)
        && all_alive == matches!(outcome.tds, TdFate::Preserved | TdFate::NeverAtRisk)
        && svn == running
}
