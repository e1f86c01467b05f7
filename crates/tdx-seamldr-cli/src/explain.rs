//! `tdx-seamldr explain`: explains status words and kernel logs, and what to do.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_host::explain::{
    explain, Entry, Explanation, Leaf, Log, LogReport, Message, Relation, Severity, Source,
    Subject, Word,
};

use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, print_json};
use crate::page::wrap;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Status words or error numbers (0xc000050500000000, -5), their names (SYS_NOT_READY,
    /// EBADSIG), or - for lines of the kernel's log on standard input
    #[arg(required = true, value_name = "WORD", value_parser = parse_input,
        allow_negative_numbers = true)]
    words: Vec<Input>,
    /// The leaf that returned the words: a number (0x22) or a name (TDH.SYS.RD)
    #[arg(long, value_name = "LEAF", value_parser = Leaf::parse)]
    leaf: Option<Leaf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// One argument.
#[derive(Clone, Copy)]
enum Input {
    Word(Word),
    Log,
}

fn parse_input(text: &str) -> Result<Input, String> {
    if text == "-" {
        return Ok(Input::Log);
    }
    Word::parse(text).map(Input::Word).map_err(|error| error.to_string())
}

/// The JSON object of `explain`.
#[derive(Serialize)]
struct Report {
    words: Vec<Explanation>,
    log: Option<LogReport>,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        let words = self.words.iter().filter_map(|input| match input {
            Input::Word(word) => Some(explain(*word, self.leaf)),
            Input::Log => None,
        });
        let wants_log = self.words.iter().any(|input| matches!(input, Input::Log));
        let log = if wants_log {
            Some(Log::read(std::io::stdin().lock()).map_err(Error::Input)?)
        } else {
            None
        };
        let report = Report { words: words.collect(), log };
        if self.json {
            print_json(out, "explain", &report)?;
        } else {
            print(out, report.text().trim_end())?;
        }
        Ok(Exit::Done)
    }

    fn json(&self) -> bool {
        self.json
    }
}

/// Columns of the names on the left.
const NAMES: usize = 12;

/// Text with names on the left, wrapped.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    /// Adds the line that an explanation is about.
    fn title(&mut self, text: &str) {
        self.wrapped(text, "", "  ");
    }

    /// Adds a line of its own.
    fn line(&mut self, text: &str) {
        self.wrapped(text, "", "");
    }

    /// Adds a name and its value.
    fn field(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.wrapped(text, &format!("  {name:<width$}", width = NAMES), &" ".repeat(NAMES + 2));
        }
    }

    /// Adds a name and a list.
    fn list(&mut self, name: &str, items: &[String]) {
        let hanging = " ".repeat(NAMES + 4);
        for (index, item) in items.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            self.wrapped(item, &format!("  {name:<width$}- ", width = NAMES), &hanging);
        }
    }

    fn wrapped(&mut self, text: &str, first: &str, others: &str) {
        wrap(&mut self.0, first, others, text);
    }

    fn blank(&mut self) {
        self.0.push('\n');
    }
}

impl Report {
    fn text(&self) -> String {
        let mut page = Sheet::default();
        for explanation in &self.words {
            page.title(&title(explanation));
            fields(&mut page, explanation);
            page.blank();
        }
        if let Some(log) = &self.log {
            log_text(&mut page, log);
        }
        page.0
    }
}

/// Returns the word and its name.
fn title(explanation: &Explanation) -> String {
    let name = explanation.name.unwrap_or("(no published name)");
    match &explanation.leaf {
        Some(leaf) => format!("{}  {name}, from {leaf}", explanation.word),
        None => format!("{}  {name}", explanation.word),
    }
}

fn fields(page: &mut Sheet, explanation: &Explanation) {
    page.field("from", source_words(explanation.source));
    page.field("kind", severity_words(explanation));
    page.field("detail", explanation.detail.as_deref().unwrap_or_default());
    page.field("meaning", &explanation.meaning);
    page.field("update", &explanation.update);
    page.list("what to do", &explanation.actions);
    page.list("also", &explanation.also);
    let near: Vec<String> =
        explanation.nearest.iter().map(|near| format!("{}  {}", near.word, near.name)).collect();
    page.list("nearest", &near);
}

fn source_words(source: Source) -> &'static str {
    match source {
        Source::PSeamldr => "P-SEAMLDR, the loader of the TDX module",
        Source::TdxModule => "the TDX module",
        Source::Linux => "Linux itself, not the firmware",
        Source::EitherFirmware => "P-SEAMLDR or the TDX module: both have it",
        Source::Unknown => "unknown: neither firmware has this word",
    }
}

fn severity_words(explanation: &Explanation) -> &'static str {
    match explanation.severity {
        Severity::Success => "success",
        Severity::Information => "information, not an error",
        Severity::Recoverable => "error; the same call can succeed later",
        Severity::Error if explanation.source == Source::TdxModule => {
            "error, not recoverable: the same call with the same operands fails again"
        }
        Severity::Error => "error",
        Severity::NonRecoverable => "not recoverable: the TD or virtual CPU cannot continue",
        Severity::Fatal => "fatal: the TD cannot continue",
    }
}

fn log_text(page: &mut Sheet, log: &LogReport) {
    for entry in &log.entries {
        page.title(&entry.text);
        page.field("seen", &seen(entry));
        match &entry.subject {
            Subject::Seamcall(explanation) => {
                let leaf = explanation.leaf.as_deref().unwrap_or("the line does not name the leaf");
                page.field("call", leaf);
                page.field(
                    "status",
                    &format!("{}  {}", explanation.word, explanation.name.unwrap_or("(unknown)")),
                );
                page.field("registers", entry.registers_say.as_deref().unwrap_or_default());
                fields(page, explanation);
            }
            Subject::Message(message) => message_fields(page, message),
        }
        page.blank();
    }
    page.list("unknown", &log.unknown_samples);
    if log.not_shown > 0 {
        page.line(&format!("Lines of further kinds that are not shown: {}.", log.not_shown));
    }
    if log.cut {
        page.line("The log is longer than 16 MiB; only the first 16 MiB were read.");
    }
    page.line(&format!(
        "Lines: {}, about TDX: {} (unknown: {}), ignored: {}.",
        log.lines, log.tdx_lines, log.unknown, log.ignored
    ));
    page.line(&log.summary);
}

fn message_fields(page: &mut Sheet, message: &Message) {
    page.field("meaning", &message.meaning);
    page.field("update", relation_words(message.relation));
    page.list("what to do", &message.actions);
}

fn relation_words(relation: Relation) -> &'static str {
    match relation {
        Relation::None => "Not related to an update.",
        Relation::Possible => "Occurs in updates and elsewhere.",
        Relation::Updated => "An update succeeded.",
        Relation::Refused => "An update was refused; the TDs are safe.",
        Relation::Failed => "An update failed; Linux has lost its TDs.",
    }
}

/// Returns how often and when a line occurred.
fn seen(entry: &Entry) -> String {
    let times = match (&entry.first, &entry.last) {
        (Some(first), Some(last)) if first != last => format!(", first at {first}, last at {last}"),
        (Some(first), _) => format!(", at {first}"),
        _ => String::new(),
    };
    match entry.count {
        1 => format!("once{times}"),
        count => format!("{count} times{times}"),
    }
}
