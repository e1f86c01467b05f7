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

/// The fields that most operators share. Updates 1.5.05 to 1.5.16.
const USUAL: Operator = Operator {
    what: "",
    running: "1.5.05",
    smt: false,
    options: &[],
    before: "",
    file: "1.5.16.v2",
    reason: "",
};

pub(super) const OPERATORS: [Operator; 9] = [
    Operator { what: "a CPU is offline", before: "offline 3", reason: "[lps-missing]", ..USUAL },
    Operator {
        what: "SMT is switched off",
        smt: true,
        before: "echo off > /sys/devices/system/cpu/smt/control",
        reason: "[lps-missing]",
        ..USUAL
    },
    Operator {
        what: "no updates are left",
        options: &["remaining-updates=0"],
        reason: "[no-remaining-updates]",
        ..USUAL
    },
    Operator {
        what: "the image is for other processors",
        file: "2.0.08.v2",
        reason: "[platform]",
        ..USUAL
    },
    Operator {
        what: "the SVN is lower",
        running: "1.5.16",
        file: "1.5.05.v2",
        reason: "[minor-svn]",
        ..USUAL
    },
    Operator {
        what: "a bit of the image is flipped",
        file: "flipped.v2",
        reason: "[image-hash]",
        ..USUAL
    },
    Operator {
        what: "the image is signed by someone else",
        file: "recorded/good",
        reason: "[signer]",
        ..USUAL
    },
    Operator {
        what: "the handoff versions do not match",
        file: "recorded/hv-old0-new1-min1",
        reason: "[handoff-version]",
        ..USUAL
    },
    Operator {
        what: "the image has no pages",
        file: "recorded/zero-module-pages",
        reason: "at least 1",
        ..USUAL
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
    // The command breaks its lines. Each reason begins with a dash; advice follows an arrow.
    let text = said.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = text
        .split(" - ")
        .filter_map(|part| part.split(" => ").next())
        .find(|part| part.contains(operator.reason))
        .unwrap_or_default();
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
