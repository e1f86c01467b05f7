//! Status words and kernel log lines in plain words, with what to do about them.
//!
//! - [`Word`]: a status word or an error number as people write it.
//! - [`word()`]: who returned the word, its name, its bits and details, what it means, and what to
//!   do.
//! - [`Log`]: the lines of a kernel log that are TDX's, each explained, repeats folded.
//!
//! The words are those of P-SEAMLDR, of the TDX module, and the ones that Linux makes up if
//! SEAMCALL itself fails.

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
