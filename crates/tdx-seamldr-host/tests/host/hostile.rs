//! Hostile folders: each file is refused with its name, without blocking or panic.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use rustix::fs::{mknodat, FileType, Mode, CWD};
use tdx_seamldr_host::fact::{Absent, Fact, Reason};
use tdx_seamldr_host::host::NoInterface;
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::{Host, Root};
use tempfile::TempDir;

use crate::{read, write};

/// The text files that hold one fact each.
const FILES: [&str; 12] = [
    "/proc/sys/kernel/osrelease",
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/sys/devices/faux/tdx_host/version",
    "/sys/devices/faux/tdx_host/seamldr_version",
    "/sys/devices/faux/tdx_host/num_remaining_updates",
    "/sys/class/firmware/tdx_module/status",
    "/sys/devices/system/cpu/present",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/smt/control",
    "/sys/firmware/acpi/tables/APIC",
    "/sys/module/kvm_intel/parameters/tdx",
];

/// Returns why the fact of each of [`FILES`] is absent. `None` if it is known.
fn absences(host: &Host) -> [Option<Absent>; 12] {
    fn absent<T>(fact: &Fact<T>) -> Option<Absent> {
        fact.as_ref().err().cloned()
    }
    [
        absent(&host.kernel),
        absent(&host.command_line),
        absent(&host.sockets),
        absent(&host.module),
        absent(&host.seamldr),
        absent(&host.remaining_updates),
        absent(&host.upload_status),
        absent(&host.present),
        absent(&host.online),
        absent(&host.smt),
        absent(&host.platform),
        absent(&host.kvm_tdx),
    ]
}

/// Asserts that each file is refused by name for this reason after the change.
fn assert_refused(reason: Reason, problem: &str, files: &[&str], change: fn(&Path)) {
    for path in files {
        let folder = write(&HostTree::linux_7_2());
        let root = Root::new(folder.path());
        let place = root.path(path).unwrap();
        fs::remove_file(&place).unwrap();
        change(&place);
        let host = Host::read(&root);
        let index = FILES.iter().position(|file| file == path).unwrap();
        let absent = absences(&host)[index].clone().unwrap_or_else(|| panic!("{path} was read"));
        assert_eq!((absent.reason, absent.source.as_str()), (reason, *path), "{absent}");
        assert!(absent.problem.contains(problem), "{absent}");
        let others = absences(&host).into_iter().flatten().filter(|absent| absent.source != *path);
        assert_eq!(others.count(), 0, "{path}");
        let json = serde_json::to_string(&host).unwrap();
        assert!(json.contains(path), "{json}");
    }
}

#[test]
fn missing_files_are_named() {
    // The files of P-SEAMLDR have their own test: without one of them the interface is incomplete.
    assert_refused(Reason::Missing, "does not exist", &FILES, |_| {});
}

#[test]
fn folders_in_place_of_files_are_refused() {
    assert_refused(Reason::Unreadable, "is a folder", &FILES, |place| {
        fs::create_dir(place).unwrap()
    });
}

#[test]
fn fifos_do_not_block() {
    assert_refused(Reason::Unreadable, "is a FIFO", &FILES, |place| {
        mknodat(CWD, place, FileType::Fifo, Mode::RWXU, 0).unwrap();
    });
}

#[test]
fn links_that_lead_to_themselves_are_refused() {
    assert_refused(Reason::Unreadable, "40 links", &FILES, |place| {
        symlink(place.file_name().unwrap(), place).unwrap();
    });
}

#[test]
fn files_that_are_too_long_are_refused() {
    assert_refused(Reason::Malformed, "is longer than", &FILES, |place| {
        // A file with a hole uses no disk space.
        File::create(place).unwrap().set_len(65 << 20).unwrap();
    });
}

#[test]
fn binary_files_are_refused() {
    let text: Vec<&str> = FILES.into_iter().filter(|file| !file.ends_with("APIC")).collect();
    assert_refused(Reason::Malformed, "not UTF-8", &text, |place| {
        fs::write(place, [0xff; 64]).unwrap()
    });
}

#[test]
fn empty_files_are_refused() {
    // An empty list of LPs is valid, and so is an empty command line.
    let files = [FILES[2], FILES[3], FILES[4], FILES[5], FILES[10]];
    assert_refused(Reason::Malformed, "", &files, |place| drop(File::create(place).unwrap()));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let files = [FILES[2], FILES[3], FILES[4], FILES[5], FILES[7], FILES[8]];
    assert_refused(Reason::Malformed, "99999999999999999999", &files, |place| {
        let is_cpuinfo = place.ends_with("proc/cpuinfo");
        let text =
            if is_cpuinfo { "processor : 99999999999999999999" } else { "99999999999999999999" };
        fs::write(place, text).unwrap();
    });
}

#[test]
fn values_with_a_sign_or_more_lines_are_refused() {
    for text in ["-1\n", "+1\n", "1\n\n", "1 \n", "0x1\n", "1\n2\n"] {
        let path = "/sys/devices/faux/tdx_host/num_remaining_updates";
        let host = read(&HostTree::linux_7_2().file(path, text));
        assert_eq!(host.remaining_updates.unwrap_err().reason, Reason::Malformed, "{text:?}");
    }
}

#[test]
fn unreadable_files_say_that_root_may_read_them() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may read every file");
        return;
    }
    assert_refused(Reason::Permission, "only root", &FILES, |place| {
        File::create(place).unwrap().set_permissions(Permissions::from_mode(0o000)).unwrap();
    });
}

#[test]
fn files_for_root_do_not_hide_the_interface() {
    let host = Host {
        seamldr: Err(Absent {
            source: FILES[4].to_owned(),
            reason: Reason::Permission,
            problem: "only root may read this file".to_owned(),
        }),
        ..read(&HostTree::linux_7_2())
    };
    assert!(host.is_root_needed());
    assert!(!read(&HostTree::linux_7_2()).is_root_needed());
}

#[test]
fn registers_that_end_early_are_refused() {
    let host =
        read(&HostTree::linux_7_2().file("/dev/cpu/0/msr", "short").file("/dev/cpu/0/cpuid", ""));
    let absent = host.seamrr_base.unwrap_err();
    assert_eq!(absent.reason, Reason::Unreadable);
    assert!(absent.problem.contains("IA32_SEAMRR_PHYS_BASE (0x1400)"), "{absent}");
    assert_eq!(host.cache_leaf.unwrap_err().reason, Reason::Unreadable);
}

#[test]
fn empty_folder_has_no_driver() {
    let folder = TempDir::new().unwrap();
    let host = Host::read(&Root::new(folder.path()));
    assert_eq!(host.interface, Err(NoInterface::NoDriver));
    let missing = absences(&host).into_iter().map(|absent| absent.map(|absent| absent.reason));
    assert_eq!(missing.collect::<Vec<_>>(), [Some(Reason::Missing); 12]);
}

#[test]
fn missing_folder_has_no_driver() {
    let host = Host::read(&Root::new("/nonexistent/folder"));
    assert_eq!(host.interface, Err(NoInterface::NoDriver));
}
