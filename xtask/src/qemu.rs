//! Runs machines in QEMU.

use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};

/// Returns a machine with this processor, CPUs in one socket and a serial line, but nothing to
/// boot. The machine ends instead of rebooting.
pub(crate) fn machine(cpus: u32, processor: &str) -> Command {
    machine_of(Command::new("qemu-system-x86_64"), cpus, processor)
}

/// Returns the same machine in this QEMU.
pub(crate) fn machine_of(mut qemu: Command, cpus: u32, processor: &str) -> Command {
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ])
    .args(["-accel", "tcg,thread=multi", "-cpu", processor])
    .args(["-smp", &format!("{cpus},sockets=1,cores={cpus}")]);
    qemu
}

/// Words that must come over the serial line, and the time limit for them.
#[derive(Clone, Copy)]
pub(crate) struct SignOfLife<'a> {
    pub(crate) words: &'a str,
    pub(crate) within: Duration,
}

/// Runs a machine. Returns its exit status if it ended by itself, and the output of the serial
/// line. Kills the machine at the limit, or if the sign of life is missing.
pub(crate) fn run(
    machine: &mut Command,
    limit: Duration,
    sign: Option<SignOfLife<'_>>,
) -> Result<(Option<i32>, String)> {
    let mut qemu =
        machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| match error
            .kind()
        {
            ErrorKind::NotFound => {
                anyhow!(
                    "qemu-system-x86_64 is not installed: install the Debian package \
                     qemu-system-x86"
                )
            }
            _ => error.into(),
        })?;
    let mut serial = qemu.stdout.take().context("the serial line")?;
    let output = Arc::new(Mutex::new(Vec::new()));
    let reader = std::thread::spawn({
        let output = Arc::clone(&output);
        move || -> std::io::Result<()> {
            let mut bytes = [0; 4096];
            loop {
                let count = serial.read(&mut bytes)?;
                let Some(read) = bytes.get(..count).filter(|read| !read.is_empty()) else {
                    return Ok(());
                };
                output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
            }
        }
    });
    let text = || {
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&output).into_owned()
    };
    let start = Instant::now();
    let mut sign = sign;
    while qemu.try_wait()?.is_none() && start.elapsed() < limit {
        if let Some(late) = sign.filter(|sign| start.elapsed() >= sign.within) {
            if !text().contains(late.words) {
                break;
            }
            sign = None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = qemu.try_wait()?.and_then(|status| status.code());
    if status.is_none() {
        qemu.kill()?;
        qemu.wait()?;
    }
    reader.join().map_err(|_| anyhow!("the serial line could not be read"))??;
    Ok((status, text()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn machine_without_a_sign_of_life_is_killed() {
        let limit = Duration::from_secs(60);
        let sign = SignOfLife { words: "up", within: Duration::from_millis(300) };
        let (status, output) =
            run(&mut shell("echo stuck; exec sleep 30"), limit, Some(sign)).unwrap();
        assert_eq!((status, output.as_str()), (None, "stuck\n"));
        let (status, output) =
            run(&mut shell("echo up; sleep 1; echo end; exit 7"), limit, Some(sign)).unwrap();
        assert_eq!((status, output.as_str()), (Some(7), "up\nend\n"));
    }

    #[test]
    fn machine_is_killed_at_the_limit() {
        let (status, output) =
            run(&mut shell("echo up; exec sleep 30"), Duration::from_millis(300), None).unwrap();
        assert_eq!((status, output.as_str()), (None, "up\n"));
    }
}
