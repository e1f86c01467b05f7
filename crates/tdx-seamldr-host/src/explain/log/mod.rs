//! The lines of a kernel log that are TDX's, each explained, repeats folded.

mod line;
mod messages;
mod seamcall;

use std::collections::HashMap;
use std::io::{self, BufRead};

use serde::Serialize;
use tdx_seamldr_core::abi::{FieldId, TdxLeaf, TdxStatus};

use super::explanation::{self, Explanation};
use super::leaf::Leaf;
use super::linux;
use super::step::{Relation, Step};
use line::{cut_to, Line};
use messages::Known;
pub use seamcall::Registers;

/// Bytes of a log that are read. What follows is left out, and the report says so.
pub const MAX_INPUT: u64 = 16 << 20;

/// Bytes of a line that are looked at.
pub const LONGEST_LINE: usize = 4096;

/// Different entries that are kept. Further ones are counted.
const MOST_ENTRIES: usize = 500;

/// Characters of a line that an entry shows.
const SHOWN: usize = 200;

/// Lines of TDX that no table knows, as samples.
const MOST_SAMPLES: usize = 10;

/// Reads a kernel log line by line. [`Log::report`] has what was found.
#[derive(Clone, Debug, Default)]
pub struct Log {
    report: LogReport,
    places: HashMap<Key, usize>,
    /// The entry that a line of registers belongs to.
    last_call: Option<usize>,
    /// A line said that the module was initialised: what fails from now on does not fail at boot.
    initialised: bool,
    /// The last line was a record of /dev/kmsg: lines that begin with a space belong to it.
    in_record: bool,
}

/// What makes two lines the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Call(Option<Leaf>, u64, bool),
    Message(&'static str, Option<String>),
}

/// What a log says about TDX.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Lines in all.
    pub lines: u64,
    /// Lines that are TDX's.
    pub tdx_lines: u64,
    /// Lines that are not TDX's.
    pub ignored: u64,
    /// Lines that are TDX's and that this program does not know.
    pub unknown: u64,
    /// The first of them.
    pub unknown_samples: Vec<String>,
    /// What the known lines say, in the order of their first appearance.
    pub entries: Vec<Entry>,
    /// Lines that would have made further entries.
    pub not_shown: u64,
    /// Whether the log was longer than [`MAX_INPUT`] and its end was left out.
    pub cut: bool,
    /// What it comes to, in one sentence.
    pub summary: String,
}

/// A line, or several that say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The first of the lines, without what the logging added, at most 200 characters.
    pub text: String,
    /// How many lines say the same.
    pub count: u64,
    /// The time of the first, as the log has it.
    pub first: Option<String>,
    /// The time of the last, as the log has it.
    pub last: Option<String>,
    /// Registers that the kernel printed with the first.
    pub registers: Option<Registers>,
    /// What the registers say.
    pub registers_say: Option<String>,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Subject {
    /// A SEAMCALL that failed.
    Seamcall(Explanation),
    /// Another message of the kernel.
    Message(Message),
}

/// A message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// A name of the message that stays the same in all wordings.
    pub code: &'static str,
    /// The part that differs: an error number, a version, a range.
    pub value: Option<String>,
    /// The meaning, in plain words.
    pub meaning: String,
    /// Whether it has to do with an update of the module.
    pub relation: Relation,
    /// What to do.
    pub actions: Vec<String>,
}

impl Subject {
    /// Returns whether it has to do with an update of the module.
    #[must_use]
    pub const fn relation(&self) -> Relation {
        match self {
            Self::Seamcall(explanation) => explanation.relation,
            Self::Message(message) => message.relation,
        }
    }
}

/// Whether a line of a kernel log is one of TDX's: of the code that calls the firmware, of the
/// update driver, or of KVM about TDs.
#[must_use]
pub fn is_tdx_line(line: &str) -> bool {
    line::cut(line).is_some()
}

impl Log {
    /// Reads a whole log, at most [`MAX_INPUT`] bytes of it. Bytes that are not UTF-8 are replaced,
    /// and of each line only the first [`LONGEST_LINE`] bytes count.
    ///
    /// # Errors
    ///
    /// The input cannot be read.
    pub fn read(input: impl BufRead) -> io::Result<LogReport> {
        let mut log = Self::default();
        let mut limited = input.take(MAX_INPUT);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if limited.read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            let end = bytes.len().min(LONGEST_LINE);
            log.line(&String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()));
        }
        if limited.limit() == 0 {
            log.report.cut = !limited.into_inner().fill_buf()?.is_empty();
        }
        Ok(log.report())
    }

    /// Takes one line, with or without its end.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end_matches(['\n', '\r']);
        if self.in_record && line.starts_with(' ') {
            return;
        }
        self.in_record = line::is_record(line);
        self.report.lines = self.report.lines.saturating_add(1);
        match line::cut(line) {
            Some(found) => {
                self.report.tdx_lines = self.report.tdx_lines.saturating_add(1);
                self.tdx_line(&found);
            }
            None => self.report.ignored = self.report.ignored.saturating_add(1),
        }
    }

    fn tdx_line(&mut self, line: &Line<'_>) {
        if let Some(call) = seamcall::failed(line.text) {
            let initialised = self.initialised;
            let key = Key::Call(call.leaf, call.status, initialised);
            let registers = (call.registers != Registers::default()).then_some(call.registers);
            self.last_call = self.put(key, line, registers, || {
                Subject::Seamcall(explain_call(call.leaf, call.status, initialised))
            });
            return;
        }
        if let Some((known, value)) = messages::find(line.text) {
            self.initialised |= known.code == "initialized";
            let subject = || Subject::Message(message(known, value.clone()));
            self.put(Key::Message(known.code, by_value(known, &value)), line, None, subject);
            return;
        }
        if let Some(registers) = seamcall::registers(line.text) {
            let entry = self.last_call.and_then(|place| self.report.entries.get_mut(place));
            if let Some(entry) = entry.filter(|entry| entry.count == 1) {
                entry.add_registers(registers);
            }
            return;
        }
        self.report.unknown = self.report.unknown.saturating_add(1);
        if self.report.unknown_samples.len() < MOST_SAMPLES {
            self.report.unknown_samples.push(cut_to(line.text, SHOWN));
        }
    }

    /// Adds a line to its entry, or makes one. Returns the entry's place.
    fn put(
        &mut self,
        key: Key,
        line: &Line<'_>,
        registers: Option<Registers>,
        subject: impl FnOnce() -> Subject,
    ) -> Option<usize> {
        if let Some(place) = self.places.get(&key) {
            let entry = self.report.entries.get_mut(*place)?;
            entry.count = entry.count.saturating_add(1);
            entry.last = line.time.clone().or_else(|| entry.last.take());
            return Some(*place);
        }
        let place = self.report.entries.len();
        if place >= MOST_ENTRIES {
            self.report.not_shown = self.report.not_shown.saturating_add(1);
            return None;
        }
        let mut entry = Entry {
            text: cut_to(line.text, SHOWN),
            count: 1,
            first: line.time.clone(),
            last: line.time.clone(),
            registers: None,
            registers_say: None,
            subject: subject(),
        };
        if let Some(registers) = registers {
            entry.add_registers(registers);
        }
        self.report.entries.push(entry);
        self.places.insert(key, place);
        Some(place)
    }

    /// Returns what the lines so far say.
    #[must_use]
    pub fn report(mut self) -> LogReport {
        self.report.summary = self.report.summarise();
        self.report
    }
}

/// The value, where lines with different values are not the same: not for ranges of memory.
fn by_value(known: &Known, value: &Option<String>) -> Option<String> {
    if matches!(known.code, "cmr" | "tdmr") {
        return None;
    }
    value.clone()
}

impl Entry {
    fn add_registers(&mut self, new: Registers) {
        let old = self.registers.unwrap_or_default();
        let all =
            Registers { rcx: old.rcx.or(new.rcx), rdx: old.rdx.or(new.rdx), r8: old.r8.or(new.r8) };
        self.registers = Some(all);
        if let Subject::Seamcall(explanation) = &self.subject {
            self.registers_say = registers_say(explanation, all);
        }
    }
}

/// What registers say in an explanation of a failed call.
fn registers_say(explanation: &Explanation, registers: Registers) -> Option<String> {
    if explanation.leaf.as_deref() == TdxLeaf::SYS_RD.name() {
        let field = FieldId(registers.rdx?);
        if field == FieldId::NULL {
            return None;
        }
        return Some(format!("the field was {field:?} ({:#018x}, RDX)", field.0));
    }
    let has_cpuid =
        explanation.detail.as_deref().is_some_and(|detail| detail.contains("CPUID leaf"));
    if has_cpuid {
        let rcx = registers.rcx?;
        let (high, low) = (rcx >> 32, rcx & 0xffff_ffff);
        return Some(format!(
            "CPUID leaf and subleaf in RCX: low half {low:#x}, high half {high:#x}"
        ));
    }
    None
}

/// Explains a failed call, by what the log has said before it.
fn explain_call(leaf: Option<Leaf>, status: u64, initialised: bool) -> Explanation {
    let mut found = explanation::word(status, leaf);
    // Words of a module that was shut down or is gone mean a failed update, wherever they come
    // from.
    let is_shutdown = TdxStatus(status).code() == TdxStatus::SYS_SHUTDOWN;
    let step = leaf.and_then(Step::of);
    if is_shutdown {
        return found;
    }
    match step {
        Some(Step::Prepare | Step::Init) if !initialised => {
            found.relation = Relation::None;
            found.update = "The log has no line before it that says that the module was \
                            initialised: it comes from the start of TDX at boot, not from an \
                            update."
                .to_owned();
        }
        Some(Step::Init) => {
            // TDH.SYS.LP.INIT comes outside of updates, too: when a CPU comes online.
            let is_global = leaf == Some(Leaf::Tdx(TdxLeaf::SYS_INIT));
            found.relation = if is_global { Relation::Failed } else { Relation::Possible };
            found.update = format!(
                "The module was initialised before, so this is an update{}. In an update the old \
                 module is gone by then: Linux has lost all TDs, and TDX is gone until reboot.",
                if is_global { "" } else { ", or a CPU that came online" }
            );
        }
        _ => {}
    }
    found
}

/// Explains another line.
fn message(known: &Known, value: Option<String>) -> Message {
    let mut meaning = known.meaning.to_owned();
    let mut actions: Vec<String> =
        known.actions.iter().map(|action| (*action).to_owned()).collect();
    let number =
        value.as_deref().filter(|_| known.errno).and_then(|value| value.parse::<i32>().ok());
    if let Some(row) = number.and_then(i32::checked_abs).and_then(linux::errno) {
        meaning = format!("{meaning} {} (-{}): {}.", row.name, row.number, row.meaning);
        if row.number != 5 {
            actions.push(row.action.to_owned());
        }
    }
    Message { code: known.code, value, meaning, relation: known.relation, actions }
}

impl LogReport {
    /// What it comes to, in one sentence.
    fn summarise(&self) -> String {
        let relation = self.entries.iter().map(|entry| entry.subject.relation()).max();
        let possible = self
            .entries
            .iter()
            .filter(|entry| entry.subject.relation() == Relation::Possible)
            .count();
        match relation {
            None if self.tdx_lines == 0 => "No line here is about TDX.".to_owned(),
            None => "No line about TDX here is one that this program knows.".to_owned(),
            Some(Relation::None) => {
                "Nothing here has to do with an update of the TDX module.".to_owned()
            }
            Some(Relation::Possible) => format!(
                "Nothing here is certain to come from an update of the TDX module; {possible} of \
                 {} kinds of lines can.",
                self.entries.len()
            ),
            Some(Relation::Updated) => {
                "The TDX module was updated, and its TDs went on.".to_owned()
            }
            Some(Relation::Refused) => "An update of the TDX module was refused before anything \
                                        was shut down: the TDs are safe."
                .to_owned(),
            Some(Relation::Failed) => "An update of the TDX module failed: by these lines Linux \
                                       has lost TDs, and a reboot is needed to get TDX back."
                .to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
