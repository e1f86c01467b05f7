//! Writes values as JSON.

use std::fmt::Display;

use serde::{Serialize, Serializer};
use tdx_seamldr_core::Sha384Digest;

use crate::text::hex;

/// Writes a value as its text.
pub(super) fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Writes a value as its text, or null.
pub(super) fn optional<S: Serializer>(
    value: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(serializer)
}

/// Writes a digest as hexadecimal digits.
pub(super) fn digest<S: Serializer>(
    digest: &Sha384Digest,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(digest))
}

/// Writes CPUs as CPUID.1:EAX in hexadecimal digits.
pub(super) fn cpus<S: Serializer>(cpus: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(cpus.iter().map(|cpu| format!("{cpu:#010x}")))
}
