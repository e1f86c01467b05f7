//! Each finding of preflight, by one change of an image and a machine that suit each other.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod handoff;
mod image;
mod passed;
mod platform;
mod purpose;
mod unknowns;
mod world;
