//! A host as JSON.
//!
//! Each fact is an object: `{"value": .., "source": ..}`, or `{"unknown": .., "reason": ..,
//! "source": ..}` with the problem in words. The interface is `{"value": ..}` or `{"none": ..,
//! "reason": ..}`. Versions are text such as "1.5.05"; MSRs and CPUID values are text such as
//! "0x806f8".

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::fact::{Fact, Reason};
use crate::host::{Host, NoInterface, Socket};

/// A fact, with its value as JSON shows it.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a, T> {
    Value { value: T, source: &'a str },
    Unknown { unknown: &'a str, reason: Reason, source: &'a str },
}

fn shown<'a, T, S>(fact: &'a Fact<T>, show: impl FnOnce(&'a T) -> S) -> Shown<'a, S> {
    match fact {
        Ok(found) => Shown::Value { value: show(&found.value), source: &found.source },
        Err(absent) => Shown::Unknown {
            unknown: &absent.problem,
            reason: absent.reason,
            source: &absent.source,
        },
    }
}

fn as_is<T>(fact: &Fact<T>) -> Shown<'_, &T> {
    shown(fact, |value| value)
}

fn hex(value: impl std::fmt::LowerHex) -> String {
    format!("{value:#x}")
}

/// Why the kernel has no interface, in words and by name.
#[derive(Serialize)]
struct ShownNone<'a> {
    none: String,
    #[serde(flatten)]
    reason: &'a NoInterface,
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut host = serializer.serialize_map(None)?;
        host.serialize_entry("kernel", &as_is(&self.kernel))?;
        host.serialize_entry("command_line", &as_is(&self.command_line))?;
        match &self.interface {
            Ok(value) => {
                host.serialize_entry("interface", &serde_json::json!({ "value": value }))?
            }
            Err(reason) => {
                host.serialize_entry("interface", &ShownNone { none: reason.to_string(), reason })?;
            }
        }
        host.serialize_entry("module", &shown(&self.module, ToString::to_string))?;
        host.serialize_entry("seamldr", &shown(&self.seamldr, ToString::to_string))?;
        host.serialize_entry("remaining_updates", &as_is(&self.remaining_updates))?;
        host.serialize_entry("upload_status", &as_is(&self.upload_status))?;
        host.serialize_entry("sockets", &as_is(&self.sockets))?;
        host.serialize_entry("present", &as_is(&self.present))?;
        host.serialize_entry("online", &as_is(&self.online))?;
        host.serialize_entry("platform", &as_is(&self.platform))?;
        host.serialize_entry("smt", &as_is(&self.smt))?;
        host.serialize_entry("tdx_flag", &as_is(&self.tdx_flag))?;
        host.serialize_entry("erratum", &as_is(&self.erratum))?;
        host.serialize_entry("vmx_basic", &shown(&self.vmx_basic, hex))?;
        host.serialize_entry("seamrr_base", &shown(&self.seamrr_base, hex))?;
        host.serialize_entry("seamrr_mask", &shown(&self.seamrr_mask, hex))?;
        host.serialize_entry("debug_mode", &shown(&self.debug_mode, hex))?;
        host.serialize_entry("cache_leaf", &shown(&self.cache_leaf, |leaf| leaf.map(hex)))?;
        host.serialize_entry("kvm_tdx", &as_is(&self.kvm_tdx))?;
        host.serialize_entry("staged", &self.staged)?;
        host.end()
    }
}

impl Serialize for Socket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut socket = serializer.serialize_struct("Socket", 7)?;
        socket.serialize_field("id", &self.id)?;
        socket.serialize_field("family", &self.family)?;
        socket.serialize_field("model", &self.model)?;
        socket.serialize_field("stepping", &self.stepping)?;
        socket.serialize_field("signature", &hex(self.signature()))?;
        socket.serialize_field("microcode", &self.microcode.map(hex))?;
        socket.serialize_field("online_lps", &self.online_lps)?;
        socket.end()
    }
}
