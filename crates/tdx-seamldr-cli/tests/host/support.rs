//! Runs the command on a tree of a host, and checks the rules for every output.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{kill_process, Pid, Signal};
use serde_json::Value;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::testing::HostTree;

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

pub(crate) use crate::kernel::{TDX_HOST, UPLOAD};
pub(crate) use crate::patience::wait_until;

pub(crate) const ONLINE: &str = "sys/devices/system/cpu/online";
pub(crate) const HISTORY: &str = "var/lib/tdx-seamldr/history.jsonl";

/// Returns the folder with Intel's images.
pub(crate) fn binaries() -> PathBuf {
    PathBuf::from(env::var_os("TDX_MODULE_BINARIES").unwrap())
}

/// Returns the file of one of Intel's images.
pub(crate) fn image(version: &str) -> PathBuf {
    let line = &version[..3];
    binaries().join(format!("joined_files/{line}/tdx_module_{version}.blob"))
}

/// Returns an image in format v2.
pub(crate) fn in_v2(image: &[u8]) -> Vec<u8> {
    let parts = TdxImage::parse(image).unwrap().parts();
    let mut bytes = vec![0; parts.file_len().unwrap()];
    parts.write(ImageFormat::ImageV2, &mut bytes).unwrap();
    bytes
}

/// One Sapphire Rapids with 4 LPs and module 1.5.05.
pub(crate) fn sapphire_rapids() -> HostTree {
    HostTree::linux_7_2().module("1.5.05").remaining(20).sockets(&[(0x806f8, 4)])
}

/// One Granite Rapids with 4 LPs and module 2.0.04.
pub(crate) fn granite_rapids() -> HostTree {
    HostTree::linux_7_2().module("2.0.04").seamldr("2.0.00").sockets(&[(0xa06d1, 4)])
}

/// A tree of a host.
pub(crate) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    pub(crate) fn new(tree: &HostTree) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tree.write(folder.path()).unwrap();
        Self { folder }
    }

    /// A tree whose default image folder holds these of Intel's images.
    pub(crate) fn with_images(tree: &HostTree, versions: &[&str]) -> Self {
        let tree = Self::new(tree);
        for version in versions {
            let from = image(version);
            tree.put(&format!("{IMAGES}/tdx_module_{version}.blob"), fs::read(from).unwrap());
        }
        tree
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Writes a file, with the folders above it. Only its owner can change it.
    pub(crate) fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        set_mode(&path, 0o644);
        path
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Makes an executable hook of a shell script.
    pub(crate) fn hook(&self, name: &str, script: &str) -> PathBuf {
        let path = self.put(&format!("etc/tdx-seamldr/{name}"), format!("#!/bin/sh\n{script}\n"));
        set_mode(&path, 0o755);
        path
    }

    /// Returns the command, which has not begun to run.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"));
        command.args(arguments).arg("--root").arg(self.root()).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran::new(output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs the command with `--json`. Returns the exit status and the object.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> (Option<i32>, Value) {
        let arguments = arguments.iter().map(AsRef::as_ref).chain([OsStr::new("--json")]);
        let ran = self.run(&arguments.collect::<Vec<_>>());
        (ran.code, ran.object())
    }

    /// Begins to run the command.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        let output = tempfile::tempdir().unwrap();
        let create = |name| File::create(output.path().join(name)).unwrap();
        let child =
            self.command(arguments).stdout(create("out")).stderr(create("err")).spawn().unwrap();
        Running { child, output }
    }
}

/// The default folder of images.
pub(crate) const IMAGES: &str = "var/lib/tdx-seamldr/images";

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl AsRef<Path> for Tree {
    fn as_ref(&self) -> &Path {
        self.root()
    }
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    /// The files of standard output and standard error. A hook that outlives the command may keep
    /// them open.
    output: tempfile::TempDir,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn interrupt(&self) {
        kill_process(self.pid(), Signal::INT).unwrap();
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.output.path().join(name)).unwrap()
    }

    /// Waits until standard error has a text.
    pub(crate) fn wait_for(&self, text: &str) {
        wait_until(text, || self.text("err").contains(text));
    }

    /// Waits until the command has ended.
    pub(crate) fn end(mut self) -> Ran {
        wait_until("the command ends", || self.child.try_wait().unwrap().is_some());
        let code = self.child.wait().unwrap().code();
        Ran::new(code, self.text("out"), self.text("err"))
    }
}

/// The exit status and the output of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Checks the rules for every output: no escape bytes without a terminal, no panic, and lines
    /// of at most 80 columns.
    fn new(code: Option<i32>, out: String, err: String) -> Self {
        let ran = Self { code, out, err };
        for text in [&ran.out, &ran.err] {
            assert!(!text.contains('\x1b'), "escape bytes without a terminal: {ran:?}");
            assert!(!text.contains("panicked"), "{ran:?}");
        }
        if !ran.out.starts_with('{') {
            // Error lines are not wrapped, because other programs may search for them.
            let is_error =
                |line: &&str| line.starts_with("tdx-seamldr: ") || line.starts_with("error: ");
            let progress = ran.err.lines().take_while(|line| !is_error(line));
            for line in ran.out.lines().chain(progress) {
                assert!(width(line) <= 80, "{} columns: {line}\n{ran:?}", width(line));
            }
        }
        ran
    }

    /// Returns the JSON object on standard output.
    pub(crate) fn object(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns standard output and standard error without their line breaks.
    pub(crate) fn flat(&self) -> String {
        let words = self.out.split_whitespace().chain(self.err.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Checks the exit status, and that the output contains all these texts.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let flat = self.flat();
        for text in texts {
            assert!(flat.contains(text), "{text:?} is not said: {self:?}");
        }
    }
}

/// Returns the columns of a line. Paths and hashes cannot be broken and do not count. A line of the
/// kernel's log stays whole in `report`.
fn width(line: &str) -> usize {
    if line.starts_with("    virt/tdx: ") {
        return 0;
    }
    let is_long = |word: &&str| word.contains('/') || word.len() >= 64;
    line.chars().count()
        - line.split(' ').filter(is_long).map(|word| word.chars().count()).sum::<usize>()
}

/// Returns the codes of a plan's reasons in JSON.
pub(crate) fn codes(object: &Value) -> Vec<&str> {
    let plan = object.get("plan").unwrap_or(object);
    plan["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| reason["code"].as_str().unwrap())
        .collect()
}

/// Ends the process whose number a hook wrote into a file.
pub(crate) fn kill_by_file(file: &Path) {
    let pid = fs::read_to_string(file).unwrap().trim_end().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}
