//! Machines in QEMU, for what has to boot.

use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};

/// A machine with so many CPUs in one socket, this processor and a serial line, without anything to boot. It ends instead of rebooting.
pub(crate) fn machine(cpus: u32, processor: &str) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-accel", "tcg,thread=multi", "-cpu", processor])
        .args(["-smp", &format!("{cpus},sockets=1,cores={cpus}")]);
    qemu
}

/// Runs it: its exit status, if it has ended by itself, and what came over the serial line.
pub(crate) fn run(machine: &mut Command, limit: Duration) -> Result<(Option<i32>, String)> {
    let mut qemu =
        machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                anyhow!("there is no qemu-system-x86_64: install the Debian package qemu-system-x86")
            }
            _ => error.into(),
        })?;
    let mut serial = qemu.stdout.take().context("the serial line")?;
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        serial.read_to_end(&mut output).map(|_| String::from_utf8_lossy(&output).into_owned())
    });
    let deadline = Instant::now().checked_add(limit).context("no such time")?;
    while qemu.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = qemu.try_wait()?.and_then(|status| status.code());
    if status.is_none() {
        qemu.kill()?;
        qemu.wait()?;
    }
    let output = reader.join().map_err(|_| anyhow!("the serial line could not be read"))??;
    Ok((status, output))
}
