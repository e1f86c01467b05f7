//! Explains the TDX lines of a kernel log and counts repeats.

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

/// The most bytes of a log that are read. The report says if the log is longer.
pub const MAX_INPUT: u64 = 16 << 20;

/// The most bytes of a line that are read.
pub const LONGEST_LINE: usize = 4096;

/// The most entries that are kept. Further entries are only counted.
const MOST_ENTRIES: usize = 500;

/// The most characters of a line in an entry.
const SHOWN: usize = 200;

/// The most unknown TDX lines that are kept as samples.
const MOST_SAMPLES: usize = 10;

/// Reads a kernel log line by line. [`Log::report`] returns the result.
#[derive(Clone, Debug, Default)]
pub struct Log {
    report: LogReport,
    places: HashMap<Key, usize>,
    /// The entry that a line of registers belongs to.
    last_call: Option<usize>,
    /// A line said that the module was initialised: later failures are not failures at boot.
    initialised: bool,
    /// The last line was a record of /dev/kmsg: lines that begin with a space belong to it.
    in_record: bool,
}

/// The key of an entry. Lines with the same key are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Call(Option<Leaf>, u64, bool),
    Message(&'static str, Option<String>),
}

/// The report on a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// The number of lines.
    pub lines: u64,
    /// The number of lines about TDX.
    pub tdx_lines: u64,
    /// The number of other lines.
    pub ignored: u64,
    /// The number of lines about TDX that this program does not know.
    pub unknown: u64,
    /// The first unknown lines.
    pub unknown_samples: Vec<String>,
    /// The known lines, in the order of their first appearance.
    pub entries: Vec<Entry>,
    /// The number of lines beyond the limit of entries.
    pub not_shown: u64,
    /// Whether the log was longer than [`MAX_INPUT`], so its end was not read.
    pub cut: bool,
    /// The summary, in one sentence.
    pub summary: String,
}

/// A line and its repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The first of the lines, without the prefix of the logging, cut to 200 characters.
    pub text: String,
    /// The number of lines.
    pub count: u64,
    /// The time of the first line, in the log's form.
    pub first: Option<String>,
    /// The time of the last line, in the log's form.
    pub last: Option<String>,
    /// The registers that the kernel printed with the first line.
    pub registers: Option<Registers>,
    /// The meaning of the registers.
    pub registers_say: Option<String>,
    /// The subject of the lines.
    #[serde(flatten)]
    pub subject: Subject,
}

/// The subject of a line.
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
    /// A stable name of the message, the same for all wordings.
    pub code: &'static str,
    /// The variable part: an error number, a version, a range.
    pub value: Option<String>,
    /// The meaning, in plain words.
    pub meaning: String,
    /// The relation to an update of the module.
    pub relation: Relation,
    /// What to do.
    pub actions: Vec<String>,
}

impl Subject {
    /// Returns the relation to an update of the module.
    #[must_use]
    pub const fn relation(&self) -> Relation {
        match self {
            Self::Seamcall(explanation) => explanation.relation,
            Self::Message(message) => message.relation,
        }
    }
}

/// Whether a line of a kernel log is about TDX: from the code that calls the firmware, from the
/// update driver, or from KVM about TDs.
#[must_use]
pub fn is_tdx_line(line: &str) -> bool {
    line::cut(line).is_some()
}

impl Log {
    /// Reads at most [`MAX_INPUT`] bytes of a log, and at most [`LONGEST_LINE`] bytes of each line.
    /// Replaces bytes that are not UTF-8.
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

    /// Reads one line, with or without its newline.
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

    /// Adds a line to its entry, or makes a new entry. Returns the entry's index.
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

    /// Returns the report on the lines so far.
    #[must_use]
    pub fn report(mut self) -> LogReport {
        self.report.summary = self.report.summarise();
        self.report
    }
}

/// Returns the value if it distinguishes entries. Ranges of memory do not.
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

/// Returns the meaning of the registers of a failed call.
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

/// Explains a failed call, with the log's earlier lines.
fn explain_call(leaf: Option<Leaf>, status: u64, initialised: bool) -> Explanation {
    let mut found = explanation::word(status, leaf);
    // This word means a failed update, from any call.
    if TdxStatus(status).code() == TdxStatus::SYS_SHUTDOWN {
        return found;
    }
    match leaf.and_then(Step::of) {
        Some(Step::Prepare | Step::Init) if !initialised => {
            found.relation = Relation::None;
            found.update = "No earlier line of the log says that the module was initialised: this \
                            error comes from the start of TDX at boot, not from an update."
                .to_owned();
        }
        Some(Step::Init) => {
            // Linux also calls TDH.SYS.LP.INIT outside of updates, when a CPU comes online.
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
        // EIO's advice is to find the line before, which the line's own actions say.
        if row.name != "EIO" {
            actions.push(row.action.to_owned());
        }
    }
    Message { code: known.code, value, meaning, relation: known.relation, actions }
}

impl LogReport {
    /// The summary, in one sentence.
    fn summarise(&self) -> String {
        let relation = self.entries.iter().map(|entry| entry.subject.relation()).max();
        let possible = self
            .entries
            .iter()
            .filter(|entry| entry.subject.relation() == Relation::Possible)
            .count();
        match relation {
            None if self.tdx_lines == 0 => "No line here is about TDX.".to_owned(),
            None => "This program knows none of the lines about TDX here.".to_owned(),
            Some(Relation::None) => {
                "No line here is related to an update of the TDX module.".to_owned()
            }
            Some(Relation::Possible) => format!(
                "No line here certainly comes from an update of the TDX module; {possible} of {} \
                 kinds of lines can.",
                self.entries.len()
            ),
            Some(Relation::Updated) => {
                "The TDX module was updated, and its TDs kept running.".to_owned()
            }
            Some(Relation::Refused) => "An update of the TDX module was refused before the old \
                                        module was shut down: the TDs are safe."
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
