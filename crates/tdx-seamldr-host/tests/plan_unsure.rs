//! Plans for hosts and files without the facts that some rules need.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::env;
use std::fs;
use std::path::PathBuf;

use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::{Unknown, Unknowns};
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::host::NoInterface;
use tdx_seamldr_host::plan::{Plan, Request, Scope, Target, Verdict};
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::{parse_version, Catalogue, Host, Releases, Root};

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

/// Returns an image of Intel's.
fn image(version: &str) -> Vec<u8> {
    let folder = PathBuf::from(env::var_os("TDX_MODULE_BINARIES").unwrap());
    let (line, _) = version.rsplit_once('.').unwrap();
    fs::read(folder.join(format!("joined_files/{line}/tdx_module_{version}.blob"))).unwrap()
}

fn host(tree: HostTree) -> Host {
    let folder = tempfile::tempdir().unwrap();
    tree.write(folder.path()).unwrap();
    Host::read(&Root::new(folder.path()))
}

/// Sapphire Rapids with 8 LPs.
fn spr(module: &str) -> HostTree {
    HostTree::linux_7_2().module(module).sockets(&[(0x806f8, 8)])
}

/// A folder with files, read with a table of releases.
fn catalogue(table: &str, files: &[(&str, &[u8])]) -> Catalogue {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let mut catalogue = Catalogue::new(Releases::parse(table).unwrap());
    catalogue.add_folder(folder.path());
    catalogue
}

const TABLE: &str = include_str!("../data/releases.csv");

/// The table without the release of a version.
fn table_without(version: &str) -> String {
    let is_other = |line: &&str| !line.starts_with(&format!("{version},"));
    TABLE.lines().filter(is_other).map(|line| format!("{line}\n")).collect()
}

/// One release of a `mapping_file.json`.
fn entry(version: &str, min_module: &str, min_seamldr: &str) -> String {
    format!(
        r#"{{"version": "{version}", "min_module_version_for_td_preserving": "{min_module}",
            "min_seamldr_versions": ["{min_seamldr}"], "tdx_feature0": "0xF0FBF"}}"#
    )
}

fn mapping(entries: &[String]) -> String {
    format!(r#"{{"tdx_module_releases": [{}]}}"#, entries.join(","))
}

fn target(version: &str) -> Request {
    let target = Target::Version(parse_version(version).unwrap());
    Request { target, no_td_launches: true, ..Request::default() }
}

fn codes(plan: &Plan) -> Vec<&'static str> {
    plan.reasons.iter().map(|reason| reason.code).collect()
}

fn open(plan: &Plan) -> Vec<&'static str> {
    plan.open_questions().map(|question| question.code).collect()
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn offline_lp_refuses_without_the_madt_too() {
    let new = image("1.5.16");
    let catalogue = catalogue(TABLE, &[("a.blob", &new)]);
    let accept = Unknowns::NONE.with(Unknown::Lps).with(Unknown::LpIds);
    let request = Request { accept, ..target("1.5.16") };
    let plan = Plan::new(&host(spr("1.5.05").madt(Vec::new()).offline(&[3])), &catalogue, &request);
    assert_eq!((plan.verdict, codes(&plan)), (Verdict::Refused, vec!["lps-missing"]), "{plan:#?}");
    assert!(
        plan.reasons[0].message.contains("take part: 7, but P-SEAMLDR waits for 8"),
        "{plan:#?}"
    );
    let plan = Plan::new(&host(spr("1.5.05").madt(Vec::new())), &catalogue, &target("1.5.16"));
    assert!(open(&plan).contains(&"unknown-lps"), "LPs that the kernel does not know: {plan:#?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn file_name_proves_nothing_about_the_running_module() {
    let (old, new) = (image("1.5.08"), image("1.5.16"));
    let files: [(&str, &[u8]); 2] = [("tdx_module_1.5.08.blob", &old), ("b.blob", &new)];
    let known = Plan::new(&host(spr("1.5.08")), &catalogue(TABLE, &files), &target("1.5.16"));
    assert_eq!(known.verdict, Verdict::Ready, "{known:#?}");
    let table = table_without("1.5.08");
    let plan = Plan::new(&host(spr("1.5.08")), &catalogue(&table, &files), &target("1.5.16"));
    assert!(!plan.running_is_known);
    for code in
        ["unknown-running-svn", "unknown-same-module", "unknown-handoff-versions", "unknown-memory"]
    {
        assert!(open(&plan).contains(&code), "{code}: {plan:#?}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn mapping_file_makes_minimums_stricter_and_never_looser() {
    let new = image("1.5.16");
    let strict = TABLE.replace("1.5.01,1.5.00 2.0.00,0x226F3F0FBF", "1.5.08,1.5.02,0x226F3F0FBF");
    assert_ne!(strict, TABLE);
    let with = |table: &str, module, seamldr| {
        let mapping = mapping(&[entry("1.5.16", module, seamldr)]);
        let catalogue =
            catalogue(table, &[("a.blob", &new), ("mapping_file.json", mapping.as_bytes())]);
        assert!(catalogue.problems().is_empty(), "{:?}", catalogue.problems());
        codes(&Plan::new(&host(spr("1.5.05").seamldr("1.5.01")), &catalogue, &target("1.5.16")))
    };
    assert_eq!(with(TABLE, "1.5.01", "1.5.00"), Vec::<&str>::new());
    assert_eq!(with(TABLE, "1.5.08", "1.5.00"), ["module-minimum"]);
    assert_eq!(with(TABLE, "1.5.01", "1.5.02"), ["seamldr-minimum"]);
    assert_eq!(with(&strict, "1.5.01", "1.5.00"), ["seamldr-minimum", "module-minimum"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn contradicting_mapping_files_are_reported_and_the_stricter_holds_for_each_release() {
    let new = image("1.5.16");
    let first = mapping(&[entry("1.5.16", "1.5.01", "1.5.00")]);
    // The release after the contradiction also counts.
    let second =
        mapping(&[entry("1.5.16", "1.5.08", "1.5.00"), entry("1.5.08", "1.5.06", "1.5.00")]);
    for (one, other) in [(&first, &second), (&second, &first)] {
        let files = [
            ("a.blob", &new[..]),
            ("1/mapping_file.json", one.as_bytes()),
            ("2/mapping_file.json", other.as_bytes()),
        ];
        let catalogue = catalogue(TABLE, &files);
        let [problem] = catalogue.problems() else { panic!("{:?}", catalogue.problems()) };
        assert!(problem.to_string().contains("1.5.16"), "{problem}");
        let minimum = |version| {
            catalogue.minimums(parse_version(version).unwrap()).module.unwrap().to_string()
        };
        assert_eq!(
            (minimum("1.5.16"), minimum("1.5.08")),
            ("1.5.08".to_owned(), "1.5.06".to_owned())
        );
        let plan = Plan::new(&host(spr("1.5.05")), &catalogue, &target("1.5.16"));
        assert_eq!(codes(&plan), ["module-minimum"], "{plan:#?}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn minimum_that_no_source_tells_is_a_warning() {
    let new = image("1.5.16");
    let warned = |table: &str| {
        let plan = Plan::new(
            &host(spr("1.5.05")),
            &catalogue(table, &[("a.blob", &new)]),
            &target("1.5.16"),
        );
        plan.warnings
            .into_iter()
            .filter(|warning| warning.contains("no source names"))
            .collect::<Vec<_>>()
    };
    assert!(warned(TABLE).is_empty());
    let table = |module: &str, seamldr: &str| {
        let to = format!("{module},{seamldr},0x226F3F0FBF");
        TABLE.replace("1.5.01,1.5.00 2.0.00,0x226F3F0FBF", &to)
    };
    assert_eq!(
        warned(&table("", "1.5.00")),
        ["no source names the oldest running module for 1.5.16"]
    );
    assert_eq!(warned(&table("1.5.01", "")), ["no source names the oldest P-SEAMLDR for 1.5.16"]);
    assert_eq!(warned(&table("", "")).len(), 2);
}

#[test]
fn erratum_refuses_even_if_all_files_exist() {
    for tree in [
        HostTree::linux_7_2().msr(0x480, 0x00da_0400_0000_0004),
        HostTree::series_v6().msr(0x480, 0x00da_0400_0000_0004),
    ] {
        assert_eq!(host(tree).interface, Err(NoInterface::Erratum));
    }
    assert!(host(HostTree::linux_7_2()).interface.is_ok());
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn upload_of_another_program_refuses_in_every_status_but_idle() {
    let new = image("1.5.16");
    let catalogue = catalogue(TABLE, &[("a.blob", &new)]);
    for busy in ["receiving", "preparing", "transferring", "programming", "unknown-status"] {
        let plan =
            Plan::new(&host(spr("1.5.05").upload_status(busy)), &catalogue, &target("1.5.16"));
        assert_eq!((plan.verdict, codes(&plan)), (Verdict::Refused, vec!["upload-busy"]), "{busy}");
        let advice = plan.reasons[0].advice.as_deref().unwrap();
        assert_eq!(advice, "wait until the status is idle, then check which version runs");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn image_that_the_kernels_format_cannot_hold_does_not_fit() {
    let new = image("1.5.16");
    // Format v2 has room for one page of SIGSTRUCT.
    let parts = TdxImage::parse(&new).unwrap().parts();
    let sigstruct = [parts.sigstruct, &vec![0; 4096][..]].concat();
    let parts = ImageParts { sigstruct: &sigstruct, ..parts };
    let mut bytes = vec![0; parts.file_len().unwrap()];
    parts.write(ImageFormat::BlobV1, &mut bytes).unwrap();
    let catalogue = catalogue(TABLE, &[("a.blob", &bytes)]);
    let on = |tree: HostTree| {
        let tree = tree.module("1.5.05").sockets(&[(0x806f8, 8)]);
        Plan::new(&host(tree), &catalogue, &target("1.5.16"))
    };
    let plan = on(HostTree::linux_7_2());
    let reason = plan.reasons.iter().find(|reason| reason.code == "format");
    let reason = reason.unwrap_or_else(|| panic!("{plan:#?}"));
    assert_eq!((reason.scope, reason.advice.is_some()), (Scope::Fit, true), "{reason:?}");
    assert!(!codes(&on(HostTree::series_v6())).contains(&"format"));
}
