//! Explains status words and kernel log lines in plain words, with advice.
//!
//! - [`Word`]: a status word or an error number, parsed from text.
//! - [`word()`]: the source of the word, its name, its bits and details, its meaning, and advice.
//! - [`Log`]: the TDX lines of a kernel log, each explained, with repeats counted.
//!
//! The words come from P-SEAMLDR and the TDX module. Linux adds its own words for a SEAMCALL that
//! fails.

mod advice;
mod detail;
mod explanation;
mod leaf;
mod linux;
mod log;
mod seamldr;
mod status;
mod step;
mod tdx;
mod word;

pub use explanation::{errno, explain, word, Bits, Explanation, Near, Severity, Source};
pub use leaf::{Leaf, NotALeaf};
pub use log::{
    is_tdx_line, Entry, Log, LogReport, Message, Registers, Subject, LONGEST_LINE, MAX_INPUT,
};
pub use step::{Relation, Step};
pub use word::{NotAWord, Word};
