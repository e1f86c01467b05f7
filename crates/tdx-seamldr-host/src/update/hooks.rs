//! Hooks: programs of the operator that run before and after an update.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::trust::{check_trusted, NotTrusted};

/// The line that a pre-update hook prints to vouch that no TD is in build and no migration is
/// interrupted.
const VOUCH: &str = "vouch no-td-launches";

/// The most hooks in a folder.
const MAX_HOOKS: usize = 256;

/// The longest wait for a line before the hook's state is checked.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest line of a hook that is read.
const MAX_LINE: u64 = 4096;

/// Why hooks did not run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Users other than root can change the hook.
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    /// The folder cannot be read, or the hook cannot be started.
    #[error("{}: {source}", path.display())]
    Failed {
        /// The folder or the hook.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The hook ended with an error.
    #[error("the hook {} ended with {status}", path.display())]
    Status {
        /// The hook.
        path: PathBuf,
        /// The exit status.
        status: std::process::ExitStatus,
    },
    /// An executable file does not have the name of a hook.
    #[error("{} is executable, but is not run: the name of a hook may have letters, digits, _ and - only", .0.display())]
    Name(PathBuf),
    /// The folder has too many hooks.
    #[error("{} has more than {MAX_HOOKS} hooks", .0.display())]
    TooMany(PathBuf),
}

/// What a hook printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The hook vouches that no TD is in build and no migration is interrupted.
    pub(super) no_td_launches: bool,
}

/// Whether an editor or a package manager gives this name to a copy.
fn is_left_behind(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ends = [
        "~",
        ".bak",
        ".orig",
        ".swp",
        ".dpkg-old",
        ".dpkg-new",
        ".dpkg-dist",
        ".rpmsave",
        ".rpmnew",
        ".rpmorig",
    ];
    name.starts_with('.') || name.starts_with('#') || ends.iter().any(|end| name.ends_with(end))
}

/// Finds the hooks of a folder in the order of their names, as run-parts does: executable files
/// whose names have letters, digits, `_` and `-` only. An absent folder has no hooks.
pub(super) fn find(folder: &Path) -> Result<Vec<PathBuf>, HookError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| HookError::Failed { path, source }
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(HookError::Failed { path: folder.to_owned(), source }),
    };
    check_trusted(folder)?;
    let mut hooks = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(folder))?.path();
        let is_named = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        });
        let is_hook =
            |data: &fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
        if !is_named {
            // Copies by editors are ignored. Any other executable file is an error: the operator
            // may rely on it.
            if fs::metadata(&path).is_ok_and(|data| is_hook(&data)) && !is_left_behind(&path) {
                return Err(HookError::Name(path));
            }
            continue;
        }
        if !is_hook(&fs::metadata(&path).map_err(failed(&path))?) {
            continue;
        }
        check_trusted(&path)?;
        if hooks.len() >= MAX_HOOKS {
            return Err(HookError::TooMany(folder.to_owned()));
        }
        hooks.push(path);
    }
    hooks.sort();
    Ok(hooks)
}

/// How long the output is read after the hook ends. A program that the hook started may hold the
/// pipe open for ever.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Runs a hook with these variables added to the environment. Passes each printed line to `line`.
/// With `own_group` the hook does not get the terminal's Ctrl-C.
pub(super) fn run(
    hook: &Path,
    variables: &[(&'static str, String)],
    own_group: bool,
    line: &mut dyn FnMut(&str),
) -> Result<Said, HookError> {
    let failed = |source| HookError::Failed { path: hook.to_owned(), source };
    // Another user may have changed the hook since the search.
    check_trusted(hook)?;
    let mut command = Command::new(hook);
    command
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if own_group {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(failed)?;
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || send_lines(output, &sender));
    }
    let mut said = Said::default();
    let mut hear = |text: String| {
        said.no_td_launches |= text == VOUCH;
        line(&text);
    };
    let status = loop {
        match lines.recv_timeout(PAUSE) {
            Ok(text) => hear(text),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break child.wait().map_err(failed)?,
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            let end = Instant::now();
            while let Ok(text) = lines.recv_timeout(LAST_LINES.saturating_sub(end.elapsed())) {
                hear(text);
            }
            break status;
        }
    };
    if !status.success() {
        return Err(HookError::Status { path: hook.to_owned(), status });
    }
    Ok(said)
}

/// Sends each line, without its end, until the output ends or the receiver is gone.
fn send_lines(output: impl Read, lines: &mpsc::Sender<String>) {
    let mut output = BufReader::new(output);
    loop {
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut output).take(MAX_LINE).read_until(b'\n', &mut bytes);
        if !read.is_ok_and(|count| count != 0) {
            return;
        }
        if lines.send(String::from_utf8_lossy(&bytes).trim_end().to_owned()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(folder: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn hooks_are_executable_files_with_plain_names_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in
            [("20-b", 0o755), ("10_a", 0o755), ("30", 0o644), ("40.bak", 0o755), ("50~", 0o755)]
        {
            hook(folder.path(), name, mode, "");
        }
        fs::create_dir(folder.path().join("60")).unwrap();
        let names: Vec<_> = find(folder.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["10_a", "20-b"]);
        assert!(find(&folder.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn hook_or_folder_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = hook(folder.path(), "10", 0o777, "");
        assert!(matches!(find(folder.path()), Err(HookError::NotTrusted(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(find(folder.path()), Err(HookError::NotTrusted(_))));
    }

    #[test]
    fn executable_file_without_the_name_of_a_hook_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        hook(folder.path(), "10-guard.sh", 0o755, "exit 1");
        let error = find(folder.path()).unwrap_err();
        assert!(error.to_string().contains("10-guard.sh is executable, but is not run"), "{error}");
    }

    #[test]
    fn command_does_not_wait_for_a_program_that_a_hook_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = hook(folder.path(), "10", 0o755, "sleep 20 & echo vouch no-td-launches");
        let begin = Instant::now();
        assert!(run(&path, &[], true, &mut |_| {}).unwrap().no_td_launches);
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn hook_gets_variables_prints_lines_and_can_vouch() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        let mut run = |text: &str| {
            let path = hook(folder.path(), "10", 0o755, text);
            run(&path, &[("TDX_SEAMLDR_TO", "1.5.16".into())], false, &mut |line| {
                lines.push(line.to_owned())
            })
        };
        assert!(!run("echo to $TDX_SEAMLDR_TO").unwrap().no_td_launches);
        assert!(run("echo vouch no-td-launches").unwrap().no_td_launches);
        assert!(!run("echo do not vouch no-td-launches").unwrap().no_td_launches);
        assert!(
            matches!(run("exit 3"), Err(HookError::Status { status, .. }) if status.code() == Some(3))
        );
        assert_eq!(lines[0], "to 1.5.16");
    }
}
