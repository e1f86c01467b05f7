//! `cargo xtask instructions`: what the library costs, in instructions that callgrind counts, against what it may cost.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use tdx_seamldr_mock::released_images;

/// Numbers of LPs, between which the cost of an update for each LP must not change.
const LPS: [u32; 5] = [64, 128, 256, 512, 1024];
/// What belongs to the firmware and not to the host.
const FIRMWARE: &str = "SeamcallBackend>::seamcall";

/// Instructions of one piece of work.
struct Counted {
    total: u64,
    /// Of these, in the simulated firmware.
    firmware: u64,
    /// What the work printed.
    output: String,
}

pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = crate::cargo()
        .args(["build", "--quiet", "--locked", "--release", "-p", "tdx-seamldr-benches", "--bin", "work"])
        .current_dir(&root)
        .status()?;
    ensure!(built.success(), "the work was not built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let work = target.join("release/work");
    update(&work)?;
    checks(&work)
}

/// The host's side of an update costs each LP the same, however many there are.
fn update(work: &Path) -> Result<()> {
    println!("| LPs | SEAMCALLs | host instructions for each LP |\n|---|---|---|");
    let mut costs = Vec::new();
    for lps in LPS {
        let counted = count(work, &["update", &lps.to_string()])?;
        let host = counted.total.saturating_sub(counted.firmware);
        let cost = host.checked_div(lps.into()).unwrap_or_default();
        println!("| {lps} | {} | {cost} |", counted.output.trim());
        // INSTALL and LP.INIT on each LP, SHUTDOWN, SYS.INIT, UPDATE, and 4 times SYS.RD.
        let calls = lps.saturating_mul(2).saturating_add(7);
        ensure!(counted.output.trim() == calls.to_string(), "{lps} LPs need {calls} SEAMCALLs");
        costs.push(cost);
    }
    let (least, most) = (costs.iter().min().copied(), costs.iter().max().copied());
    let (least, most) = least.zip(most).context("nothing was counted")?;
    ensure!(within_a_tenth(most, least), "an LP costs {least} to {most} instructions: more than 10% apart");
    Ok(())
}

/// Preflight costs little more than the cryptography that it cannot do without.
fn checks(work: &Path) -> Result<()> {
    let images = released_images()?.unwrap_or_default();
    let Some(largest) = images.iter().max_by_key(|image| image.bytes.as_bytes().len()) else {
        return Ok(());
    };
    let file = largest.path.to_str().context("a path that is not UTF-8")?;
    let preflight = count(work, &["preflight", file])?.total;
    let crypto = count(work, &["crypto", file])?.total;
    println!(
        "preflight of {}: {preflight} instructions; one SHA-384 of the module and one RSA verification: {crypto}",
        largest.version
    );
    ensure!(within_a_tenth(preflight, crypto), "preflight takes more than 10% longer than its cryptography");
    Ok(())
}

fn within_a_tenth(more: u64, than: u64) -> bool {
    more.saturating_mul(10) <= than.saturating_mul(11)
}

fn count(work: &Path, arguments: &[&str]) -> Result<Counted> {
    let profile = work.with_extension("callgrind");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=work::measured*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(work)
        .args(arguments)
        .output()
        .context("valgrind does not run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {errors}");
    let (total, firmware) = costs(&std::fs::read_to_string(&profile)?)
        .with_context(|| format!("{arguments:?}: what callgrind wrote cannot be read"))?;
    if total == 0 {
        bail!("{arguments:?}: nothing was counted");
    }
    Ok(Counted { total, firmware, output: String::from_utf8(output.stdout)? })
}

/// The sum of a profile, and what the firmware has of it.
fn costs(profile: &str) -> Option<(u64, u64)> {
    let mut firmware = Vec::new();
    let (mut total, mut cost) = (None, 0u64);
    let mut called = "";
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(sum) = line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")) {
            total = sum.trim().parse().ok();
        } else if let Some(name) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            // "(number) name" where it is named first, later the number alone.
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if name.ends_with(FIRMWARE) {
                firmware.push(number);
            }
            called = number;
        } else if line.starts_with("calls=") {
            let inclusive = lines.next()?.split(' ').next_back()?;
            if firmware.contains(&called) {
                cost = cost.saturating_add(inclusive.parse().ok()?);
            }
        }
    }
    Some((total?, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_in_the_firmware_is_told_apart() {
        let profile =
            "fn=(1) work::measured\n5 10\ncfn=(2) <A as x::SeamcallBackend>::seamcall\ncalls=2 7\n5 300\n\
                       cfn=(3) other\ncalls=1 1\n5 40\nfn=(4) more\ncfn=(2)\ncalls=1 7\n+3 7\ntotals: 357\n";
        assert_eq!(costs(profile), Some((357, 307)));
        assert_eq!(costs("fn=(1) x\n"), None);
    }

    #[test]
    fn a_tenth_more_is_the_limit() {
        assert!(within_a_tenth(110, 100) && !within_a_tenth(111, 100));
    }
}
