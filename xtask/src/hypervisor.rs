//! `cargo xtask hypervisor`: builds the example hypervisor and runs it in QEMU.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};

use crate::process::call;
use crate::{qemu, root};

/// The time limit of one run, which takes less than a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);
/// QEMU's exit status after the example writes 0x10 to its exit port.
const SUCCESS: i32 = 0x21;

pub(crate) fn run(cpus: u32, fault: &str, runs: u32) -> Result<()> {
    ensure!((1..=64).contains(&cpus), "the example supports 1 to 64 CPUs, not {cpus}");
    let image = build()?;
    let mut longest = Duration::ZERO;
    for number in 1..=runs {
        let start = Instant::now();
        let mut machine = qemu::machine(cpus, "max");
        machine
            .args(["-m", "256", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
            .arg(&image)
            .args(["-append", &format!("cpus={cpus} fault={fault}")]);
        let (status, output) = qemu::run(&mut machine, LIMIT, None)?;
        longest = longest.max(start.elapsed());
        if number == 1 {
            print!("{output}");
        }
        if status != Some(SUCCESS) {
            let status = status.map_or_else(|| "killed".to_owned(), |status| status.to_string());
            bail!(
                "run {number} of {runs} with {cpus} CPUs did not end well (status \
                 {status}):\n{output}"
            );
        }
    }
    println!(
        "{runs} of {runs} runs with {cpus} CPUs ended well, the longest in {:.1} s",
        longest.as_secs_f32()
    );
    Ok(())
}

fn build() -> Result<PathBuf> {
    let target = root().join("target/hypervisor");
    call(
        crate::cargo()
            .args(["build", "--quiet", "--locked", "--release", "--manifest-path"])
            .arg(root().join("examples/hypervisor/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    )?;
    Ok(target.join("release/hypervisor"))
}
