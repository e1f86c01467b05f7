//! Starts another kernel after an update: by a reset of the machine, and by kexec.

use anyhow::{ensure, Result};

use super::guest::{Guest, Machine};
use super::scenarios::{expect_ready, expect_running, machine};
use super::Kernel;
use crate::debian::Debian;

/// A reset of the machine after an update: the BIOS has loaded the first module again.
pub(super) fn reboot(debian: &Debian, kernel: Kernel) -> Result<String> {
    let machine = Machine { reboots: true, ..machine(kernel, "1.5.05", 4, &[]) };
    let mut guest = Guest::start(debian, &machine)?;
    for _ in 0..2 {
        guest.succeeds("upload /images/1.5.16.v2")?;
        expect_running(&mut guest, "1.5.16")?;
        guest.restart("reboot -f")?;
        expect_running(&mut guest, "1.5.05")?;
    }
    // The BIOS resets the machine once more after a reset.
    let resets = guest.state()?.pointer("/counters/resets").and_then(serde_json::Value::as_u64);
    ensure!(resets.is_some_and(|resets| resets >= 2), "{resets:?} resets");
    Ok("twice: an update, a reset, and the first module runs again".to_owned())
}

/// kexec after an update. Intel's modules up to 2.0.08 have no TDH.SYS.DISABLE. So the next kernel
/// finds a ready module that it cannot initialise, with its TDs alive. A reset brings the first
/// module back.
pub(super) fn kexec(debian: &Debian, kernel: Kernel) -> Result<String> {
    let machine = Machine {
        reboots: true,
        initramfs: Some(kernel.give_kexec(debian)?),
        ..machine(kernel, "1.5.05", 4, &[])
    };
    let mut guest = Guest::start(debian, &machine)?;
    guest.succeeds("upload /images/1.5.16.v2")?;
    expect_running(&mut guest, "1.5.16")?;
    let uptime = |guest: &mut Guest| guest.succeeds("cut -d. -f1 /proc/uptime");
    let before = uptime(&mut guest)?;
    guest.restart(
        "cd /kexec; exec ./kexec bzImage initrd-after.gz \"$(cat /proc/cmdline) second\"",
    )?;
    guest.succeeds("grep -q second /proc/cmdline")?;
    let said = guest.succeeds("dmesg | grep -i -E 'tdx.*(fail|init)|seamcall'")?;
    let shown = guest.shell("cat $device/version")?;
    ensure!(shown.status != 0, "the second kernel shows module {}", shown.text);
    let state = guest.state()?;
    ensure!(state.pointer("/counters/resets") == Some(&0.into()), "the machine was reset: {state}");
    expect_ready(&state, "1.5.16")?;
    guest.restart("reboot -f")?;
    expect_running(&mut guest, "1.5.05")?;
    Ok(format!(
        "after {before} s of the first kernel the second one says: {}; a reset brings the first \
         module back",
        said.replace('\n', "; ")
    ))
}
