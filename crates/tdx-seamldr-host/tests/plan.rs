//! Plans for trees of hosts, with Intel's released images.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tdx_seamldr_core::preflight::{Unknown, Unknowns};
use tdx_seamldr_host::plan::{Plan, Request, Target, Verdict};
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::{parse_version, Catalogue, Host, Releases, Root};

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

/// Returns the folder with Intel's images.
fn binaries() -> PathBuf {
    PathBuf::from(env::var_os("TDX_MODULE_BINARIES").unwrap())
}

fn host(tree: HostTree) -> Host {
    let folder = tempfile::tempdir().unwrap();
    tree.write(folder.path()).unwrap();
    Host::read(&Root::new(folder.path()))
}

fn catalogue(folder: &Path) -> Catalogue {
    let mut catalogue = Catalogue::new(Releases::built_in());
    catalogue.add_folder(folder);
    assert!(catalogue.problems().is_empty(), "{:?}", catalogue.problems());
    catalogue
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

fn granite_rapids() -> HostTree {
    HostTree::linux_7_2().module("2.0.04").seamldr("2.0.00").sockets(&[(0xa06d1, 4)])
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn newest_image_of_the_line_is_planned_on_sapphire_rapids() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    let host = host(HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 4), (0x806f8, 4)]));
    let plan = Plan::new(&host, &catalogue, &vouched());
    assert_eq!(plan.verdict, Verdict::Ready, "{plan:#?}");
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(plan.steps[0].to.as_deref(), Some("1.5.16"));
    assert_eq!(plan.steps[0].tee_tcb_svn_2, "0b01");
    assert!(plan.steps[0].mrseam.starts_with("7bf063280e94fb05"));

    let plan = Plan::new(&host, &catalogue, &Request::default());
    assert_eq!(plan.verdict, Verdict::Asks);
    let asked: Vec<_> = plan.open_questions().map(|question| question.option.as_str()).collect();
    assert_eq!(asked, ["--no-td-launches"]);
    let accept = Unknowns::NONE.with(Unknown::SensitiveOperations);
    assert_eq!(
        Plan::new(&host, &catalogue, &Request { accept, ..Request::default() }).verdict,
        Verdict::Ready
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn newest_image_of_the_line_is_planned_on_granite_rapids() {
    let folder = binaries();
    let plan = Plan::new(&host(granite_rapids()), &catalogue(&folder), &vouched());
    assert_eq!(plan.verdict, Verdict::Ready, "{plan:#?}");
    assert_eq!(plan.steps[0].to.as_deref(), Some("2.0.08"));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn each_reason_refuses_the_plan_with_advice() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    let spr = || HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 8)]);
    let cases: [(&str, HostTree, &str, &str); 10] = [
        (
            "lps-missing",
            spr().offline(&[3]),
            "LPs that take part: 7, but P-SEAMLDR waits for 8",
            "cpu3/online",
        ),
        ("lps-missing", spr().nosmt(), "LPs that take part: 4", "nosmt"),
        ("lps-missing", spr().maxcpus(2), "LPs that take part: 2", "maxcpus=2"),
        ("lps-missing", spr().nr_cpus(2), "LPs that take part: 2", "nr_cpus=2"),
        ("no-remaining-updates", spr().remaining(0), "no updates remain", "reboot"),
        (
            "cpu",
            spr().sockets(&[(0x906ea, 8)]),
            "is not in the image's list of CPUs",
            "an image for this host",
        ),
        ("no-module", spr().module_gone(), "none runs or is in place", "reboot"),
        ("no-interface", HostTree::not_initialised(), "not initialised", ""),
        ("no-interface", HostTree::without_tdx(), "no TDX", ""),
        ("upload-busy", spr().upload_status("transferring"), "\"transferring\"", "wait"),
    ];
    for (code, tree, message, advice) in cases {
        // The newest image in the folder, for any running module.
        let plan = Plan::new(&host(tree), &catalogue, &target("1.5.16"));
        assert_eq!(plan.verdict, Verdict::Refused, "{plan:#?}");
        let reason = plan.reasons.iter().find(|reason| reason.code == code);
        let reason = reason.unwrap_or_else(|| panic!("{code}: {plan:#?}"));
        assert!(reason.message.contains(message), "{reason:?}");
        assert!(reason.advice.as_deref().unwrap_or_default().contains(advice), "{reason:?}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn same_reasons_refuse_on_granite_rapids() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    for (code, tree) in [
        ("lps-missing", granite_rapids().offline(&[1])),
        ("lps-missing", granite_rapids().nosmt()),
        ("no-remaining-updates", granite_rapids().remaining(0)),
    ] {
        let plan = Plan::new(&host(tree), &catalogue, &vouched());
        assert_eq!((plan.verdict, codes(&plan)), (Verdict::Refused, vec![code]), "{plan:#?}");
    }
    let plan = Plan::new(&host(granite_rapids()), &catalogue, &target("1.5.16"));
    assert_eq!(plan.verdict, Verdict::Refused);
    assert!(codes(&plan).contains(&"platform") && codes(&plan).contains(&"major-svn"), "{plan:#?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn damaged_image_is_refused_and_never_planned() {
    let folder = binaries();
    let host = host(HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 2)]));
    let images = tempfile::tempdir().unwrap();
    let original = folder.join("joined_files/1.5/tdx_module_1.5.16.blob");
    let mut bytes = fs::read(&original).unwrap();
    bytes[0x40000] ^= 4;
    let damaged = images.path().join("tdx_module_1.5.16.blob");
    fs::write(&damaged, &bytes).unwrap();

    let mut catalogue = Catalogue::new(Releases::built_in());
    catalogue.add_folder(images.path());
    let plan = Plan::new(&host, &catalogue, &vouched());
    assert_eq!(
        (plan.verdict, codes(&plan)),
        (Verdict::Refused, vec!["checksum", "image-hash"]),
        "{plan:#?}"
    );

    let older = folder.join("joined_files/1.5/tdx_module_1.5.08.blob");
    catalogue.add_file(&older).unwrap();
    let plan = Plan::new(&host, &catalogue, &vouched());
    assert_eq!(
        plan.steps[0].to.as_deref(),
        Some("1.5.08"),
        "the damaged one is passed over: {plan:#?}"
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn nothing_to_do_if_the_newest_or_a_newer_module_runs() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    let tree = || HostTree::linux_7_2().module("1.5.16").sockets(&[(0x806f8, 2)]);
    assert_eq!(Plan::new(&host(tree()), &catalogue, &vouched()).verdict, Verdict::NothingToDo);
    assert_eq!(
        Plan::new(&host(tree()), &catalogue, &target("1.5.16")).verdict,
        Verdict::NothingToDo
    );
    let again = Request { allow_same_module: true, ..target("1.5.16") };
    assert_eq!(Plan::new(&host(tree()), &catalogue, &again).verdict, Verdict::Ready);
    // 1.5.34 has no image, but the table has it.
    let newer = tree().module("1.5.34");
    assert_eq!(Plan::new(&host(newer), &catalogue, &vouched()).verdict, Verdict::NothingToDo);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn host_whose_module_is_gone_needs_a_reboot_and_is_not_up_to_date() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    let host = host(HostTree::linux_7_2().module_gone());
    for request in [vouched(), target("1.5.16")] {
        let plan = Plan::new(&host, &catalogue, &request);
        assert_eq!(plan.verdict, Verdict::Refused);
        let reason = plan.reasons.iter().find(|reason| reason.code == "no-module").unwrap();
        let advice = reason.advice.as_deref().unwrap_or_default();
        assert!(format!("{} {advice}", reason.message).contains("reboot"), "{reason:?}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn downgrade_is_refused_by_its_svn() {
    let folder = binaries();
    let host = host(HostTree::linux_7_2().module("1.5.16").sockets(&[(0x806f8, 2)]));
    let plan = Plan::new(&host, &catalogue(&folder), &target("1.5.05"));
    assert_eq!((plan.verdict, codes(&plan)), (Verdict::Refused, vec!["minor-svn"]));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn intels_minimum_adds_a_step_unless_its_option_is_given() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    let host = host(granite_rapids().module("2.0.02"));
    let plan = Plan::new(&host, &catalogue, &vouched());
    assert_eq!(
        (plan.verdict, codes(&plan)),
        (Verdict::Refused, vec!["module-minimum"]),
        "{plan:#?}"
    );
    assert!(plan.reasons[0].message.contains("requires 2.0.04"), "{plan:#?}");
    let accept = Unknowns::NONE.with(Unknown::Memory);
    let below = Request { allow_below_minimum: true, accept, ..vouched() };
    assert_eq!(Plan::new(&host, &catalogue, &below).verdict, Verdict::Ready);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn steps_lead_to_a_version_that_one_update_does_not_reach() {
    let folder = binaries();
    let images = tempfile::tempdir().unwrap();
    for name in
        ["1.5/tdx_module_1.5.05.blob", "1.5/tdx_module_1.5.08.blob", "1.5/tdx_module_1.5.16.blob"]
    {
        let name = Path::new(name);
        fs::copy(
            folder.join("joined_files").join(name),
            images.path().join(name.file_name().unwrap()),
        )
        .unwrap();
    }
    let entry = |version: &str, minimum: &str| {
        format!(
            r#"{{"version": "{version}", "min_module_version_for_td_preserving": "{minimum}",
                "min_seamldr_versions": ["1.5.00"], "tdx_feature0": "0xF0FBF"}}"#
        )
    };
    let entries =
        [entry("1.5.05", "1.5.01"), entry("1.5.08", "1.5.05"), entry("1.5.16", "1.5.08")].join(",");
    let mapping = format!(r#"{{"tdx_module_releases": [{entries}]}}"#);
    fs::write(images.path().join("mapping_file.json"), mapping).unwrap();
    let catalogue = catalogue(images.path());
    let tree = || HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 2)]);
    let plan = Plan::new(&host(tree()), &catalogue, &vouched());
    let steps: Vec<_> =
        plan.steps.iter().map(|step| (step.from.as_str(), step.to.as_deref().unwrap())).collect();
    assert_eq!(steps, [("1.5.05", "1.5.08"), ("1.5.08", "1.5.16")], "{plan:#?}");
    assert_eq!(plan.verdict, Verdict::Ready);
    let plan = Plan::new(&host(tree().remaining(1)), &catalogue, &vouched());
    assert_eq!(
        (plan.verdict, codes(&plan)),
        (Verdict::Refused, vec!["no-remaining-updates"]),
        "two are needed"
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn unlisted_module_leaves_questions() {
    let folder = binaries();
    let host = host(HostTree::linux_7_2().module("1.5.15").sockets(&[(0x806f8, 2)]));
    let plan = Plan::new(&host, &catalogue(&folder), &vouched());
    assert_eq!(plan.verdict, Verdict::Asks);
    assert!(!plan.running_is_known);
    let open: Vec<_> = plan.open_questions().map(|question| question.code).collect();
    for code in
        ["unknown-running-svn", "unknown-same-module", "unknown-handoff-versions", "unknown-memory"]
    {
        assert!(open.contains(&code), "{code}: {open:?}");
    }
    assert!(plan.warnings.iter().any(|warning| warning.contains("never published")), "{plan:#?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn seam_range_refuses_unless_the_running_module_shows_that_there_is_room() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    // 32 MiB are too few for the 256 LPs of CPUID leaf 4.
    let tree = || {
        HostTree::linux_7_2()
            .sockets(&[(0x806f8, 2), (0x806f8, 2)])
            .msr(0x1401, 0x000f_ffff_fe00_0c00)
    };
    let plan = |version| Plan::new(&host(tree().module(version)), &catalogue, &vouched());
    assert_eq!(
        codes(&plan("1.5.13")),
        ["memory"],
        "no image of the running module is there to compare with"
    );
    assert_eq!(plan("1.5.05").verdict, Verdict::Ready, "it needs as much, and it runs");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn unknown_version_of_p_seamldr_is_asked_for_once_where_intels_table_names_a_minimum() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    for tree in [HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 2)]), granite_rapids()]
    {
        let tree = tree.file("/sys/devices/faux/tdx_host/seamldr_version", "");
        let plan = Plan::new(&host(tree), &catalogue, &vouched());
        let open: Vec<_> = plan.open_questions().map(|question| question.code).collect();
        assert_eq!(
            (plan.verdict, open),
            (Verdict::Asks, vec!["unknown-seamldr-version"]),
            "{plan:#?}"
        );
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn newer_number_for_another_platform_is_no_successor() {
    let folder = binaries();
    // A table in which the newest image is for Sierra Forest only.
    let table = include_str!("../data/releases.csv")
        .replace("1.5.16,0x010b,yes,SPR EMR SRF", "1.5.16,0x010b,yes,SRF");
    let mut catalogue = Catalogue::new(Releases::parse(&table).unwrap());
    catalogue.add_folder(&folder);
    let host = host(HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 2)]));
    let plan = Plan::new(&host, &catalogue, &vouched());
    assert_eq!(plan.steps[0].to.as_deref(), Some("1.5.08"), "{plan:#?}");
    let newest = plan
        .candidates
        .iter()
        .find(|candidate| candidate.version.as_deref() == Some("1.5.16"))
        .unwrap();
    assert_eq!(newest.reasons[0].code, "platform");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn host_whose_processor_or_module_does_not_fit_is_refused_without_a_target_too() {
    let folder = binaries();
    let catalogue = catalogue(&folder);
    let spr = || HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 2)]);
    for (code, tree) in [
        ("cpu", spr().sockets(&[(0x906ea, 2)])),
        ("cpu", spr().sockets(&[(0xa06d1, 2)])),
        ("no-module", spr().module_gone()),
        ("unknown-version", spr().module("five")),
        ("no-interface", HostTree::without_tdx()),
    ] {
        let plan = Plan::new(&host(tree), &catalogue, &vouched());
        assert_eq!(plan.verdict, Verdict::Refused, "{code}: {plan:#?}");
        assert!(codes(&plan).contains(&code), "{code}: {plan:#?}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn newer_image_for_other_processors_leaves_nothing_to_do() {
    let folder = binaries();
    let images = tempfile::tempdir().unwrap();
    for name in ["1.5.08", "1.5.16"] {
        let name = format!("tdx_module_{name}.blob");
        fs::copy(folder.join("joined_files/1.5").join(&name), images.path().join(name)).unwrap();
    }
    let table = include_str!("../data/releases.csv")
        .replace("1.5.16,0x010b,yes,SPR EMR SRF", "1.5.16,0x010b,yes,SRF");
    let mut catalogue = Catalogue::new(Releases::parse(&table).unwrap());
    catalogue.add_folder(images.path());
    let host = host(HostTree::linux_7_2().module("1.5.08").sockets(&[(0x806f8, 2)]));
    assert_eq!(Plan::new(&host, &catalogue, &vouched()).verdict, Verdict::NothingToDo);
}

#[test]
fn empty_folder_says_where_images_come_from() {
    let empty = tempfile::tempdir().unwrap();
    let host = host(HostTree::linux_7_2().module("1.5.05"));
    let plan = Plan::new(&host, &catalogue(empty.path()), &vouched());
    assert_eq!((plan.verdict, codes(&plan)), (Verdict::Refused, vec!["no-image"]));
    let plan = Plan::new(&host, &catalogue(empty.path()), &target("1.5.34"));
    assert!(plan.reasons[0].advice.as_deref().unwrap().contains("tdx-seamldr pack"), "{plan:#?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn newer_releases_without_an_image_are_named() {
    let folder = binaries();
    let host = host(HostTree::linux_7_2().module("1.5.16").sockets(&[(0x806f8, 2)]));
    let plan = Plan::new(&host, &catalogue(&folder), &vouched());
    assert_eq!(plan.verdict, Verdict::NothingToDo);
    let newer = plan.warnings.iter().find(|warning| warning.contains("newer releases")).unwrap();
    assert!(
        newer.ends_with("1.5.20, 1.5.24, 1.5.28, 1.5.34"),
        "1.5.25 is for another platform: {newer}"
    );
}

#[test]
fn mapping_that_others_can_write_does_not_count() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mapping = folder.path().join("mapping_file.json");
    fs::write(&mapping, r#"{"tdx_module_releases": []}"#).unwrap();
    fs::set_permissions(&mapping, fs::Permissions::from_mode(0o666)).unwrap();
    let mut catalogue = Catalogue::new(Releases::built_in());
    catalogue.add_folder(folder.path());
    let [problem] = catalogue.problems() else { panic!("{:?}", catalogue.problems()) };
    assert!(problem.to_string().contains("users other than root can write"), "{problem}");
}
