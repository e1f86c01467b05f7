//! The scenarios of `cargo xtask tdx-host test`. Each boots the kernel, and compares the plugin's
//! state of the platform with the expected one.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tdx_seamldr_mock::{released_images, ReleasedImage};

use super::guest::{Guest, Machine};
use super::operators::{operate, OPERATORS};
use super::recorded::{self, Recorded};
use super::refusals::{largest, refuses, MISFITS};
use super::resets::{kexec, reboot};
use super::{Kernel, GRANITE_RAPIDS, PLACE, SAPPHIRE_RAPIDS};
use crate::debian::Debian;

/// How many times as long a boot may take with the plugin.
const MAX_SLOWDOWN: f32 = 1.5;
/// The time limit from the start of QEMU with 4 CPUs to the first program.
const MAX_BOOT: Duration = Duration::from_secs(10);
/// How long updates race with hotplug.
const RACE: Duration = Duration::from_secs(60);
/// TDs of the platform.
pub(super) const TDS: u64 = 3;

/// The scenarios' shared data.
struct Scenarios<'a> {
    debian: &'a Debian,
    kernel: Kernel,
    images: Vec<ReleasedImage>,
    only: &'a str,
    failed: Vec<String>,
    count: usize,
}

pub(super) fn run(debian: &Debian, kernel: Kernel, only: &str) -> Result<()> {
    let images = released_images()?.context("the scenarios need Intel's images")?;
    let recorded = recorded::all()?;
    let uploads = recorded::images(&recorded);
    kernel.give_initramfs(debian, &uploads)?;
    give_images(debian, &images)?;
    let start = Instant::now();
    let mut scenarios = Scenarios { debian, kernel, images, only, failed: Vec::new(), count: 0 };
    scenarios.boots();
    if kernel.has_source() {
        scenarios.one("carry-flag", carry_flag);
        scenarios.one("random-accesses", random_accesses);
    }
    scenarios.one("window", window);
    scenarios.one("until-none-remain", until_none_remain);
    scenarios.one("reboot", reboot);
    scenarios.one("kexec", kexec);
    scenarios.one("erratum", erratum);
    scenarios.one("slowdown", slowdown);
    scenarios.one("race", race);
    if kernel == Kernel::Plain {
        scenarios.watched(&uploads)?;
    }
    scenarios.recorded(&recorded);
    scenarios.operators();
    scenarios.refusals();
    let (count, failed) = (scenarios.count, &scenarios.failed);
    println!("\n{count} scenarios in {} s", start.elapsed().as_secs());
    ensure!(count != 0, "no scenario has {only:?} in its name");
    ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// A boot and an update.
pub(super) fn smoke(debian: &Debian) -> Result<()> {
    let images = released_images()?.context("the update needs Intel's images")?;
    Kernel::Plain.give_initramfs(debian, &[])?;
    give_images(debian, &images)?;
    let start = Instant::now();
    let mut guest = Guest::start(debian, &machine(Kernel::Plain, "1.5.05", 4, &[]))?;
    expect_running(&mut guest, "1.5.05")?;
    guest.succeeds("upload /images/1.5.16.v2")?;
    expect_running(&mut guest, "1.5.16")?;
    println!(
        "Linux initialises TDX module 1.5.05 and replaces it with 1.5.16: boot {:.1} s, in all \
         {:.1} s",
        guest.booted_in.as_secs_f32(),
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Puts the images that the BIOS loads into the root.
pub(super) fn give_images(debian: &Debian, images: &[ReleasedImage]) -> Result<()> {
    for image in images {
        debian.give(&image.path, &format!("tdx-host/images/{}", image.version))?;
    }
    Ok(())
}

/// Returns a machine for one of Intel's images.
pub(super) fn machine(kernel: Kernel, version: &str, cpus: u32, options: &[&str]) -> Machine {
    let processor = if version.starts_with("2.") { GRANITE_RAPIDS } else { SAPPHIRE_RAPIDS };
    let mut plugin = vec![format!("image=/{PLACE}/images/{version}"), format!("tds={TDS}")];
    plugin.extend(options.iter().map(|option| (*option).to_owned()));
    Machine::new(kernel, cpus, processor, plugin)
}

pub(super) fn number(state: &Value, name: &str) -> u64 {
    state.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

fn module<'a>(state: &'a Value, name: &str) -> &'a str {
    state.pointer(&format!("/module/{name}")).and_then(Value::as_str).unwrap_or("none")
}

/// Checks that kernel and plugin show this module as ready, and that all TDs are alive.
pub(super) fn expect_running(guest: &mut Guest, version: &str) -> Result<()> {
    let state = guest.state()?;
    let shown = guest.succeeds("cat $device/version")?;
    ensure!(shown == version, "the kernel shows version {shown}, not {version}");
    expect_ready(&state, version)
}

/// Checks that the plugin shows this module as ready, and that all TDs are alive.
pub(super) fn expect_ready(state: &Value, version: &str) -> Result<()> {
    ensure!(module(state, "version") == version, "{state}");
    ensure!(module(state, "state") == "SYS_READY", "{state}");
    ensure!(number(state, "tds_alive") == TDS, "{state}");
    Ok(())
}

impl Scenarios<'_> {
    /// Runs a scenario and prints its line.
    fn scenario(&mut self, name: &str, run: impl FnOnce(&Debian) -> Result<String>) {
        if !name.contains(self.only) {
            return;
        }
        self.count = self.count.saturating_add(1);
        let start = Instant::now();
        let (mark, said) = match run(self.debian) {
            Ok(said) => ("ok", said),
            Err(error) => {
                self.failed.push(name.to_owned());
                ("FAILED", format!("{error:#}"))
            }
        };
        println!("| {name} | {mark} | {said} | {:.1} s |", start.elapsed().as_secs_f32());
    }

    fn one(&mut self, name: &str, run: fn(&Debian, Kernel) -> Result<String>) {
        let kernel = self.kernel;
        self.scenario(name, |debian| run(debian, kernel));
    }

    /// Runs updates and the race in a kernel that checks locks, sleeping and memory.
    fn watched(&mut self, images: &[(String, Vec<u8>)]) -> Result<()> {
        let (kernel, name) = (Kernel::Watched, "debug-kernel");
        if !name.contains(self.only) {
            return Ok(());
        }
        if !kernel.is_built(self.debian) {
            ensure!(self.only.is_empty(), "{name}: `prepare --debug-kernel` builds its kernel");
            println!("| {name} | not run | `prepare --debug-kernel` builds the kernel | |");
            return Ok(());
        }
        kernel.give_initramfs(self.debian, images)?;
        self.scenario(name, |debian| watched(debian, kernel));
        Ok(())
    }

    /// Boots each of Intel's images with each number of CPUs, and checks its initialisation.
    fn boots(&mut self) {
        println!("\n| boot | | | |\n|---|---|---|---|");
        let versions: Vec<String> = self.images.iter().map(|image| image.version.clone()).collect();
        for version in versions {
            for cpus in [1, 4, 16] {
                let kernel = self.kernel;
                self.scenario(&format!("boot-{version}-{cpus}"), |debian| {
                    let machine = machine(kernel, &version, cpus, &[]);
                    let mut guest = Guest::start(debian, &machine)?;
                    expect_running(&mut guest, &version)?;
                    Ok(format!("first program after {:.1} s", guest.booted_in.as_secs_f32()))
                });
            }
        }
    }

    fn recorded(&mut self, recorded: &[Recorded]) {
        println!(
            "\n| recorded | | TDs after one upload, and after a second one of a good image; the \
             kernel | |\n|---|---|---|---|"
        );
        let kernel = self.kernel;
        for recorded in recorded {
            self.scenario(&format!("recorded-{}", recorded.title()), |debian| {
                recorded.run(debian, kernel)
            });
        }
    }

    fn operators(&mut self) {
        println!(
            "\n| why the update must fail | | TDs lost by `cat image > data`, by `tdx-seamldr \
             update` | |\n|---|---|---|---|"
        );
        let kernel = self.kernel;
        for operator in &OPERATORS {
            self.scenario(&format!("operator: {}", operator.what), |debian| {
                operate(debian, kernel, operator)
            });
        }
    }

    fn refusals(&mut self) {
        println!("\n| machine | | QEMU ends with | |\n|---|---|---|---|");
        let kernel = self.kernel;
        for misfit in &MISFITS {
            self.scenario(&format!("refusal: {}", misfit.what), |debian| {
                refuses(debian, kernel, misfit)
            });
        }
        self.one("largest-memory", largest);
    }
}

/// Returns the line that the kernel module `probe` prints.
fn probe(guest: &mut Guest, parameters: &str) -> Result<String> {
    let said =
        guest.shell(&format!("dmesg -c > /dev/null; insmod /probe.ko {parameters}; dmesg"))?.text;
    let line = said.lines().find_map(|line| Some(line.split_once("probe: ")?.1.to_owned()));
    line.with_context(|| format!("the module `probe` printed no line: {said}"))
}

/// Checks that code of each of 10 forms behind SEAMCALL sees the carry flag.
fn carry_flag(debian: &Debian, kernel: Kernel) -> Result<String> {
    let mut guest = Guest::start(debian, &machine(kernel, "1.5.05", 1, &[]))?;
    let succeeded = probe(&mut guest, "")?;
    let fault = json!({ "leaf": "TDH.SYS.LP.SHUTDOWN", "status": "VMFAILINVALID", "times": 1000 });
    guest.change(&json!({ "fault": fault }))?;
    let failed = probe(&mut guest, "")?;
    ensure!(
        succeeded == "carry 0000000000" && failed == "carry 1111111111",
        "{succeeded} and {failed}"
    );
    Ok("10 forms of code behind SEAMCALL".to_owned())
}

/// Checks that random accesses cause no error in the plugin.
fn random_accesses(debian: &Debian, kernel: Kernel) -> Result<String> {
    let mut guest = Guest::start(debian, &machine(kernel, "1.5.05", 1, &[]))?;
    let said = probe(&mut guest, "random_calls=30000")?;
    let state = guest.state()?;
    let errors = state.pointer("/counters/internal_errors").and_then(Value::as_u64);
    ensure!(errors == Some(0), "{state}");
    let calls = state.pointer("/counters/seamcalls").and_then(Value::as_u64).unwrap_or(0);
    Ok(format!("{said}; {calls} SEAMCALLs in all"))
}

/// Counts the SEAMCALLs while Linux has all CPUs stopped: from the read of the handoff version
/// before the shutdown to the reads of the new version.
fn window(debian: &Debian, kernel: Kernel) -> Result<String> {
    let mut all = Vec::new();
    for cpus in [1, 4, 16] {
        let mut guest = Guest::start(debian, &machine(kernel, "1.5.05", cpus, &[]))?;
        guest.succeeds("upload /images/1.5.16.v2")?;
        expect_running(&mut guest, "1.5.16")?;
        let trace = guest.trace()?;
        let lines: Vec<&str> = trace.lines().collect();
        let is = |line: &&str, leaf: &str| line.contains(leaf);
        let shutdown =
            lines.iter().position(|line| is(line, "TDH.SYS.SHUTDOWN")).context("no shutdown")?;
        let update =
            lines.iter().rposition(|line| is(line, "TDH.SYS.UPDATE")).context("no update")?;
        let reads =
            lines.iter().skip(update).skip(1).take_while(|line| is(line, "TDH.SYS.RD ")).count();
        let calls = update.saturating_sub(shutdown).saturating_add(reads).saturating_add(2);
        let wanted = usize::try_from(cpus)?.saturating_mul(2).saturating_add(7);
        ensure!(
            calls == wanted,
            "{calls} SEAMCALLs with {cpus} CPUs, not 2N+7 = {wanted}:\n{trace}"
        );
        all.push(format!("{calls} with {cpus} CPUs"));
    }
    Ok(format!("SEAMCALLs while all CPUs are stopped: {} (2N+7)", all.join(", ")))
}

/// Updates back to back until no update remains.
fn until_none_remain(debian: &Debian, kernel: Kernel) -> Result<String> {
    let mut guest = Guest::start(debian, &machine(kernel, "1.5.05", 4, &["remaining-updates=5"]))?;
    for remaining in (0..5).rev() {
        guest.succeeds("upload /images/1.5.16.v2")?;
        expect_running(&mut guest, "1.5.16")?;
        let shown = guest.succeeds("cat $device/num_remaining_updates")?;
        ensure!(
            shown == remaining.to_string(),
            "the kernel shows {shown} remaining updates, not {remaining}"
        );
    }
    Ok("5 updates, none remain".to_owned())
}

/// Checks that the kernel offers no upload on a processor with the erratum of SEAMRET.
fn erratum(debian: &Debian, kernel: Kernel) -> Result<String> {
    let mut guest = Guest::start(debian, &machine(kernel, "1.5.05", 2, &["erratum=on"]))?;
    expect_running(&mut guest, "1.5.05")?;
    let said = guest.shell("upload /images/1.5.16.v2")?;
    ensure!(said.status != 0, "the kernel offers an upload");
    expect_running(&mut guest, "1.5.05")?;
    Ok(said.text)
}

/// Measures the time to the first program, with the plugin and without. The time with the plugin
/// has a limit, and so has its ratio to the time without.
fn slowdown(debian: &Debian, kernel: Kernel) -> Result<String> {
    let with = machine(kernel, "1.5.05", 4, &[]);
    let without = Machine { plugin: None, ..with.clone() };
    let mut best = [Duration::MAX; 2];
    for _ in 0..3 {
        for (machine, best) in [&with, &without].into_iter().zip(&mut best) {
            *best = Guest::start(debian, machine)?.booted_in.min(*best);
        }
    }
    let [with, without] = best.map(|best| best.as_secs_f32());
    let said = format!(
        "first program after {with:.2} s with the plugin, {without:.2} s without: {:.2} times",
        with / without
    );
    ensure!(
        best.first().is_some_and(|with| *with <= MAX_BOOT),
        "{said}; it should be at most {} s",
        MAX_BOOT.as_secs()
    );
    ensure!(with / without <= MAX_SLOWDOWN, "{said}; it should be at most {MAX_SLOWDOWN} times");
    Ok(said)
}

/// Updates race with CPU hotplug and with readers of `version`. An update that begins while a CPU
/// is offline loses the TDs, as on hardware. No other update loses them.
fn race(debian: &Debian, kernel: Kernel) -> Result<String> {
    let machine = machine(kernel, "1.5.05", 4, &["remaining-updates=10000"]);
    let start = Instant::now();
    let (mut updates, mut lost) = (0u32, 0u32);
    while start.elapsed() < RACE {
        let mut guest = Guest::start(debian, &machine)?;
        guest.succeeds("while :; do cat $device/version; done > /dev/null 2>&1 & reader=$!")?;
        guest.succeeds(
            "while :; do sleep 3; offline 2; online 2; done > /dev/null 2>&1 & hotplug=$!",
        )?;
        while start.elapsed() < RACE {
            let said = guest.shell("upload /images/1.5.16.v2")?;
            let state = guest.state()?;
            if number(&state, "tds_alive") == TDS {
                ensure!(said.text.is_empty(), "the TDs live, but the kernel says {}", said.text);
                updates = updates.saturating_add(1);
                continue;
            }
            let arrived = state.get("session").and_then(Value::as_array).map_or(0, Vec::len);
            ensure!(
                arrived == 3,
                "the TDs are lost, and {arrived} LPs called INSTALL, not the 3 that are online \
                 without CPU 2: {state}"
            );
            lost = lost.saturating_add(1);
            break;
        }
        guest.succeeds("kill $reader $hotplug")?;
        expect_no_complaints(&mut guest)?;
    }
    ensure!(updates != 0, "no update succeeded; {lost} found CPU 2 offline");
    Ok(format!("updates: {updates}; losses, each with CPU 2 offline: {lost}"))
}

/// Checks that the kernel's log has no warning, also none of lockdep.
fn expect_no_complaints(guest: &mut Guest) -> Result<()> {
    let complaints = guest.shell(
        "dmesg | grep -E 'BUG|WARNING|Oops|INFO: |lockup|stall|deadlock|inconsistent|poison'",
    )?;
    ensure!(complaints.text.is_empty(), "the kernel complains: {}", complaints.text);
    Ok(())
}

/// Checks that the debug kernel's lockdep and its checks of sleeping and memory report nothing
/// during boot, updates, a failed update and the race.
fn watched(debian: &Debian, kernel: Kernel) -> Result<String> {
    let mut guest = Guest::start(debian, &machine(kernel, "1.5.05", 4, &[]))?;
    let booted_in = guest.booted_in.as_secs_f32();
    // Lockdep is active: it switches itself off after its first report.
    let expect_lockdep = |guest: &mut Guest| -> Result<()> {
        guest.succeeds("grep -q 'debug_locks: *1$' /proc/lockdep_stats").map(drop)
    };
    expect_lockdep(&mut guest)?;
    expect_running(&mut guest, "1.5.05")?;
    guest.succeeds("upload /images/1.5.16.v2")?;
    expect_running(&mut guest, "1.5.16")?;
    guest.shell("upload /images/flipped.v2")?;
    ensure!(number(&guest.state()?, "tds_alive") == 0, "a damaged image keeps the TDs");
    guest.shell("upload /images/1.5.16.v2")?;
    expect_no_complaints(&mut guest)?;
    expect_lockdep(&mut guest)?;
    drop(guest);
    let raced = race(debian, kernel)?;
    Ok(format!("first program after {booted_in:.1} s; no complaint; {raced}"))
}
