//! Hooks: programs of the site that run before and after an update.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::trust::{check_trusted, NotTrusted};

/// What a pre-update hook prints to vouch that no TD is in build and no migration interrupted.
const VOUCH: &str = "vouch no-td-launches";

/// Hooks that a folder has at most.
const MAX_HOOKS: usize = 256;

/// The longest line of a hook that is looked at.
const MAX_LINE: u64 = 4096;

/// Why hooks were not run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Others than root can change the hook.
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    /// The folder cannot be read, or the hook cannot be run.
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
    /// The folder has too many hooks.
    #[error("{} has more than {MAX_HOOKS} hooks", .0.display())]
    TooMany(PathBuf),
}

/// What the hooks said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// One of them vouches that no TD is in build and no migration interrupted.
    pub(super) no_td_launches: bool,
}

/// Finds the hooks of a folder in the order of their names, as run-parts does: executable files whose names have letters, digits, `_`
/// and `-` only. No folder: no hooks.
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
        let data = fs::metadata(&path).map_err(failed(&path))?;
        if !is_named || !data.is_file() || data.permissions().mode() & 0o111 == 0 {
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

/// Runs a hook with these variables beside the environment. Each line that it prints goes to `line`.
pub(super) fn run(
    hook: &Path,
    variables: &[(&'static str, String)],
    line: &mut dyn FnMut(&str),
) -> Result<Said, HookError> {
    let failed = |source| HookError::Failed { path: hook.to_owned(), source };
    let mut child = Command::new(hook)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = Said::default();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        loop {
            let mut bytes = Vec::new();
            let count =
                Read::by_ref(&mut output).take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(failed)?;
            if count == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end();
            said.no_td_launches |= text == VOUCH;
            line(text);
        }
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(HookError::Status { path: hook.to_owned(), status });
    }
    Ok(said)
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
        let names: Vec<_> =
            find(folder.path()).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
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
    fn hook_gets_variables_prints_lines_and_can_vouch() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        let mut run = |text: &str| {
            let path = hook(folder.path(), "10", 0o755, text);
            run(&path, &[("TDX_SEAMLDR_TO", "1.5.16".into())], &mut |line| lines.push(line.to_owned()))
        };
        assert!(!run("echo to $TDX_SEAMLDR_TO").unwrap().no_td_launches);
        assert!(run("echo vouch no-td-launches").unwrap().no_td_launches);
        assert!(!run("echo do not vouch no-td-launches").unwrap().no_td_launches);
        assert!(matches!(run("exit 3"), Err(HookError::Status { status, .. }) if status.code() == Some(3)));
        assert_eq!(lines[0], "to 1.5.16");
    }
}
