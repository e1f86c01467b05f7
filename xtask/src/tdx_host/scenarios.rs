//! The scenarios of `cargo xtask tdx-host test`: each boots the kernel, and is judged by what the
//! plugin says of the platform.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tdx_seamldr_mock::{released_images, ReleasedImage};

use super::guest::{Guest, Machine};
use super::recorded;
use super::{give_initramfs, GRANITE_RAPIDS, PLACE, SAPPHIRE_RAPIDS};
use crate::debian::Debian;

/// From the start of QEMU with 4 CPUs to the first program, at most.
const MAX_BOOT: Duration = Duration::from_secs(10);
/// How long updates race with hotplug.
const RACE: Duration = Duration::from_secs(60);
/// TDs of the platform.
const TDS: u64 = 3;

/// What the scenarios share.
struct Scenarios<'a> {
    debian: &'a Debian,
    images: Vec<ReleasedImage>,
    only: &'a str,
    failed: Vec<String>,
    count: usize,
}

/// What an operator does, and what stands against it.
struct Operator {
    what: &'static str,
    /// The image that runs.
    running: &'static str,
    /// More options of the plugin.
    options: &'static [&'static str],
    /// What is done in the guest before.
    before: &'static str,
    /// The file of the update.
    file: &'static str,
    /// The reason that the command gives, or part of it.
    reason: &'static str,
}

const OPERATORS: [Operator; 9] = [
    Operator {
        what: "a CPU is offline",
        running: "1.5.05",
        options: &[],
        before: "offline 3",
        file: "1.5.16.v2",
        reason: "[lps-missing]",
    },
    Operator {
        what: "SMT is switched off",
        running: "1.5.05",
        options: &["smt"],
        before: "echo off > /sys/devices/system/cpu/smt/control",
        file: "1.5.16.v2",
        reason: "[lps-missing]",
    },
    Operator {
        what: "no updates are left",
        running: "1.5.05",
        options: &["remaining-updates=0"],
        before: "",
        file: "1.5.16.v2",
        reason: "[no-remaining-updates]",
    },
    Operator {
        what: "the image is for other processors",
        running: "1.5.05",
        options: &[],
        before: "",
        file: "2.0.08.v2",
        reason: "[",
    },
    Operator {
        what: "the SVN is lower",
        running: "1.5.16",
        options: &[],
        before: "",
        file: "1.5.05.v2",
        reason: "[minor-svn]",
    },
    Operator {
        what: "a bit of the image is flipped",
        running: "1.5.05",
        options: &[],
        before: "",
        file: "flipped.v2",
        reason: "[",
    },
    Operator {
        what: "the image is signed by someone else",
        running: "1.5.05",
        options: &[],
        before: "",
        file: "recorded/good",
        reason: "[",
    },
    Operator {
        what: "the handoff versions do not match",
        running: "1.5.05",
        options: &[],
        before: "",
        file: "recorded/hv-old0-new1-min1",
        reason: "[",
    },
    Operator {
        what: "the image has no pages",
        running: "1.5.05",
        options: &[],
        before: "",
        file: "recorded/zero-module-pages",
        reason: "at least 1",
    },
];

pub(super) fn run(debian: &Debian, only: &str) -> Result<()> {
    let images = released_images()?.context("the scenarios need Intel's images")?;
    let runs = recorded::runs()?;
    give_initramfs(debian, &runs.iter().map(recorded::Run::image).collect::<Vec<_>>())?;
    for image in &images {
        debian.give(&image.path, &format!("tdx-host/images/{}", image.version))?;
    }
    let start = Instant::now();
    let mut scenarios = Scenarios { debian, images, only, failed: Vec::new(), count: 0 };
    scenarios.boots();
    scenarios.one("carry-flag", carry_flag);
    scenarios.one("random-accesses", random_accesses);
    scenarios.one("window", window);
    scenarios.one("until-none-remain", until_none_remain);
    scenarios.one("reboot", reboot);
    scenarios.one("erratum", erratum);
    scenarios.one("slowdown", slowdown);
    scenarios.one("race", race);
    scenarios.recorded(&runs);
    scenarios.operators();
    let (count, failed) = (scenarios.count, &scenarios.failed);
    println!("{count} scenarios in {} s", start.elapsed().as_secs());
    ensure!(count != 0, "no scenario has {only:?} in its name");
    ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// A machine for an image of Intel's.
fn machine(version: &str, cpus: u32, options: &[&str]) -> Machine {
    let processor = if version.starts_with("2.") { GRANITE_RAPIDS } else { SAPPHIRE_RAPIDS };
    let mut plugin = vec![format!("image=/{PLACE}/images/{version}"), format!("tds={TDS}")];
    plugin.extend(options.iter().map(|option| (*option).to_owned()));
    Machine {
        cpus,
        processor: processor.to_owned(),
        plugin: Some(plugin),
        kernel: String::new(),
        smt: false,
        reboots: false,
    }
}

fn number(state: &Value, name: &str) -> u64 {
    state.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

fn module<'a>(state: &'a Value, name: &str) -> &'a str {
    state.pointer(&format!("/module/{name}")).and_then(Value::as_str).unwrap_or("none")
}

/// Checks what the kernel and the plugin say of the module, and that all TDs live.
fn expect_running(guest: &mut Guest, version: &str) -> Result<()> {
    let state = guest.state()?;
    let shown = guest.succeeds("cat $device/version")?;
    ensure!(shown == version, "the kernel shows version {shown}, not {version}");
    ensure!(module(&state, "version") == version, "{state}");
    ensure!(module(&state, "state") == "SYS_READY", "{state}");
    ensure!(number(&state, "tds_alive") == TDS, "{state}");
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

    fn one(&mut self, name: &str, run: fn(&Debian) -> Result<String>) {
        self.scenario(name, run);
    }

    /// Each image of Intel's, with each number of CPUs: boot and initialisation.
    fn boots(&mut self) {
        println!("\n| boot | | | |\n|---|---|---|---|");
        let versions: Vec<String> = self.images.iter().map(|image| image.version.clone()).collect();
        for version in versions {
            for cpus in [1, 4, 16] {
                self.scenario(&format!("boot-{version}-{cpus}"), |debian| {
                    let mut guest = Guest::start(debian, &machine(&version, cpus, &[]))?;
                    expect_running(&mut guest, &version)?;
                    Ok(format!("first program after {:.1} s", guest.booted_in.as_secs_f32()))
                });
            }
        }
    }

    fn recorded(&mut self, runs: &[recorded::Run]) {
        println!("\n| recorded | | TDs; the kernel | |\n|---|---|---|---|");
        for run in runs {
            self.scenario(&format!("recorded-{}", run.name), |debian| run.run(debian));
        }
    }

    fn operators(&mut self) {
        println!(
            "\n| what stands against the update | | TDs lost by `cat image > data`, by \
             `tdx-seamldr update` | |\n|---|---|---|---|"
        );
        for operator in &OPERATORS {
            self.scenario(&format!("operator: {}", operator.what), |debian| {
                operate(debian, operator)
            });
        }
    }
}

/// The update by the kernel alone, and by the command, each in a boot of its own.
fn operate(debian: &Debian, operator: &Operator) -> Result<String> {
    let options: Vec<&str> =
        operator.options.iter().copied().filter(|option| *option != "smt").collect();
    let mut machine = machine(operator.running, 4, &options);
    if operator.options.contains(&"smt") {
        machine.smt = true;
    }
    let start = |debian| -> Result<Guest> {
        let mut guest = Guest::start(debian, &machine)?;
        expect_running(&mut guest, operator.running)?;
        if !operator.before.is_empty() {
            guest.succeeds(operator.before)?;
        }
        Ok(guest)
    };
    let lost = |state: &Value| TDS.saturating_sub(number(state, "tds_alive"));
    let mut guest = start(debian)?;
    let kernel = guest.shell(&format!("upload /images/{}", operator.file))?.text;
    let by_kernel = lost(&guest.state()?);
    drop(guest);

    let mut guest = start(debian)?;
    let said = guest.shell(&format!(
        "tdx-seamldr update --image-dir /images/intel --no-td-launches /images/{}",
        operator.file
    ))?;
    let by_command = lost(&guest.state()?);
    let reason =
        said.text.lines().find(|line| line.contains(operator.reason)).unwrap_or_default().trim();
    ensure!(
        said.status == 1 && !reason.is_empty(),
        "the command ended with {}: {}",
        said.status,
        said.text
    );
    ensure!(by_command == 0, "the command refuses, but {by_command} TDs are lost");
    ensure!(by_kernel == TDS, "the kernel alone loses {by_kernel} TDs: {kernel:?}");
    Ok(format!("{by_kernel} of {TDS}, {by_command}; {reason}"))
}

/// What the kernel module `probe` prints.
fn probe(guest: &mut Guest, parameters: &str) -> Result<String> {
    let said =
        guest.shell(&format!("dmesg -c > /dev/null; insmod /probe.ko {parameters}; dmesg"))?.text;
    let line = said.lines().find_map(|line| Some(line.split_once("probe: ")?.1.to_owned()));
    line.with_context(|| format!("the module says nothing: {said}"))
}

/// Every form of code behind SEAMCALL that the plugin covers sees the carry flag.
fn carry_flag(debian: &Debian) -> Result<String> {
    let mut guest = Guest::start(debian, &machine("1.5.05", 1, &[]))?;
    let succeeded = probe(&mut guest, "")?;
    guest.ask(&json!({ "command": "change",
        "change": { "fault": { "leaf": "TDH.SYS.LP.SHUTDOWN", "status": "VMFAILINVALID", "times": 1000 } } }))?;
    let failed = probe(&mut guest, "")?;
    ensure!(
        succeeded == "carry 0000000000" && failed == "carry 1111111111",
        "{succeeded} and {failed}"
    );
    Ok("10 forms of code behind SEAMCALL".to_owned())
}

/// Accesses at random do no harm to QEMU.
fn random_accesses(debian: &Debian) -> Result<String> {
    let mut guest = Guest::start(debian, &machine("1.5.05", 1, &[]))?;
    let said = probe(&mut guest, "random_calls=30000")?;
    let state = guest.state()?;
    let errors = state.pointer("/counters/internal_errors").and_then(Value::as_u64);
    ensure!(errors == Some(0), "{state}");
    let calls = state.pointer("/counters/seamcalls").and_then(Value::as_u64).unwrap_or(0);
    Ok(format!("{said}; {calls} SEAMCALLs in all"))
}

/// SEAMCALLs while Linux has all CPUs stopped: from the read of the handoff version before the
/// shutdown to the reads of the new version.
fn window(debian: &Debian) -> Result<String> {
    let mut all = Vec::new();
    for cpus in [1, 4, 16] {
        let mut guest = Guest::start(debian, &machine("1.5.05", cpus, &[]))?;
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

/// Back-to-back updates.
fn until_none_remain(debian: &Debian) -> Result<String> {
    let mut guest = Guest::start(debian, &machine("1.5.05", 4, &["remaining-updates=5"]))?;
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

/// A reset of the machine after an update: the BIOS has loaded the first module again.
fn reboot(debian: &Debian) -> Result<String> {
    let mut machine = machine("1.5.05", 4, &[]);
    machine.reboots = true;
    let mut guest = Guest::start(debian, &machine)?;
    guest.succeeds("upload /images/1.5.16.v2")?;
    expect_running(&mut guest, "1.5.16")?;
    guest.reboot()?;
    expect_running(&mut guest, "1.5.05")?;
    // The BIOS resets the machine once more after a reset.
    let resets = guest.state()?.pointer("/counters/resets").and_then(Value::as_u64);
    ensure!(resets.is_some_and(|resets| resets >= 1), "{resets:?} resets");
    Ok("the first module runs again".to_owned())
}

/// The erratum of SEAMRET: the kernel offers no upload.
fn erratum(debian: &Debian) -> Result<String> {
    let mut guest = Guest::start(debian, &machine("1.5.05", 2, &["erratum=on"]))?;
    expect_running(&mut guest, "1.5.05")?;
    let said = guest.shell("upload /images/1.5.16.v2")?;
    ensure!(said.status != 0, "the kernel offers an upload");
    expect_running(&mut guest, "1.5.05")?;
    Ok(said.text)
}

/// The time to the first program, with the plugin and without.
fn slowdown(debian: &Debian) -> Result<String> {
    let with = machine("1.5.05", 4, &[]);
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
    Ok(said)
}

/// Updates race with CPUs that come and go, and with readers of `version`. An update that begins
/// while a CPU is offline loses the TDs, as on hardware, and nothing else does.
fn race(debian: &Debian) -> Result<String> {
    let machine = machine("1.5.05", 4, &["remaining-updates=10000"]);
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
            ensure!(arrived == 3, "the TDs are lost, but not for want of CPU 2: {state}");
            lost = lost.saturating_add(1);
            break;
        }
        guest.succeeds("kill $reader $hotplug")?;
        let complaints = guest.shell("dmesg | grep -E 'BUG|WARNING|Oops|lockup|stall'")?.text;
        ensure!(complaints.is_empty(), "the kernel complains: {complaints}");
    }
    ensure!(updates != 0, "no update came to its end; {lost} found CPU 2 offline");
    Ok(format!("{updates} updates; {lost} others lost the TDs, CPU 2 being offline"))
}
