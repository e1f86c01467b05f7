//! Updates of a tree of a host. The test answers as the kernel does, when the update reports
//! progress.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::plan::{Request, Target};
use tdx_seamldr_host::record::{Event, Journal};
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::update::{Outcome, Progress, Report, Settings, Update};
use tdx_seamldr_host::{parse_version, Catalogue, Releases, Root};

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

const UPLOAD: &str = "sys/devices/faux/tdx_host/firmware/tdx_module";
const TDX_HOST: &str = "sys/devices/faux/tdx_host";

/// A host with a kernel that answers as a test chooses.
struct World {
    folder: tempfile::TempDir,
    catalogue: Catalogue,
    request: Request,
    settings: Settings,
    stop: AtomicBool,
}

/// The kernel's answer to an upload.
#[derive(Clone, Copy)]
enum Kernel {
    /// Installs the module: version and remaining updates.
    Installs(&'static str, u32),
    /// Refuses with this error, before the module is shut down.
    Refuses(&'static str),
    /// Loses TDX with this error.
    Loses(&'static str),
    /// Never finishes.
    Hangs,
    /// Shows no status, and has no effect.
    Ignores,
}

impl World {
    /// A host of 4 LPs with 1.5.05.
    fn new() -> Self {
        Self::of(HostTree::linux_7_2().module("1.5.05").remaining(20).sockets(&[(0x806f8, 4)]))
    }

    fn of(tree: HostTree) -> Self {
        let binaries = PathBuf::from(env::var_os("TDX_MODULE_BINARIES").unwrap());
        let folder = tempfile::tempdir().unwrap();
        tree.write(folder.path()).unwrap();
        let mut catalogue = Catalogue::new(Releases::built_in());
        catalogue.add_folder(&binaries);
        Self {
            folder,
            catalogue,
            request: Request { no_td_launches: true, ..Request::default() },
            settings: Settings { limit: Duration::from_millis(300), ..Settings::default() },
            stop: AtomicBool::new(false),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn set(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn loading(&self) -> String {
        self.read(&format!("{UPLOAD}/loading"))
    }

    fn hook(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(&format!("etc/tdx-seamldr/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn answer(&self, kernel: Kernel) {
        let lose = || {
            let version = self.path(&format!("{TDX_HOST}/version"));
            fs::remove_file(&version).unwrap();
            // Opening a socket answers ENXIO, as the kernel does.
            drop(UnixListener::bind(version).unwrap());
        };
        let status = |status: &str| self.set(&format!("{UPLOAD}/status"), status);
        let error = |error: &str| self.set(&format!("{UPLOAD}/error"), error);
        match kernel {
            Kernel::Installs(version, remaining) => {
                self.set(&format!("{TDX_HOST}/version"), &format!("{version}\n"));
                self.set(&format!("{TDX_HOST}/num_remaining_updates"), &format!("{remaining}\n"));
            }
            Kernel::Refuses(said) => error(&format!("transferring:{said}\n")),
            Kernel::Loses(said) => {
                lose();
                error(&format!("transferring:{said}\n"));
            }
            Kernel::Hangs => return status("transferring\n"),
            Kernel::Ignores => {}
        }
        status("idle\n");
    }

    /// Runs the update. Calls `seen` with each event before the kernel answers.
    fn run(&self, kernels: &[Kernel], mut seen: impl FnMut(&Progress<'_>)) -> Report {
        let root = Root::new(self.folder.path());
        let update = Update {
            root: &root,
            catalogue: &self.catalogue,
            request: &self.request,
            settings: &self.settings,
            stop: &self.stop,
        };
        let mut kernels = kernels.iter();
        update.run(&mut |progress| {
            seen(&progress);
            if let Progress::Committed = progress {
                self.answer(*kernels.next().unwrap());
            }
        })
    }

    fn untouched(&self, report: &Report) {
        assert!(report.steps.is_empty(), "{report:#?}");
        assert_ne!(self.loading(), "0", "the last write was made");
        assert_eq!(self.read(&format!("{TDX_HOST}/version")), "1.5.05\n");
    }

    fn events(&self) -> Vec<Event> {
        let root = Root::new(self.folder.path());
        let records = Journal::new(&root, &self.settings.state).read().unwrap().records;
        records.into_iter().map(|record| record.event).collect()
    }
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.plan.reasons.iter().map(|reason| reason.code).collect()
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn update_uploads_the_verified_bytes_in_the_kernels_format_and_confirms() {
    let world = World::new();
    let report = world.run(&[Kernel::Installs("1.5.16", 19)], |_| {});
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
    assert_eq!(
        (report.ending.version.as_deref(), report.ending.remaining_updates),
        (Some("1.5.16"), Some(19))
    );
    let sent = fs::read(world.path(&format!("{UPLOAD}/data"))).unwrap();
    let sent = TdxImage::parse(&sent).unwrap();
    assert_eq!(sent.format(), ImageFormat::ImageV2);
    assert!(tdx_seamldr_verify::verify(&sent).is_genuine());
    assert_eq!(world.loading(), "0");
    let events = world.events();
    assert!(
        matches!(&events[0], Event::Began { from, to: Some(to), .. } if from == "1.5.05" && to == "1.5.16")
    );
    assert_eq!(events[1], Event::Committing);
    assert!(matches!(&events[2], Event::Ended { outcome, .. } if outcome == "updated"));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn kernels_of_the_series_get_format_v1() {
    let tree = HostTree::series_v6().module("1.5.05").remaining(20).sockets(&[(0x806f8, 4)]);
    let world = World::of(tree);
    let report = world.run(&[Kernel::Ignores], |progress| {
        if let Progress::Committed = progress {
            world.set(&format!("{TDX_HOST}/version"), "1.5.16");
            world.set(&format!("{TDX_HOST}/seamldr/num_remaining_updates"), "19");
        }
    });
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
    let sent = fs::read(world.path(&format!("{UPLOAD}/data"))).unwrap();
    assert_eq!(TdxImage::parse(&sent).unwrap().format(), ImageFormat::BlobV1);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn error_with_a_running_module_keeps_the_tds_and_without_one_loses_them() {
    let cases = [
        (Kernel::Refuses("firmware-invalid"), Outcome::FailedKept, "every failure"),
        (Kernel::Refuses("hw-error"), Outcome::FailedKept, "1.5.05 still runs"),
        (Kernel::Loses("firmware-invalid"), Outcome::Lost, "ENXIO"),
        (Kernel::Installs("1.5.08", 19), Outcome::Unknown, "instead of 1.5.16"),
        (Kernel::Installs("1.5.16", 20), Outcome::Unknown, "20 updates remain"),
        (
            Kernel::Ignores,
            Outcome::FailedKept,
            "but module 1.5.05 still runs, and the kernel counted no update",
        ),
        (Kernel::Hangs, Outcome::Unknown, "\"transferring\""),
    ];
    for (kernel, outcome, message) in cases {
        let world = World::new();
        let report = world.run(&[kernel], |_| {});
        assert_eq!(report.ending.outcome, outcome, "{report:#?}");
        assert!(report.ending.message.contains(message), "{report:#?}");
        assert!(report.ending.advice.is_some(), "{report:#?}");
        assert!(matches!(world.events().last(), Some(Event::Ended { outcome: word, .. }) if word
                == outcome.word()));
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn failure_shows_the_lines_that_the_kernel_wrote_meanwhile() {
    let tree = HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 4)]);
    let world = World::of(tree.file("/dev/kmsg", "6,1,1,-;virt/tdx: TDX-Module initialized\n"));
    let line = "SEAMCALL (0x8000000000000001) failed: 0x8000000000020000";
    let report = world.run(&[Kernel::Loses("firmware-invalid")], |progress| {
        if let Progress::Committed = progress {
            let before = world.read("dev/kmsg");
            world.set("dev/kmsg", &format!("{before}3,2,2,-;virt/tdx: {line}\n"));
        }
    });
    assert_eq!(report.ending.kernel_lines, [format!("virt/tdx: {line}")]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn refused_plan_touches_nothing_and_leaves_no_record() {
    let tree = HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 4)]).offline(&[2]);
    let world = World::of(tree);
    let report = world.run(&[], |_| {});
    assert_eq!((report.ending.outcome, codes(&report)), (Outcome::Refused, vec!["lps-missing"]));
    world.untouched(&report);
    assert!(world.events().is_empty());
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn update_without_a_vouch_is_refused_unless_a_hook_vouches() {
    let mut world = World::new();
    world.request.no_td_launches = false;
    let report = world.run(&[], |_| {});
    assert_eq!(
        (report.ending.outcome, codes(&report)),
        (Outcome::Refused, vec!["unknown-sensitive-operations"])
    );
    world.untouched(&report);
    world.hook("pre-update.d/10-nothing", "true");
    let report = world.run(&[], |_| {});
    assert_eq!(
        (report.ending.outcome, codes(&report)),
        (Outcome::Refused, vec!["unknown-sensitive-operations"])
    );
    world.untouched(&report);
    world.hook("pre-update.d/20-stop-launches", "echo vouch no-td-launches");
    let report = world.run(&[Kernel::Installs("1.5.16", 19)], |_| {});
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn failing_pre_update_hook_refuses_and_the_post_update_hook_runs_all_the_same() {
    let world = World::new();
    let note = world.path("note");
    world.hook("pre-update.d/10-fails", "echo no; exit 3");
    let text = format!(
        "echo $TDX_SEAMLDR_EVENT $TDX_SEAMLDR_FROM $TDX_SEAMLDR_TO $TDX_SEAMLDR_OUTCOME >> {}",
        note.display()
    );
    world.hook("post-update.d/10", &text);
    let mut lines = Vec::new();
    let report = world.run(&[], |progress| {
        if let Progress::HookLine(line) = progress {
            lines.push((*line).to_owned());
        }
    });
    assert_eq!((report.ending.outcome, codes(&report)), (Outcome::Refused, vec!["hook"]));
    world.untouched(&report);
    assert_eq!(lines, ["no"]);
    assert_eq!(fs::read_to_string(&note).unwrap(), "post-update 1.5.05 1.5.16 refused\n");
    fs::remove_file(world.path("etc/tdx-seamldr/pre-update.d/10-fails")).unwrap();
    world.run(&[Kernel::Loses("hw-error")], |_| {});
    assert!(fs::read_to_string(&note).unwrap().ends_with("post-update 1.5.05 1.5.16 lost\n"));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn hook_that_others_can_write_refuses_the_update() {
    let world = World::new();
    let hook = world.hook("post-update.d/10", "true");
    fs::set_permissions(hook, fs::Permissions::from_mode(0o777)).unwrap();
    let report = world.run(&[], |_| {});
    assert_eq!((report.ending.outcome, codes(&report)), (Outcome::Refused, vec!["hooks"]));
    world.untouched(&report);
    assert!(world.events().is_empty());
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn stop_before_the_last_write_aborts_and_afterwards_changes_nothing() {
    let world = World::new();
    let stop_at = |wanted: fn(&Progress<'_>) -> bool| {
        world.stop.store(false, Ordering::SeqCst);
        let stop = &world.stop;
        move |progress: &Progress<'_>| {
            if wanted(progress) {
                stop.store(true, Ordering::SeqCst);
            }
        }
    };
    for wanted in [
        |progress: &Progress<'_>| matches!(progress, Progress::Step(_)),
        |progress: &Progress<'_>| matches!(progress, Progress::Sent(sent, _) if *sent > 200_000),
        |progress: &Progress<'_>| matches!(progress, Progress::Sent(sent, total) if sent == total),
    ] {
        let report = world.run(&[], stop_at(wanted));
        assert_eq!(report.ending.outcome, Outcome::Aborted, "{report:#?}");
        world.untouched(&report);
        assert_eq!(world.loading(), "-1");
    }
    let report = world.run(
        &[Kernel::Installs("1.5.16", 19)],
        stop_at(|progress| matches!(progress, Progress::Committed)),
    );
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
}

/// The record of an attempt whose process was killed, in this boot.
const KILLED: &str = r#"{"schema":"tdx-seamldr/record/1","time":"2026-11-28T07:00:00Z","attempt":"a","boot":"b00t","event":{"event":"began","from":"1.5.05","to":null,"file":"a","mrseam":"7b"}}"#;

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn upload_that_was_left_behind_is_dropped_if_it_was_ours_and_one_that_runs_refuses() {
    let tree = || HostTree::linux_7_2().module("1.5.05").remaining(20).sockets(&[(0x806f8, 4)]);
    let boot = |boot: &str| tree().file("/proc/sys/kernel/random/boot_id", format!("{boot}\n"));
    for (tree, record, is_ours) in [
        (boot("b00t"), format!("{KILLED}\n"), true),
        (boot("other"), format!("{KILLED}\n"), false),
        (boot("b00t"), String::new(), false),
        (tree(), format!("{KILLED}\n"), false),
    ] {
        let world = World::of(tree.file("/var/lib/tdx-seamldr/history.jsonl", record));
        world.set(&format!("{UPLOAD}/loading"), "1\n");
        let mut dropped = 0;
        let report = world.run(&[Kernel::Installs("1.5.16", 19)], |progress| {
            dropped += usize::from(matches!(progress, Progress::LeftBehind));
        });
        if is_ours {
            assert_eq!((report.ending.outcome, dropped), (Outcome::Updated, 1), "{report:#?}");
        } else {
            assert_eq!(
                (report.ending.outcome, codes(&report), dropped),
                (Outcome::Refused, vec!["upload"], 0)
            );
            assert_eq!(world.loading(), "1\n", "another program may still be writing");
        }
    }
    let world = World::new();
    for busy in ["receiving", "preparing", "transferring", "programming", "unknown-status"] {
        world.set(&format!("{UPLOAD}/status"), busy);
        let report = world.run(&[], |_| {});
        assert_eq!(report.ending.outcome, Outcome::Refused, "{report:#?}");
        assert_eq!(world.loading(), "0\n", "{busy}: the other upload is left alone");
        assert!(report.steps.is_empty());
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn upload_that_another_program_changes_is_never_committed() {
    let changes: [(&str, &[u8], &str); 4] = [
        ("data", b"another image", "differs from the image that was written"),
        ("data", &[0; 500_000], "longer than"),
        ("loading", b"0", "should be \"1\""),
        ("loading", b"-1", "should be \"1\""),
    ];
    for (file, bytes, message) in changes {
        let world = World::new();
        let report = world.run(&[], |progress| {
            if matches!(progress, Progress::Sent(sent, total) if sent == total) {
                fs::write(world.path(&format!("{UPLOAD}/{file}")), bytes).unwrap();
            }
        });
        assert_eq!(
            (report.ending.outcome, codes(&report)),
            (Outcome::Refused, vec!["upload"]),
            "{report:#?}"
        );
        assert!(report.ending.message.contains(message), "{report:#?}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn version_that_only_a_file_name_claims_is_not_expected_afterwards() {
    let mut world = World::new();
    let binaries = PathBuf::from(env::var_os("TDX_MODULE_BINARIES").unwrap());
    let named = world.path("tdx_module_1.5.17.blob");
    fs::copy(binaries.join("joined_files/1.5/tdx_module_1.5.16.blob"), &named).unwrap();
    // A table without 1.5.16.
    let table: String = include_str!("../data/releases.csv")
        .lines()
        .filter(|line| !line.starts_with("1.5.16"))
        .fold(String::new(), |table, line| table + line + "\n");
    world.catalogue = Catalogue::new(Releases::parse(&table).unwrap());
    world.catalogue.add_folder(&binaries.join("joined_files/1.5"));
    let place = world
        .catalogue
        .images()
        .iter()
        .position(|image| image.path().ends_with("tdx_module_1.5.16.blob"));
    world.request.target = Target::Image(place.unwrap());
    let report = world.run(&[Kernel::Installs("1.5.17", 19)], |_| {});
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn host_that_changes_before_the_last_write_is_left_alone() {
    let changes: [(&str, &str); 3] = [
        ("sys/devices/system/cpu/online", "0-2"),
        ("sys/devices/faux/tdx_host/version", "1.5.08\n"),
        ("sys/devices/faux/tdx_host/num_remaining_updates", "7"),
    ];
    for (file, text) in changes {
        let world = World::new();
        let report = world.run(&[], |progress| {
            if let Progress::Sent(0, _) = progress {
                world.set(file, text);
            }
        });
        assert_eq!(
            (report.ending.outcome, codes(&report)),
            (Outcome::Refused, vec!["changed"]),
            "{report:#?}"
        );
        assert_eq!(world.loading(), "-1");
    }
    let world = World::new();
    let online = world.path("sys/devices/system/cpu/online");
    world.hook("pre-update.d/10", &format!("echo 0-2 > {}", online.display()));
    let report = world.run(&[], |_| {});
    assert_eq!(
        (report.ending.outcome, codes(&report)),
        (Outcome::Refused, vec!["lps-missing"]),
        "{report:#?}"
    );
    world.untouched(&report);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn second_update_at_once_is_refused() {
    let world = World::new();
    let mut second = None;
    let report = world.run(&[Kernel::Installs("1.5.16", 19)], |progress| {
        if let Progress::Sent(0, _) = progress {
            second = Some(world.run(&[], |_| {}));
        }
    });
    let second = second.unwrap();
    assert_eq!(
        (second.ending.outcome, codes(&second)),
        (Outcome::Refused, vec!["locked"]),
        "{second:#?}"
    );
    assert_eq!(report.ending.outcome, Outcome::Updated);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn plan_of_two_steps_makes_two_updates_and_stops_after_a_failure() {
    let mapping = |folder: &Path| {
        let entry = |version: &str, minimum: &str| {
            format!(
                r#"{{"version": "{version}", "min_module_version_for_td_preserving": "{minimum}",
                    "min_seamldr_versions": ["1.5.00"], "tdx_feature0": "0xF0FBF"}}"#
            )
        };
        let entries =
            [entry("1.5.05", "1.5.01"), entry("1.5.08", "1.5.05"), entry("1.5.16", "1.5.08")]
                .join(",");
        fs::write(
            folder.join("mapping_file.json"),
            format!(r#"{{"tdx_module_releases": [{entries}]}}"#),
        )
        .unwrap();
    };
    let world = || {
        let mut world = World::new();
        let folder = tempfile::tempdir().unwrap();
        mapping(folder.path());
        let mut catalogue = Catalogue::new(Releases::built_in());
        catalogue.add_folder(folder.path());
        catalogue.add_folder(Path::new(&env::var_os("TDX_MODULE_BINARIES").unwrap()));
        world.catalogue = catalogue;
        world
    };
    let (first, second) = (Kernel::Installs("1.5.08", 19), Kernel::Installs("1.5.16", 18));
    let good = world();
    let report = good.run(&[first, second], |_| {});
    assert_eq!((report.ending.outcome, report.steps.len()), (Outcome::Updated, 2), "{report:#?}");
    let failing = world();
    let report = failing.run(&[first, Kernel::Loses("hw-error")], |_| {});
    assert_eq!((report.ending.outcome, report.steps.len()), (Outcome::Lost, 2), "{report:#?}");
    let stopped = world();
    let report = stopped.run(&[first], |progress| {
        if let Progress::Committed = progress {
            stopped.set("sys/devices/system/cpu/online", "0-2");
        }
    });
    assert_eq!(
        (report.ending.outcome, report.steps.len()),
        (Outcome::FailedKept, 1),
        "{report:#?}"
    );
    assert!(report.ending.message.starts_with("after 1 of"), "{report:#?}");
    let interrupted = world();
    let report = interrupted.run(&[first], |progress| {
        if let Progress::Committed = progress {
            interrupted.stop.store(true, Ordering::SeqCst);
        }
    });
    assert_eq!(
        (report.ending.outcome, report.steps.len()),
        (Outcome::FailedKept, 1),
        "{report:#?}"
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn same_module_again_is_confirmed_by_the_counter() {
    let mut world = World::new();
    world.request.target = Target::Version(parse_version("1.5.05").unwrap());
    assert_eq!(world.run(&[], |_| {}).ending.outcome, Outcome::NothingToDo);
    world.request.allow_same_module = true;
    let report = world.run(&[Kernel::Installs("1.5.05", 19)], |_| {});
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
    let report = world.run(&[Kernel::Ignores], |_| {});
    assert_eq!(report.ending.outcome, Outcome::FailedKept, "{report:#?}");
}
