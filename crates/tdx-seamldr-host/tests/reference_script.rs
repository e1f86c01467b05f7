//! Faults of Intel's reference script `version_select_and_load.py`, each with what happens here.
//! `docs/reference-script.md` has the table; faults whose tests are elsewhere are not repeated
//! here.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::plan::{Request, Target, Verdict};
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::update::{Outcome, Progress, Report, Settings, Update};
use tdx_seamldr_host::{parse_version, Catalogue, Host, Plan, Releases, Root};

const TDX_HOST: &str = "sys/devices/faux/tdx_host";
const UPLOAD: &str = "sys/devices/faux/tdx_host/firmware/tdx_module";

/// Intel's images of the line 1.5. `None`: there are none, and the test says that it was skipped.
fn images() -> Option<PathBuf> {
    let folder = env::var_os("TDX_MODULE_BINARIES").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: TDX_MODULE_BINARIES does not name a folder with Intel's images");
    }
    folder.map(|folder| folder.join("joined_files/1.5"))
}

fn blob(version: &str) -> String {
    format!("tdx_module_{version}.blob")
}

/// A host with module 1.5.05 and 20 updates left.
fn tree() -> HostTree {
    HostTree::linux_7_2().module("1.5.05").remaining(20)
}

/// A host, and images that a test chooses.
struct World {
    folder: tempfile::TempDir,
    images: tempfile::TempDir,
}

impl World {
    /// The image of the running module is there: it shows how much memory there is.
    fn of(tree: &HostTree, released: &Path) -> Self {
        let world =
            Self { folder: tempfile::tempdir().unwrap(), images: tempfile::tempdir().unwrap() };
        tree.write(world.folder.path()).unwrap();
        world.with_images(released, &["1.5.05"])
    }

    fn root(&self) -> Root {
        Root::new(self.folder.path())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Puts Intel's images of these versions into the folder.
    fn with_images(self, released: &Path, versions: &[&str]) -> Self {
        for version in versions {
            let name = blob(version);
            symlink(released.join(&name), self.images.path().join(name)).unwrap();
        }
        self
    }

    fn with_file(self, name: &str, bytes: &[u8]) -> Self {
        fs::write(self.images.path().join(name), bytes).unwrap();
        self
    }

    /// Puts a `mapping_file.json` into the folder, with one release.
    fn with_mapping(
        self,
        version: &str,
        min_module: &str,
        min_seamldr: &str,
        features0: u64,
    ) -> Self {
        let text = format!(
            r#"{{"tdx_module_releases": [{{"version": "{version}", "min_module_version_for_td_preserving": "{min_module}",
                "min_seamldr_versions": ["{min_seamldr}"], "tdx_feature0": "{features0:#x}"}}]}}"#
        );
        self.with_file("mapping_file.json", text.as_bytes())
    }

    fn catalogue(&self) -> Catalogue {
        let mut catalogue = Catalogue::new(Releases::built_in());
        catalogue.add_folder(self.images.path());
        catalogue
    }

    fn plan(&self, request: &Request) -> Plan {
        Plan::new(&Host::read(&self.root()), &self.catalogue(), request)
    }

    /// Updates to 1.5.16.
    fn update(&self, limit: Duration, hear: &mut dyn FnMut(Progress<'_>)) -> Report {
        let update = Update {
            root: &self.root(),
            catalogue: &self.catalogue(),
            request: &target("1.5.16"),
            settings: &Settings { limit, ..Settings::default() },
            stop: &AtomicBool::new(false),
        };
        update.run(hear)
    }
}

fn vouched() -> Request {
    Request { no_td_launches: true, ..Request::default() }
}

fn target(version: &str) -> Request {
    Request { target: Target::Version(parse_version(version).unwrap()), ..vouched() }
}

fn codes(plan: &Plan) -> Vec<&'static str> {
    plan.reasons.iter().map(|reason| reason.code).collect()
}

/// Fault 2: the script takes the newest, and stops if that one does not fit.
#[test]
fn newest_image_that_does_not_fit_gives_way_to_an_older_one_that_does() {
    let Some(released) = images() else { return };
    let world = World::of(&tree(), &released).with_images(&released, &["1.5.08", "1.5.16"]);
    let newest = |world: &World| world.plan(&vouched()).steps[0].to.clone();
    assert_eq!(newest(&world).as_deref(), Some("1.5.16"));
    // The script's rule b: the newest needs a newer P-SEAMLDR.
    let world = world.with_mapping("1.5.16", "1.5.01", "1.5.09", 0);
    let plan = world.plan(&vouched());
    assert_eq!(
        (plan.verdict, newest(&world).as_deref()),
        (Verdict::Ready, Some("1.5.08")),
        "{plan:#?}"
    );
    let other =
        plan.candidates.iter().find(|one| one.version.as_deref() == Some("1.5.16")).unwrap();
    assert_eq!(other.reasons[0].code, "seamldr-minimum");
}

/// Fault 5: the script uploads what P-SEAMLDR refuses after the shutdown, when all TDs are lost.
#[test]
fn file_that_was_changed_anywhere_is_refused() {
    let Some(released) = images() else { return };
    let good = fs::read(released.join(blob("1.5.16"))).unwrap();
    let flipped = |offset: usize| {
        let mut bytes = good.clone();
        bytes[offset] ^= 1;
        bytes
    };
    let grown = [&good[..], &[0; 4096]].concat();
    let changed = [
        ("checksum", flipped(2)),
        ("reserved bytes of the header", flipped(100)),
        ("date of the SIGSTRUCT", flipped(4096 + 20)),
        ("modulus", flipped(4096 + 200)),
        ("signature", flipped(4096 + 600)),
        ("hash of the module", flipped(4096 + 900)),
        ("security version", flipped(4096 + 948)),
        ("first page of the module", flipped(8192 + 100)),
        ("last byte", flipped(good.len() - 1)),
        ("a page too long", grown),
        ("a page too short", good[..good.len() - 4096].to_vec()),
    ];
    for (what, bytes) in changed {
        let world = World::of(&tree(), &released).with_file(&blob("1.5.16"), &bytes);
        let report = world.update(Duration::from_secs(1), &mut |progress| {
            assert!(!matches!(progress, Progress::Sent(..)), "{what}: bytes went to the kernel");
        });
        assert_eq!(report.ending.outcome, Outcome::Refused, "{what}: {report:#?}");
        let is_named = !report.plan.reasons.is_empty() || !world.catalogue().problems().is_empty();
        assert!(is_named, "{what}: {report:#?}");
    }
}

/// Fault 5: the script knows the format v1 only, which Linux 7.2 does not take.
#[test]
fn image_of_format_v2_is_planned_like_one_of_v1() {
    let Some(released) = images() else { return };
    let good = fs::read(released.join(blob("1.5.16"))).unwrap();
    let parts = TdxImage::parse(&good).unwrap().parts();
    let mut bytes = vec![0; parts.file_len().unwrap()];
    parts.write(ImageFormat::ImageV2, &mut bytes).unwrap();
    let world = World::of(&tree(), &released).with_file("any-name", &bytes);
    let plan = world.plan(&vouched());
    assert_eq!(
        (plan.verdict, plan.steps[0].to.as_deref()),
        (Verdict::Ready, Some("1.5.16")),
        "{plan:#?}"
    );
}

/// Fault 7: the script looks at one CPU.
#[test]
fn processor_of_each_socket_has_to_be_in_the_images_list() {
    let Some(released) = images() else { return };
    for sockets in [[(0x806f8, 4), (0xa06d1, 4)], [(0xa06d1, 4), (0x806f8, 4)]] {
        let world =
            World::of(&tree().sockets(&sockets), &released).with_images(&released, &["1.5.16"]);
        let plan = world.plan(&target("1.5.16"));
        assert_eq!(plan.verdict, Verdict::Refused, "{plan:#?}");
        assert!(codes(&plan).contains(&"cpu"), "{plan:#?}");
    }
    let steppings = [(0x806f6, 4), (0x806f8, 4)];
    let world =
        World::of(&tree().sockets(&steppings), &released).with_images(&released, &["1.5.16"]);
    assert_eq!(world.plan(&target("1.5.16")).verdict, Verdict::Ready);
}

/// Fault 8: the script waits 10 s and fails, although the update may still run.
#[test]
fn kernel_that_takes_its_time_is_waited_for() {
    let Some(released) = images() else { return };
    assert!(Settings::default().limit > Duration::from_secs(60));
    let world = World::of(&tree(), &released).with_images(&released, &["1.5.16"]);
    let write = |path: String, text: &str| fs::write(world.path(&path), text).unwrap();
    let report = thread::scope(|threads| {
        world.update(Duration::from_secs(60), &mut |progress| {
            if let Progress::Committed = progress {
                write(format!("{UPLOAD}/status"), "transferring\n");
                threads.spawn(move || {
                    thread::sleep(Duration::from_millis(700));
                    write(format!("{TDX_HOST}/version"), "1.5.16\n");
                    write(format!("{TDX_HOST}/num_remaining_updates"), "19\n");
                    write(format!("{UPLOAD}/status"), "idle\n");
                });
            }
        })
    });
    assert_eq!(report.ending.outcome, Outcome::Updated, "{report:#?}");
}

/// Fault 10: the script reads TDX_FEATURES0 of each release and does not use it.
#[test]
fn module_that_refuses_to_break_tds_needs_no_word_on_them_where_the_kernel_asks_it() {
    let Some(released) = images() else { return };
    const UPDATE_COMPATIBILITY: u64 = 1 << 47;
    for (tree, of_table, of_file, asks) in [
        (HostTree::series_v6(), UPDATE_COMPATIBILITY, UPDATE_COMPATIBILITY, false),
        (HostTree::series_v6(), UPDATE_COMPATIBILITY, 0, true),
        // A file without a signature does not give the module a feature.
        (HostTree::series_v6(), 0, UPDATE_COMPATIBILITY, true),
        // Linux 7.2 does not ask the module to refuse.
        (HostTree::linux_7_2(), UPDATE_COMPATIBILITY, UPDATE_COMPATIBILITY, true),
    ] {
        let world = World::of(&tree.module("1.5.05").remaining(20), &released)
            .with_images(&released, &["1.5.16"])
            .with_mapping("1.5.05", "1.5.01", "1.5.00", of_file);
        let table =
            include_str!("../data/releases.csv").replace("0x61F0FBF", &format!("{of_table:#x}"));
        let mut catalogue = Catalogue::new(Releases::parse(&table).unwrap());
        catalogue.add_folder(world.images.path());
        let plan = Plan::new(&Host::read(&world.root()), &catalogue, &Request::default());
        let is_asked =
            plan.questions.iter().any(|question| question.code == "unknown-sensitive-operations");
        assert_eq!(is_asked, asks, "{plan:#?}");
    }
}

/// Fault 11: the script's list does not say what is incompatible.
#[test]
fn each_image_that_is_not_planned_says_why() {
    let Some(released) = images() else { return };
    let world = World::of(&tree(), &released).with_images(&released, &["1.5.08", "1.5.16"]);
    let newer = released.join("../2.0").join(blob("2.0.08"));
    let world = world.with_file(&blob("2.0.08"), &fs::read(newer).unwrap());
    let plan = world.plan(&vouched());
    for candidate in &plan.candidates {
        let codes: Vec<_> = candidate.reasons.iter().map(|reason| reason.code).collect();
        let (version, newer) = (candidate.version.as_deref().unwrap(), candidate.newer);
        match version {
            "1.5.16" | "1.5.08" => assert_eq!((codes, newer), (vec![], Some(true)), "{version}"),
            "1.5.05" => assert_eq!((codes, newer), (vec!["same-module"], Some(false)), "{version}"),
            _ => assert!(
                codes.contains(&"cpu") && codes.contains(&"platform"),
                "{version}: {codes:?}"
            ),
        }
    }
}

/// Fault 12: the script compares the third number of the minimum only.
#[test]
fn minimum_of_another_line_is_compared_whole() {
    let Some(released) = images() else { return };
    // 99 is more than 5, but 1.4.99 is older than 1.5.05. 02 is less than 5, but 2.0.02 is newer.
    for (min_module, verdict) in [("1.4.99", Verdict::Ready), ("2.0.02", Verdict::Refused)] {
        let world = World::of(&tree(), &released)
            .with_images(&released, &["1.5.16"])
            .with_mapping("1.5.16", min_module, "1.5.00", 0);
        let plan = world.plan(&target("1.5.16"));
        assert_eq!(plan.verdict, verdict, "{plan:#?}");
        assert_eq!(
            codes(&plan).contains(&"module-minimum"),
            verdict == Verdict::Refused,
            "{plan:#?}"
        );
    }
}

/// Fault 13: the script leaves the upload open if the kernel does not take the image.
#[test]
fn upload_that_fails_half_way_is_aborted() {
    let Some(released) = images() else { return };
    let world = World::of(&tree(), &released).with_images(&released, &["1.5.16"]);
    let data = world.path(&format!("{UPLOAD}/data"));
    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let report = world.update(Duration::from_secs(1), &mut |_| {});
    assert_eq!((report.ending.outcome, codes(&report.plan)), (Outcome::Refused, vec!["upload"]));
    assert_eq!(fs::read_to_string(world.path(&format!("{UPLOAD}/loading"))).unwrap(), "-1");
}
