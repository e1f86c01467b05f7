//! What the command prints with `--json` is what `docs/json.md` says: each field that appears is
//! documented, of the documented type, and each documented field appears, unless it is optional.
//!
//! A new field needs a row in the document. A new subcommand needs a section there, and a run
//! below.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::{tdx_seamldr, tdx_seamldr_reading, Folder};
use serde_json::{Map, Value};
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_mock::TestImage;

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

/// A type as the document writes it.
#[derive(Clone, Debug)]
enum Type {
    Any,
    Text,
    Number,
    Boolean,
    List(Box<Type>),
    Fact(Box<Type>),
    OrNull(Box<Type>),
    /// The object of a section.
    Object(String),
}

impl Type {
    fn parse(text: &str) -> Self {
        let inner = |rest: &str| Box::new(Self::parse(rest));
        if let Some(rest) = text.strip_suffix(" or null") {
            return Self::OrNull(inner(rest));
        }
        if let Some(rest) = text.strip_prefix("list of ") {
            return Self::List(inner(rest));
        }
        if let Some(rest) = text.strip_prefix("fact of ") {
            return Self::Fact(inner(rest));
        }
        match text {
            "any" => Self::Any,
            "text" => Self::Text,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::Object(linked(text).unwrap_or_else(|| panic!("{text:?} is not a type"))),
        }
    }
}

/// Returns the section that a link leads to: `[name](#name)`.
fn linked(text: &str) -> Option<String> {
    let (name, target) = text.strip_prefix('[')?.split_once("](#")?;
    let (target, _) = target.split_once(')')?;
    assert_eq!(name, target, "a link to another place than its name");
    Some(name.to_owned())
}

#[derive(Clone, Debug)]
struct Field {
    /// The section with the row.
    section: String,
    is_optional: bool,
    of: Type,
    /// The words that a text can be. Empty: any.
    words: Vec<String>,
}

type Fields = BTreeMap<String, Field>;

#[derive(Debug, Default)]
struct Section {
    fields: Fields,
    /// Sections whose fields are all here, too.
    all_of: Vec<String>,
    /// Sections of which the fields of exactly one are here, too.
    one_of: Vec<String>,
}

/// The document.
#[derive(Debug)]
struct Document(BTreeMap<String, Section>);

impl Document {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
        let text = fs::read_to_string(path).unwrap();
        let mut sections: BTreeMap<String, Section> = BTreeMap::new();
        let mut name = String::new();
        for paragraph in text.split("\n\n") {
            let heading = paragraph.trim_start_matches('#');
            if heading.len() < paragraph.len() {
                name = heading.trim().to_owned();
                continue;
            }
            let section = sections.entry(name.clone()).or_default();
            let links = || paragraph.split("all fields of").skip(1).map(link_after);
            if paragraph.starts_with("All fields of") && !paragraph.contains(" but ") {
                section.all_of.push(link_after(paragraph));
            } else if paragraph.starts_with("May have all fields of") {
                section.one_of.extend(links());
            }
            for row in paragraph.lines().filter(|line| line.starts_with("| `")) {
                let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
                let [field, of, meaning] = cells.try_into().unwrap_or_else(|_| panic!("{row}"));
                assert!(!meaning.is_empty(), "{row}");
                let (field, rest) = field.strip_prefix('`').unwrap().split_once('`').unwrap();
                assert!(["", " (optional)"].contains(&rest), "{row}");
                let field_of = Field {
                    section: name.clone(),
                    is_optional: !rest.is_empty(),
                    of: Type::parse(of),
                    words: words(meaning),
                };
                assert!(
                    section.fields.insert(field.to_owned(), field_of).is_none(),
                    "twice: {row}"
                );
            }
        }
        sections.retain(|_, section| !section.fields.is_empty() || !section.one_of.is_empty());
        Self(sections)
    }

    fn section(&self, name: &str) -> &Section {
        self.0.get(name).unwrap_or_else(|| panic!("docs/json.md has no section {name}"))
    }

    /// Returns the fields that objects of a section have in any case.
    fn fields(&self, name: &str) -> Fields {
        let section = self.section(name);
        let mut fields: Fields =
            section.all_of.iter().flat_map(|other| self.fields(other)).collect();
        fields.extend(section.fields.clone());
        fields
    }
}

/// Returns the words in a meaning that says "one of" them.
fn words(meaning: &str) -> Vec<String> {
    let listed = meaning.split_once("one of ").map_or("", |(_, listed)| listed);
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the section of the first link in a text, which may be broken over lines.
fn link_after(text: &str) -> String {
    let (_, link) = text.split_once('[').unwrap();
    linked(&format!("[{link}")).unwrap()
}

/// The document, and the fields that appeared.
struct Check {
    document: Document,
    seen: BTreeSet<(String, String)>,
    ran: BTreeSet<String>,
}

impl Check {
    fn new() -> Self {
        Self { document: Document::read(), seen: BTreeSet::new(), ran: BTreeSet::new() }
    }

    fn object(&mut self, section: &str, value: &Value, place: &str) {
        let object =
            value.as_object().unwrap_or_else(|| panic!("{place} is not an object: {value}"));
        let mut fields = self.document.fields(section);
        let choices: Vec<Fields> = self
            .document
            .section(section)
            .one_of
            .iter()
            .map(|one| self.document.fields(one))
            .collect();
        if !choices.is_empty() {
            let is_whole = |choice: &&Fields| choice.keys().all(|name| object.contains_key(name));
            let choice = choices.iter().find(is_whole);
            fields.extend(
                choice
                    .unwrap_or_else(|| panic!("{place} is not one of its kinds: {value}"))
                    .clone(),
            );
        }
        self.fields(&fields, object, place);
    }

    fn fields(&mut self, fields: &Fields, object: &Map<String, Value>, place: &str) {
        for (name, value) in object {
            let field = fields
                .get(name)
                .unwrap_or_else(|| panic!("docs/json.md does not have {place}.{name}: {value}"));
            self.seen.insert((field.section.clone(), name.clone()));
            self.value(&field.of, value, &format!("{place}.{name}"));
            let is_word = |word: &str| field.words.iter().any(|listed| listed == word);
            assert!(
                field.words.is_empty() || value.as_str().is_none_or(is_word),
                "{place}.{name} is {value}, which docs/json.md does not list"
            );
        }
        for (name, field) in fields {
            assert!(field.is_optional || object.contains_key(name), "{place} has no {name}");
        }
    }

    fn value(&mut self, of: &Type, value: &Value, place: &str) {
        match (of, value) {
            (Type::Any, _)
            | (Type::OrNull(_), Value::Null)
            | (Type::Text, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_)) => {}
            (Type::OrNull(of), value) => self.value(of, value, place),
            (Type::List(of), Value::Array(values)) => {
                for value in values {
                    self.value(of, value, &format!("{place}[]"));
                }
            }
            (Type::Fact(of), value) => {
                self.object("fact", value, place);
                let (known, unknown) = (value.get("value"), value.get("unknown"));
                assert!(known.is_some() != unknown.is_some(), "{place}: {value}");
                assert_eq!(unknown.is_some(), value.get("reason").is_some(), "{place}: {value}");
                if let Some(value) = known {
                    self.value(of, value, &format!("{place}.value"));
                }
            }
            (Type::Object(section), value) => self.object(section, value, place),
            _ => panic!("{place} should be {of:?}, but is {value}"),
        }
    }

    /// Checks what a command printed.
    fn printed(&mut self, stdout: &[u8]) -> Value {
        let object: Value = serde_json::from_slice(stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(stdout)));
        let schema = object["schema"].as_str().unwrap().to_owned();
        let command = schema.strip_prefix("tdx-seamldr/").and_then(|rest| rest.strip_suffix("/1"));
        let command = command.unwrap_or_else(|| panic!("{schema} is not a schema")).to_owned();
        self.object(&command, &object, &command);
        self.ran.insert(command);
        object
    }

    /// Runs the command with `--json` and checks exit status and object.
    fn run<S: AsRef<OsStr>>(&mut self, exit: i32, arguments: impl IntoIterator<Item = S>) -> Value {
        let arguments: Vec<OsString> =
            arguments.into_iter().map(|one| one.as_ref().to_owned()).collect();
        let output = tdx_seamldr(arguments.iter().chain([&"--json".into()]));
        let object = self.printed(&output.stdout);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {object:#}");
        object
    }

    /// Runs a command for a host on a tree.
    fn on_host(&mut self, exit: i32, command: &[&str], tree: &Path, images: &Path) -> Value {
        self.run(exit, host_arguments(command, tree, images))
    }

    /// Sees that no row of the document is left over.
    fn end(&self) {
        for (name, section) in &self.document.0 {
            for (field, row) in &section.fields {
                let is_seen = self.seen.contains(&(name.clone(), field.clone()));
                assert!(
                    is_seen || row.is_optional,
                    "no run printed {name}.{field} of docs/json.md"
                );
            }
        }
    }
}

fn host_arguments(command: &[&str], tree: &Path, images: &Path) -> Vec<OsString> {
    let (name, rest) = command.split_first().unwrap();
    let mut arguments: Vec<OsString> = vec![name.into(), "--root".into(), tree.into()];
    if *name != "history" {
        arguments.extend(["--image-dir".into(), images.into()]);
    }
    arguments.extend(rest.iter().map(OsString::from));
    arguments
}

/// A tree of a host.
fn write(tree: &HostTree) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tree.write(folder.path()).unwrap();
    folder
}

/// An image that no table knows, for every processor of the trees.
fn image() -> TestImage {
    TestImage { svn_minor: 11, date: 0x20250401, ..TestImage::default() }
}

/// Images of all kinds, and other files.
fn images() -> Folder {
    let folder = Folder::new();
    folder.image("tdx_module_1.5.98.blob", &image());
    let good = image().build();
    folder.put("cut.blob", &good.as_bytes()[..9000]);
    let mut damaged = good.as_bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    folder.put("damaged.blob", &damaged);
    folder.put("module.bin", &good.as_bytes()[8192..]);
    folder.put("module.bin.sigstruct", &good.as_bytes()[4096..6144]);
    let mapping =
        br#"{"tdx_module_releases": [{"version": "1.5.98", "min_module_version_for_td_preserving": "1.5.01",
        "min_seamldr_versions": ["1.5.00"], "tdx_feature0": "0x2"}]}"#;
    folder.put("mapping_file.json", mapping);
    folder.put("text", b"no image");
    folder
}

/// Answers as the kernel would, once the image is uploaded. It may come too late: then the update
/// sees a kernel that did nothing.
fn install(tree: &Path, version: &str, remaining: u32) {
    let host = tree.join("sys/devices/faux/tdx_host");
    let upload = host.join("firmware/tdx_module");
    let wait = |file: PathBuf, wanted: &str| {
        let begin = Instant::now();
        while !fs::read_to_string(&file).unwrap_or_default().contains(wanted) {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{} has no {wanted}",
                file.display()
            );
            thread::yield_now();
        }
    };
    wait(tree.join("var/lib/tdx-seamldr/history.jsonl"), "\"committing\"");
    fs::write(upload.join("status"), "transferring\n").unwrap();
    wait(upload.join("loading"), "0");
    fs::write(host.join("num_remaining_updates"), format!("{remaining}\n")).unwrap();
    fs::write(host.join("version"), format!("{version}\n")).unwrap();
    fs::write(upload.join("status"), "idle\n").unwrap();
}

/// Returns a host after an update to 1.5.16, and checks what the update printed.
fn updated(check: &mut Check, images: &Path) -> tempfile::TempDir {
    for _ in 0..50 {
        let boot = "/proc/sys/kernel/random/boot_id";
        let tree = write(&HostTree::linux_7_2().remaining(20).file(boot, "a\n"));
        let arguments =
            host_arguments(&["update", "--no-td-launches", "--json"], tree.path(), images);
        let output = thread::scope(|threads| {
            threads.spawn(|| install(tree.path(), "1.5.16", 19));
            tdx_seamldr(arguments)
        });
        let report = check.printed(&output.stdout);
        match output.status.code() {
            Some(0) => return tree,
            _ => assert_eq!(report["ending"]["outcome"], "unknown", "{report:#}"),
        }
    }
    panic!("the kernel was always too late");
}

fn check_hosts(check: &mut Check, images: &Path) {
    let kmsg = "<3>virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000\n";
    let kinds = [
        HostTree::linux_7_2()
            .file("/boot/efi/EFI/TDX/TDX-SEAM.so", "")
            .file("/dev/kmsg", kmsg)
            .file("/proc/sys/kernel/random/boot_id", "a\n"),
        HostTree::linux_7_2().module("1.5.97").remaining(0),
        HostTree::linux_7_2().module_gone(),
        HostTree::linux_7_2().nosmt(),
        HostTree::linux_7_2().upload_status("transferring"),
        HostTree::linux_7_2().sockets(&[(0xa06d1, 4), (0x806f8, 4)]),
        HostTree::series_v6(),
        HostTree::without_tdx(),
        HostTree::not_initialised(),
        HostTree::erratum(),
    ];
    for tree in &kinds {
        let tree = write(tree);
        check.on_host(0, &["status"], tree.path(), images);
        check.on_host(0, &["list"], tree.path(), images);
        check.on_host(0, &["report"], tree.path(), images);
        check.on_host(0, &["history"], tree.path(), images);
        check.on_host(0, &["metrics"], tree.path(), images);
        check.on_host(0, &["apply"], tree.path(), images);
        check.on_host(1, &["apply", "--policy", "1.5.98"], tree.path(), images);
        // The test key signed the images.
        check.on_host(1, &["plan", "1.5.98"], tree.path(), images);
        check.on_host(1, &["update", "1.5.98"], tree.path(), images);
        check.on_host(1, &["plan", "1.5.02"], tree.path(), images);
    }
    let tree = write(&HostTree::linux_7_2());
    let remaining = "sys/devices/faux/tdx_host/num_remaining_updates";
    fs::remove_file(tree.path().join(remaining)).unwrap();
    let incomplete = check.on_host(0, &["status"], tree.path(), images);
    assert!(incomplete["host"]["interface"]["missing"].as_str().unwrap().ends_with(remaining));
    check.on_host(1, &["plan"], tree.path(), images);
    let wrong = write(&HostTree::linux_7_2().file("/etc/tdx-seamldr.toml", "no = 1\n"));
    for command in ["status", "list", "plan", "update", "apply", "metrics", "history", "report"] {
        check.on_host(1, &[command], wrong.path(), images);
    }
}

/// Updates that reach the kernel need Intel's images.
fn check_updates(check: &mut Check) {
    let images = PathBuf::from(env::var_os("TDX_MODULE_BINARIES").unwrap());
    let tree = write(&HostTree::linux_7_2().remaining(20));
    check.on_host(0, &["list"], tree.path(), &images);
    check.on_host(0, &["plan", "--no-td-launches"], tree.path(), &images);
    check.on_host(0, &["plan", "1.5.05"], tree.path(), &images);
    check.on_host(0, &["status"], tree.path(), &images);
    let tree = updated(check, &images);
    let path = tree.path();
    check.on_host(0, &["update", "--no-td-launches"], path, &images);
    let error = path.join("sys/devices/faux/tdx_host/firmware/tdx_module/error");
    fs::write(error, "transferring:hw-error\n").unwrap();
    let again = ["update", "1.5.16", "--no-td-launches", "--allow-same-module"];
    let report = check.on_host(3, &again, path, &images);
    assert_eq!(report["ending"]["outcome"], "failed-kept");
    let history = path.join("var/lib/tdx-seamldr/history.jsonl");
    let text = fs::read(&history).unwrap();
    fs::write(&history, [&text[..], b"{\n"].concat()).unwrap();
    for command in ["history", "report", "status"] {
        check.on_host(0, &[command], path, &images);
    }
}

/// A record as an update leaves it, so that a run without Intel's images has one, too.
fn check_record(check: &mut Check, images: &Path) {
    let line = |event: &str| {
        format!(
            r#"{{"schema":"tdx-seamldr/record/1","time":"2026-11-28T06:24:36Z","attempt":"a","boot":null,"event":{event}}}"#
        )
    };
    let began = r#"{"event":"began","from":"1.5.05","to":"1.5.16","file":"/a","mrseam":"7b"}"#;
    let record = [line(began), line(r#"{"event":"committing"}"#), String::new()].join("\n");
    let tree = write(&HostTree::linux_7_2().file("/var/lib/tdx-seamldr/history.jsonl", record));
    for command in ["history", "status", "report"] {
        check.on_host(0, &[command], tree.path(), images);
    }
}

fn check_explain(check: &mut Check) {
    let words = [
        "0xc000050500000000",
        "0x8000000000010004",
        "0x8000ff00ffff0000",
        "0xc000050500000001",
        "-5",
        "0",
    ];
    check.run(0, ["explain"].iter().chain(&words));
    check.run(0, ["explain", "--leaf", "TDH.SYS.RD", "0xc000010000000001"]);
    check.run(0, ["explain", "0xc0000505ff000000", "0xc000051f00000000"]);
    let log = b"[  1.0] virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000\n\
        [  1.1] virt/tdx: RCX 0x0000000000000001 RDX 0x0000000000000002 R08 0x0000000000000003\n\
        [  2.0] virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000\n\
        [  3.0] virt/tdx: module initialization failed (-5)\n\
        [  4.0] virt/tdx: something that no table knows\n\
        [  5.0] usb 1-1: new device\n";
    let output = tdx_seamldr_reading(log, ["explain", "-", "--json"]);
    check.printed(&output.stdout);
}

fn check_images(check: &mut Check, images: &Folder) {
    let path = |name: &str| images.path(name).into_os_string();
    let image = "tdx_module_1.5.98.blob";
    for command in ["inspect", "verify"] {
        // 1: not genuine, or a part of an image. 3: no image, or not readable.
        for (exit, name) in [
            (1, image),
            (1, "damaged.blob"),
            (1, "module.bin.sigstruct"),
            (3, "module.bin"),
            (3, "mapping_file.json"),
            (3, "text"),
            (3, "nothing"),
        ] {
            check.run(exit, [command.into(), path(name)]);
        }
    }
    for command in ["inspect", "verify"] {
        check.printed(&tdx_seamldr([command.into(), path("cut.blob"), "--json".into()]).stdout);
    }
    let out = path("out");
    check.run(
        0,
        ["convert".into(), path(image), "--to".into(), "v2".into(), "-o".into(), out.clone()],
    );
    check.run(
        3,
        ["convert".into(), path("text"), "--to".into(), "v2".into(), "-o".into(), out.clone()],
    );
    check.run(
        1,
        [
            "convert".into(),
            path("damaged.blob"),
            "--to".into(),
            "v2".into(),
            "-o".into(),
            out.clone(),
        ],
    );
    check.run(
        0,
        [
            "pack".into(),
            "--module".into(),
            path("module.bin"),
            "--format".into(),
            "v1".into(),
            "-o".into(),
            out,
        ],
    );
}

fn check_simulations(check: &mut Check, images: &Folder) {
    let path = |name: &str| images.path(name).into_os_string();
    check.run(0, ["simulate", "--trace", "--lps", "2"]);
    check.run(0, ["simulate", "--fault", "leaf=SEAMLDR.INSTALL:status=ENOENTROPY"]);
    let older = images.image("older.blob", &TestImage { svn_minor: 1, ..image() });
    let from = path("tdx_module_1.5.98.blob");
    check.run(
        1,
        ["simulate".into(), "--from".into(), from.clone(), "--to".into(), older.into_os_string()],
    );
    check.run(1, ["simulate".into(), "--from".into(), from, "--to".into(), path("text")]);
}

/// Runs all subcommands but updates that reach the kernel.
fn check_all() -> Check {
    let mut check = Check::new();
    let images = images();
    let folder = images.path("");
    check_hosts(&mut check, &folder);
    check_record(&mut check, &folder);
    check_explain(&mut check);
    check_images(&mut check, &images);
    check_simulations(&mut check, &images);
    let commands = tdx_seamldr_cli::command();
    for subcommand in commands.get_subcommands().map(clap::Command::get_name) {
        assert!(check.ran.contains(subcommand), "no run of {subcommand}");
    }
    check
}

#[test]
fn every_field_of_every_json_object_is_documented() {
    check_all();
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn every_documented_field_appears() {
    let mut check = check_all();
    check_updates(&mut check);
    check.end();
}
