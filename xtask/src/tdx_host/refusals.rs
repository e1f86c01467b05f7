//! Machines that do not fit: QEMU ends with a message that names the right options. Also the
//! machines with the most memory that fit.

use anyhow::{ensure, Context, Result};

use super::guest::{Guest, Machine};
use super::scenarios::{expect_running, machine};
use super::{Kernel, GRANITE_RAPIDS};
use crate::debian::Debian;

/// A machine that does not fit.
pub(super) struct Misfit {
    pub(super) what: &'static str,
    change: fn(&mut Machine),
    /// Words that the message must contain.
    words: &'static [&'static str],
}

pub(super) const MISFITS: [Misfit; 8] = [
    Misfit {
        what: "16 MiB too much memory",
        change: |machine| machine.memory = "2048",
        words: &["has memory at 0x7f000000", "-m 2032M", "max-ram-below-4g=1G"],
    },
    Misfit {
        what: "4 GiB without max-ram-below-4g",
        change: |machine| machine.memory = "4096",
        words: &["has memory at 0x7f000000", "-m 2032M", "max-ram-below-4g=1G"],
    },
    Misfit {
        what: "CPUs to be added later",
        change: |machine| machine.qemu = words(&["-smp", "4,maxcpus=8"]),
        words: &["has 4 CPUs and could have 8", "extra-lps=4"],
    },
    Misfit {
        what: "CPUs that no number of sockets divides",
        change: |machine| with_options(machine, &["sockets=3"]),
        words: &["sockets=3", "has 4 CPUs, which is no multiple"],
    },
    Misfit {
        what: "sockets of QEMU that the plugin was not told of",
        change: |machine| machine.qemu = words(&["-smp", "6,sockets=2,cores=3"]),
        words: &["its APIC ID is ", "but the platform expects ", "-smp with sockets=1"],
    },
    Misfit {
        what: "another model",
        change: |machine| machine.processor = GRANITE_RAPIDS.to_owned(),
        words: &["not the platform's sapphire-rapids", "CPUID.1:EAX is 0xa06d1", "model=143"],
    },
    Misfit {
        what: "another vendor",
        change: |machine| machine.processor = "max,vendor=AuthenticAMD".to_owned(),
        words: &["not GenuineIntel", "-cpu max,family=6,model=143"],
    },
    Misfit {
        what: "a processor that the image does not list",
        change: |machine| with_options(machine, &["processor=granite-rapids"]),
        words: &["EUNSUPCPU", "processor=sapphire-rapids"],
    },
];

fn with_options(machine: &mut Machine, options: &[&str]) {
    machine.plugin.get_or_insert_with(Vec::new).extend(words(options));
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Checks that QEMU ends with status 1 and a message of the plugin. Returns the message.
pub(super) fn refuses(debian: &Debian, kernel: Kernel, misfit: &Misfit) -> Result<String> {
    let mut machine = machine(kernel, "1.5.05", 4, &[]);
    (misfit.change)(&mut machine);
    let (status, said) = machine.ends(debian)?;
    ensure!(status.code() == Some(1), "QEMU ended with {status}: {said}");
    let line = said.lines().find(|line| line.starts_with("tdx-seamldr-qemu: "));
    let line = line.with_context(|| format!("no message: {said}"))?;
    for words in misfit.words {
        ensure!(line.contains(words), "the message lacks {words:?}: {line}");
    }
    Ok(line.trim_start_matches("tdx-seamldr-qemu: ").to_owned())
}

/// Updates the module with the most memory below 4 GiB, and with memory above 4 GiB.
pub(super) fn largest(debian: &Debian, kernel: Kernel) -> Result<String> {
    let plain = machine(kernel, "1.5.05", 4, &[]);
    let below = Machine { memory: "2032", ..plain.clone() };
    let above =
        Machine { memory: "3072", qemu: words(&["-machine", "max-ram-below-4g=1G"]), ..plain };
    for machine in [below, above] {
        let mut guest = Guest::start(debian, &machine)?;
        expect_running(&mut guest, "1.5.05")?;
        guest.succeeds("upload /images/1.5.16.v2")?;
        expect_running(&mut guest, "1.5.16")?;
    }
    Ok("-m 2032, and -m 3072 with max-ram-below-4g=1G: an update".to_owned())
}
