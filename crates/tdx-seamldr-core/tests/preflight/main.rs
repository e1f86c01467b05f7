//! Tests of each finding of preflight. Each test changes one property of an image or a machine that
//! pass together.
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
mod messages;
mod passed;
mod platform;
mod purpose;
mod unknowns;
mod world;
