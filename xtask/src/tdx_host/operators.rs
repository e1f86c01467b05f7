//! Updates that an operator tries although something is wrong, and the fate of the TDs: with the
//! kernel alone, and with the command.

use anyhow::{ensure, Result};
use serde_json::Value;

use super::guest::{Guest, Machine};
use super::scenarios::{expect_running, machine, number, TDS};
use super::Kernel;
use crate::debian::Debian;

/// An update, and the reason why it must fail.
pub(super) struct Operator {
    pub(super) what: &'static str,
    /// The image that runs.
    running: &'static str,
    /// Two CPUs form a core.
    smt: bool,
    /// More options of the plugin.
    options: &'static [&'static str],
    /// The command in the guest before the update; may be empty.
    before: &'static str,
    /// The file of the update.
    file: &'static str,
    /// A part of the reason that the command must give.
    reason: &'static str,
}

pub(super) const OPERATORS: [Operator; 9] = [
    Operator {
        what: "a CPU is offline",
        running: "1.5.05",
        smt: false,
        options: &[],
        before: "offline 3",
        file: "1.5.16.v2",
        reason: "[lps-missing]",
    },
    Operator {
        what: "SMT is switched off",
        running: "1.5.05",
        smt: true,
        options: &[],
        before: "echo off > /sys/devices/system/cpu/smt/control",
        file: "1.5.16.v2",
        reason: "[lps-missing]",
    },
    Operator {
        what: "no updates are left",
        running: "1.5.05",
        smt: false,
        options: &["remaining-updates=0"],
        before: "",
        file: "1.5.16.v2",
        reason: "[no-remaining-updates]",
    },
    Operator {
        what: "the image is for other processors",
        running: "1.5.05",
        smt: false,
        options: &[],
        before: "",
        file: "2.0.08.v2",
        reason: "[platform]",
    },
    Operator {
        what: "the SVN is lower",
        running: "1.5.16",
        smt: false,
        options: &[],
        before: "",
        file: "1.5.05.v2",
        reason: "[minor-svn]",
    },
    Operator {
        what: "a bit of the image is flipped",
        running: "1.5.05",
        smt: false,
        options: &[],
        before: "",
        file: "flipped.v2",
        reason: "[image-hash]",
    },
    Operator {
        what: "the image is signed by someone else",
        running: "1.5.05",
        smt: false,
        options: &[],
        before: "",
        file: "recorded/good",
        reason: "[signer]",
    },
    Operator {
        what: "the handoff versions do not match",
        running: "1.5.05",
        smt: false,
        options: &[],
        before: "",
        file: "recorded/hv-old0-new1-min1",
        reason: "[handoff-version]",
    },
    Operator {
        what: "the image has no pages",
        running: "1.5.05",
        smt: false,
        options: &[],
        before: "",
        file: "recorded/zero-module-pages",
        reason: "at least 1",
    },
];

/// Updates with the kernel alone and with the command, each in its own boot.
pub(super) fn operate(debian: &Debian, kernel: Kernel, operator: &Operator) -> Result<String> {
    let machine = machine(kernel, operator.running, 4, operator.options);
    let machine = Machine { smt: operator.smt, ..machine };
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
    // The command breaks its lines. Each reason begins with a dash.
    let text = said.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = text.split(" - ").find(|part| part.contains(operator.reason)).unwrap_or_default();
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
