//! LPs that P-SEAMLDR waits for but that are not online, so an update would fail.

use crate::cpu_list::CpuList;
use crate::fact::{Absent, Reason};
use crate::host::Host;

/// The LPs that P-SEAMLDR waits for and that are not online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLps {
    /// The LPs that the kernel knows and that are offline.
    pub offline: CpuList,
    /// The number of LPs that the platform has and the kernel does not know. `None` if the MADT
    /// cannot be read.
    pub unknown_to_kernel: Option<u32>,
}

impl MissingLps {
    /// Whether at least one LP is known to be missing.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.offline.is_empty() || self.unknown_to_kernel.is_some_and(|lps| lps != 0)
    }
}

/// The kernel's folder for LPs.
const CPUS: &str = "/sys/devices/system/cpu";

/// Kernel parameters that keep LPs offline: prefix and effect.
const PARAMETERS: [(&str, &str); 8] = [
    ("nosmt", "leaves the second LP of each core offline"),
    ("maxcpus=", "limits the LPs that are online after boot"),
    ("nr_cpus=", "limits the LPs that the kernel knows"),
    ("possible_cpus=", "limits the LPs that the kernel knows"),
    ("nosmp", "leaves one LP online"),
    ("disable_cpu_apicid=", "leaves an LP offline"),
    ("nolapic", "leaves one LP online"),
    ("nox2apic", "leaves LPs with an APIC ID above 254 offline"),
];

impl Host {
    /// Returns the LPs that P-SEAMLDR waits for and that are not online. `None` if the kernel's
    /// lists cannot be read.
    #[must_use]
    pub fn missing_lps(&self) -> Option<MissingLps> {
        let present = &self.present.as_ref().ok()?.value;
        let online = &self.online.as_ref().ok()?.value;
        let platform = self.platform.as_ref().ok().map(|platform| platform.value.enabled);
        Some(MissingLps {
            offline: present.difference(online),
            unknown_to_kernel: platform.map(|platform| platform.saturating_sub(present.len())),
        })
    }

    /// Returns why LPs are missing and what to do. Empty if no LP is known to be missing.
    #[must_use]
    pub fn lps_explained(&self) -> Vec<String> {
        let Some(missing) = self.missing_lps().filter(MissingLps::is_any) else {
            return Vec::new();
        };
        let mut reasons: Vec<String> = self
            .command_line
            .as_ref()
            .map_or("", |line| line.value.as_str())
            .split_ascii_whitespace()
            .take_while(|word| *word != "--")
            .filter_map(|word| {
                let effect = effect(word)?;
                Some(format!(
                    "the kernel's parameter {word} {effect}: remove it from the command line and \
                     reboot"
                ))
            })
            .collect();
        let smt = self.smt.as_ref().map_or("", |smt| smt.value.as_str());
        if let Some(first) = missing.offline.first() {
            let lps = plural(missing.offline.len());
            let way_out = match smt {
                "off" => format!("echo on > {CPUS}/smt/control"),
                "forceoff" => "remove nosmt=force from the command line and reboot".to_owned(),
                _ if missing.offline.len() == 1 => format!("echo 1 > {CPUS}/cpu{first}/online"),
                _ => format!("echo 1 > {CPUS}/cpu{first}/online, and so for each"),
            };
            let cause = if matches!(smt, "off" | "forceoff") {
                format!(", and SMT is {smt}")
            } else {
                String::new()
            };
            // This remedy needs no reboot, so it comes first.
            reasons.insert(0, format!("offline: {lps} {}{cause}: {way_out}", missing.offline));
        }
        if let Some(unknown @ 1..) = missing.unknown_to_kernel {
            let lps = plural(unknown);
            reasons.push(format!(
                "the kernel does not know {unknown} {lps} of the ACPI MADT: its limit is too low \
                 (nr_cpus=, possible_cpus=, CONFIG_NR_CPUS), or it could not start them (look for \
                 \"smpboot\" in its log)"
            ));
        }
        reasons
    }

    /// Returns CPUID.1:EAX of each socket. Empty if `/proc/cpuinfo` cannot be read.
    #[must_use]
    pub fn signatures(&self) -> Vec<u32> {
        let sockets = self.sockets.as_ref().map_or(&[][..], |sockets| &sockets.value);
        sockets.iter().map(|socket| socket.signature()).collect()
    }

    /// Whether root can read more facts: permissions refuse at least one file.
    #[must_use]
    pub fn is_root_needed(&self) -> bool {
        [
            self.module.as_ref().err(),
            self.seamldr.as_ref().err(),
            self.remaining_updates.as_ref().err(),
            self.platform.as_ref().err(),
            self.vmx_basic.as_ref().err(),
            self.cache_leaf.as_ref().err(),
        ]
        .into_iter()
        .flatten()
        .any(|Absent { reason, .. }| *reason == Reason::Permission)
    }
}

fn plural(lps: u32) -> &'static str {
    if lps == 1 {
        "LP"
    } else {
        "LPs"
    }
}

/// Returns the effect of a kernel parameter on LPs.
fn effect(word: &str) -> Option<&'static str> {
    let is_nosmt_by_mitigations = word
        .strip_prefix("mitigations=")
        .is_some_and(|values| values.split(',').any(|value| value == "nosmt"));
    if is_nosmt_by_mitigations {
        return Some("leaves the second LP of each core offline");
    }
    PARAMETERS
        .iter()
        .find(|(parameter, _)| match parameter.ends_with('=') {
            true => word.starts_with(parameter),
            false => word.split('=').next() == Some(parameter),
        })
        .map(|(_, effect)| *effect)
}
