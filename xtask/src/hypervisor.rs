//! `cargo xtask hypervisor`: builds the example and runs it in QEMU.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

/// How long one run may take; it takes well below a second where nothing else is going on.
const LIMIT: Duration = Duration::from_secs(60);
/// QEMU's exit status if the example writes 0x10 to its exit port.
const SUCCESS: i32 = 0x21;

pub(crate) fn run(cpus: u32, fault: &str, runs: u32) -> Result<()> {
    ensure!((1..=64).contains(&cpus), "the example has room for 1 to 64 CPUs, not {cpus}");
    let image = build()?;
    let mut longest = Duration::ZERO;
    for number in 1..=runs {
        let start = Instant::now();
        let (status, output) = boot(&image, cpus, fault)?;
        longest = longest.max(start.elapsed());
        if number == 1 {
            print!("{output}");
        }
        if status != Some(SUCCESS) {
            let status = status.map_or_else(|| "killed".to_owned(), |status| status.to_string());
            bail!("run {number} of {runs} with {cpus} CPUs did not end well (status {status}):\n{output}");
        }
    }
    println!(
        "{runs} of {runs} runs with {cpus} CPUs ended well, the longest in {:.1} s",
        longest.as_secs_f32()
    );
    Ok(())
}

fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let target = root.join("target/hypervisor");
    let built = crate::cargo()
        .args(["build", "--quiet", "--locked", "--release", "--manifest-path"])
        .arg(root.join("examples/hypervisor/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    ensure!(built.success(), "the example was not built");
    Ok(target.join("release/hypervisor"))
}

/// One run: QEMU's exit status, if it has ended by itself, and what came over the serial line.
fn boot(image: &Path, cpus: u32, fault: &str) -> Result<(Option<i32>, String)> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256"])
        .args(["-accel", "tcg", "-cpu", "max", "-smp", &cpus.to_string(), "-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
        .arg(image)
        .args(["-append", &format!("cpus={cpus} fault={fault}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                anyhow::anyhow!("there is no qemu-system-x86_64: install the Debian package qemu-system-x86")
            }
            _ => error.into(),
        })?;
    // All that the example says fits into the pipe.
    let deadline = Instant::now().checked_add(LIMIT).context("no such time")?;
    while qemu.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = qemu.try_wait()?.and_then(|status| status.code());
    if status.is_none() {
        qemu.kill()?;
    }
    let output = qemu.wait_with_output()?;
    Ok((status, String::from_utf8_lossy(&output.stdout).into_owned()))
}
