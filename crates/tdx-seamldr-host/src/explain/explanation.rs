//! The explanation of one word.

use serde::Serialize;
use tdx_seamldr_core::abi::{SeamldrStatus, SeamldrStatusClass, TdxStatus};

use super::leaf::Leaf;
use super::step::{Relation, Step};
use super::word::Word;
use super::{advice, detail, linux, seamldr, status, tdx};

/// Who returned a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// P-SEAMLDR, the loader.
    PSeamldr,
    /// The TDX module.
    TdxModule,
    /// Linux itself: SEAMCALL did not reach the firmware, or the number is an error number.
    Linux,
    /// P-SEAMLDR or the TDX module: success.
    EitherFirmware,
    /// Unknown: neither firmware returns this word.
    Unknown,
}

/// How bad a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The call succeeded.
    Success,
    /// The call succeeded, or had nothing to do. The word has more information.
    Information,
    /// An error. The same call can succeed later.
    Recoverable,
    /// An error. The same call with the same operands fails again.
    Error,
    /// The TD or the virtual CPU cannot continue.
    NonRecoverable,
    /// The TD is lost.
    Fatal,
}

/// The bits of a TDX status word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools)] // they are bits
pub struct Bits {
    /// Bit 63.
    pub error: bool,
    /// Bit 62.
    pub non_recoverable: bool,
    /// Bit 61.
    pub fatal: bool,
    /// Bit 60: a hint that the host can recover.
    pub host_recoverability_hint: bool,
    /// Bits 59:48, which are reserved. If they are not 0, the number is probably not a status
    /// word.
    pub reserved: u16,
    /// Bits 47:40.
    pub class: u8,
    /// The name of the class, if it is known.
    pub class_name: Option<&'static str>,
    /// Bits 39:32.
    pub code: u8,
    /// Bits 31:0.
    pub details: u32,
}

/// A published word, as a suggestion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Near {
    /// The word, with `0x` and 16 digits.
    pub word: String,
    /// Its name.
    pub name: &'static str,
}

/// The explanation of one word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The word, with `0x` and 16 digits; an error number as a negative decimal number.
    pub word: String,
    /// Who returned the word.
    pub source: Source,
    /// Its published name.
    pub name: Option<&'static str>,
    /// The leaf that returned the word, if known.
    pub leaf: Option<String>,
    /// The severity of the word.
    pub severity: Severity,
    /// The bits, as the TDX module uses them. `None` for words of P-SEAMLDR and for error numbers.
    pub bits: Option<Bits>,
    /// The meaning of the details: operand, MSR, counts.
    pub detail: Option<String>,
    /// The meaning, in plain words.
    pub meaning: String,
    /// The relation to an update of the module.
    pub relation: Relation,
    /// The step of an update that calls the leaf.
    pub step: Option<Step>,
    /// The fate of the TDs after this word in an update.
    pub update: String,
    /// What to do, the most likely first.
    pub actions: Vec<String>,
    /// Other readings of the number.
    pub also: Vec<String>,
    /// Published words similar to an unknown word.
    pub nearest: Vec<Near>,
}

/// Explains a word, or a Linux error number.
#[must_use]
pub fn explain(of: Word, leaf: Option<Leaf>) -> Explanation {
    match of {
        Word::Status(number) => word(number, leaf),
        Word::Errno(number) => errno(number),
    }
}

/// Explains a status word. The leaf that returned the word makes the explanation more exact.
#[must_use]
pub fn word(word: u64, leaf: Option<Leaf>) -> Explanation {
    let mut explanation = if word >> 32 == 0 {
        success(word, leaf)
    } else if word & (linux::SW_ERROR | SOFTWARE_OTHER) == linux::SW_ERROR {
        of_linux(word)
    } else if is_seamldr_form(word) {
        of_seamldr(word)
    } else {
        of_tdx(word, leaf)
    };
    explanation.leaf = leaf.map(|leaf| leaf.to_string());
    explanation.also.extend(other_readings(word, leaf, &explanation));
    at_step(&mut explanation, leaf);
    explanation
}

/// Bits that are 0 in Linux's own words, apart from those of [`linux::SW_ERROR`].
const SOFTWARE_OTHER: u64 = 0x7fff_00ff_0000_0000;

/// Words of P-SEAMLDR have bit 63 and nothing else in their upper half. The TDX module has no such
/// word: code 0 of its class 0 is success.
fn is_seamldr_form(word: u64) -> bool {
    word >> 32 == 0x8000_0000
}

fn hex(word: u64) -> String {
    format!("{word:#018x}")
}

fn owned(actions: &[&str]) -> Vec<String> {
    actions.iter().map(|action| (*action).to_owned()).collect()
}

/// Returns the text with an upper-case first letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// Joins two texts with a blank.
fn join(first: String, more: &str) -> String {
    if more.is_empty() {
        first
    } else {
        format!("{first} {more}")
    }
}

const BOOT_OR_UPDATE: &str = "It is not known whether an update returned it.";

fn plain(word: String, source: Source, severity: Severity, meaning: String) -> Explanation {
    Explanation {
        word,
        source,
        name: None,
        leaf: None,
        severity,
        bits: None,
        detail: None,
        meaning,
        relation: Relation::None,
        step: None,
        update: String::new(),
        actions: Vec::new(),
        also: Vec::new(),
        nearest: Vec::new(),
    }
}

/// SUCCESS. TDH.VP.ENTER returns the reason of the TD's exit with it.
fn success(word: u64, leaf: Option<Leaf>) -> Explanation {
    let source = match leaf {
        Some(Leaf::Seamldr(_) | Leaf::UnknownSeamldr(_)) => Source::PSeamldr,
        Some(Leaf::Tdx(_)) => Source::TdxModule,
        None => Source::EitherFirmware,
    };
    let mut explanation =
        plain(hex(word), source, Severity::Success, "The call succeeded.".to_owned());
    explanation.name = Some("SUCCESS");
    explanation.update = "This call succeeded.".to_owned();
    explanation.actions = owned(&["Nothing."]);
    if word != 0 {
        explanation.source = Source::TdxModule;
        explanation.detail =
            Some(format!("details {word:#x}: from TDH.VP.ENTER, the reason of the TD's exit"));
    }
    explanation
}

fn bits(word: u64) -> Bits {
    let status = TdxStatus(word);
    let [_, _, _, _, code, class, low, high] = word.to_le_bytes();
    Bits {
        error: status.is_error(),
        non_recoverable: word & TdxStatus::NON_RECOVERABLE != 0,
        fatal: word & TdxStatus::FATAL != 0,
        host_recoverability_hint: word & TdxStatus::HOST_RECOVERABILITY_HINT != 0,
        reserved: u16::from_le_bytes([low, high & 0x0f]),
        class,
        class_name: class_of(class).map(|row| row.name),
        code,
        details: status.details(),
    }
}

fn class_of(class: u8) -> Option<&'static advice::ClassAdvice> {
    tdx::CLASSES.iter().find(|row| row.class == class)
}

fn severity(bits: &Bits) -> Severity {
    match (bits.fatal, bits.error, bits.non_recoverable) {
        (true, ..) => Severity::Fatal,
        (_, true, true) => Severity::Error,
        (_, true, false) => Severity::Recoverable,
        (_, false, true) => Severity::NonRecoverable,
        (_, false, false) => Severity::Information,
    }
}

fn of_tdx(word: u64, leaf: Option<Leaf>) -> Explanation {
    let (known, bits) = (status::of(word), bits(word));
    let linux_td = TdxStatus(word).code() == TdxStatus::NON_RECOVERABLE_TD_LINUX;
    let core = if linux_td { TdxStatus(word).info() } else { None };
    let name = known.map(|row| row.name).or(core.map(|row| row.name));
    let short = known.map(|row| row.meaning).or(core.map(|row| row.meaning));
    let class = class_of(bits.class);
    let mut explanation = plain(hex(word), Source::TdxModule, severity(&bits), String::new());
    let Some(short) = short else {
        return unknown_tdx(word, bits, explanation);
    };
    let code = TdxStatus(word).code().0;
    let general = advice::find(tdx::TABLE, code);
    let special = tdx::SPECIAL.iter().find(|row| {
        row.word == word && row.leaf.is_none_or(|wanted| leaf == Some(Leaf::Tdx(wanted)))
    });
    let more = special.map(|row| row.meaning).or(general.map(|row| row.meaning));
    let actions = special.map(|row| row.actions).or(general.map(|row| row.actions));
    explanation.name = name;
    explanation.detail = detail::decode(word);
    explanation.meaning = join(sentence(short), more.unwrap_or_default());
    explanation.relation = match general {
        // An update never passes the configuration of a TD.
        Some(_) if word == CPUID_CONFIG => Relation::None,
        Some(row) => row.relation,
        None => class.map_or(Relation::None, |row| row.relation),
    };
    explanation.update = match (general.map(|row| row.fate), explanation.relation) {
        (_, Relation::None) if word == CPUID_CONFIG => NOT_AN_UPDATE.to_owned(),
        (Some(fate), _) if !fate.is_empty() => fate.to_owned(),
        (_, Relation::None) => NOT_AN_UPDATE.to_owned(),
        _ => BOOT_OR_UPDATE.to_owned(),
    };
    explanation.actions = owned(actions.or(class.map(|row| row.actions)).unwrap_or_default());
    explanation.bits = Some(bits);
    explanation
}

/// OPERAND_INVALID with the operand CPUID_CONFIG.
const CPUID_CONFIG: u64 = 0xc000010000000045;

const NOT_AN_UPDATE: &str = "Not an error of an update.";

/// The most suggestions for an unknown word.
const SUGGESTIONS: usize = 3;

fn unknown_tdx(word: u64, bits: Bits, mut explanation: Explanation) -> Explanation {
    let class = class_of(bits.class);
    let in_class = class.map(|row| format!("of the class \"{}\" ({:#04x})", row.name, bits.class));
    let is_status = bits.reserved == 0 && in_class.is_some();
    explanation.nearest = status::nearest(word, SUGGESTIONS)
        .into_iter()
        .filter(|_| is_status)
        .map(|row| Near { word: hex(row.code), name: row.name })
        .collect();
    explanation.update = BOOT_OR_UPDATE.to_owned();
    if is_status {
        explanation.meaning = format!(
            "Not a published word of the TDX module. By its bits, a word {} with the code \
             {:#04x}. A module that is newer than this program's table may have it.",
            in_class.unwrap_or_default(),
            bits.code
        );
        explanation.relation = class.map_or(Relation::None, |row| row.relation);
        explanation.actions = owned(class.map(|row| row.actions).unwrap_or_default());
    } else {
        explanation.source = Source::Unknown;
        explanation.meaning = if bits.reserved != 0 {
            "Not a status word: bits 59:48 are not 0, but are 0 in every word of the TDX module."
                .to_owned()
        } else {
            format!("Not a published word: the class {:#04x} is unknown.", bits.class)
        };
        explanation.update = "Unknown.".to_owned();
        explanation.actions = owned(&["Check that all digits were copied: 0x and 16 digits."]);
    }
    explanation.bits = Some(bits);
    explanation
}

fn of_seamldr(word: u64) -> Explanation {
    let status = SeamldrStatus(word);
    let Some(info) = status.info() else {
        let mut unknown = plain(
            hex(word),
            Source::PSeamldr,
            Severity::Error,
            format!(
                "Not a published word of P-SEAMLDR. By its bits, an error{}. A P-SEAMLDR newer \
                 than this program's table may return it.",
                class_words(status.class())
            ),
        );
        unknown.relation = Relation::Failed;
        unknown.update = Step::Install.fate().to_owned();
        unknown.actions =
            owned(&["Check image and host with `tdx-seamldr plan`, and report the word."]);
        unknown.nearest = SeamldrStatus::TABLE
            .iter()
            .filter(|row| !row.status.is_success() && row.status.class() == status.class())
            .take(SUGGESTIONS)
            .map(|row| Near { word: hex(row.status.0), name: row.name })
            .collect();
        return unknown;
    };
    let severity = match status.class() {
        SeamldrStatusClass::Retryable => Severity::Recoverable,
        _ => Severity::Error,
    };
    let advice = advice::find(seamldr::TABLE, word);
    let meaning = join(sentence(info.meaning), advice.map(|row| row.meaning).unwrap_or_default());
    let mut explanation = plain(hex(word), Source::PSeamldr, severity, meaning);
    explanation.name = Some(info.name);
    explanation.relation = Relation::Failed;
    explanation.update = advice.map(|row| row.fate).unwrap_or_default().to_owned();
    explanation.actions = owned(advice.map(|row| row.actions).unwrap_or_default());
    explanation
}

/// Returns the meaning of the class of a word of P-SEAMLDR.
fn class_words(class: SeamldrStatusClass) -> String {
    match class {
        SeamldrStatusClass::Call => " about the call or its parameters".to_owned(),
        SeamldrStatusClass::Platform => " about the platform or its resources".to_owned(),
        SeamldrStatusClass::Crypto => " about signature or hash".to_owned(),
        SeamldrStatusClass::Retryable => " that a repeated call can overcome".to_owned(),
        SeamldrStatusClass::Unknown(number) => format!(" of class {number}, which is unknown"),
        SeamldrStatusClass::Success => String::new(),
    }
}

fn of_linux(word: u64) -> Explanation {
    let status = TdxStatus(word);
    let (name, row) = match advice::find(linux::TABLE, word).filter(|_| word != linux::SW_ERROR) {
        Some(row) => (status.name(), Some(row)),
        None => (None, advice::find(linux::TABLE, linux::SW_ERROR)),
    };
    let meaning = row.map(|row| row.meaning).unwrap_or_default().to_owned();
    let mut explanation = plain(hex(word), Source::Linux, Severity::Error, meaning);
    explanation.name = name.or(Some("TDX_SW_ERROR"));
    if name.is_none() {
        explanation.detail = Some(format!("exception {}", status.details()));
    }
    explanation.relation = row.map_or(Relation::None, |row| row.relation);
    explanation.update = row.map(|row| row.fate).unwrap_or_default().to_owned();
    explanation.actions = owned(row.map(|row| row.actions).unwrap_or_default());
    explanation
}

/// Explains a Linux error number, positive as in [`Word::Errno`].
#[must_use]
pub fn errno(number: i32) -> Explanation {
    let row = linux::errno(number);
    let meaning = row.map_or_else(
        || "A Linux error number that the kernel's code for TDX does not use.".to_owned(),
        |row| sentence(row.meaning),
    );
    let word = number.wrapping_neg().to_string();
    let mut explanation = plain(word, Source::Linux, Severity::Error, meaning);
    explanation.name = row.map(|row| row.name);
    explanation.relation = Relation::Possible;
    explanation.update = "The number does not show at which step the kernel failed. If \
                          /sys/devices/faux/tdx_host/version can be read, the TDs are safe; if it \
                          gives ENXIO, TDX is gone until reboot."
        .to_owned();
    explanation.actions = row.map(|row| owned(&[row.action])).unwrap_or_default();
    explanation
}

/// Other readings of the number.
fn other_readings(word: u64, leaf: Option<Leaf>, explanation: &Explanation) -> Vec<String> {
    let mut also = Vec::new();
    match (leaf, explanation.source) {
        (Some(Leaf::Tdx(_)), Source::PSeamldr) => also.push(
            "The leaf is one of the TDX module, but the word has the form of P-SEAMLDR's: one of \
             the two was copied wrongly."
                .to_owned(),
        ),
        (Some(Leaf::Seamldr(_)), Source::TdxModule) => also.push(
            "The leaf is one of P-SEAMLDR, but the word has the form of the TDX module's: one of \
             the two was copied wrongly."
                .to_owned(),
        ),
        _ => {}
    }
    if leaf.is_none() && word != 0 {
        let as_leaf = Leaf::from_rax(word);
        let is_number_of_leaf = word >> 63 == 1 || word >> 24 == 0;
        if let Some(name) = as_leaf.known_name().filter(|_| is_number_of_leaf) {
            also.push(format!(
                "As a leaf number (the first number in the kernel's line) it is {name}."
            ));
        }
    }
    if explanation.source == Source::PSeamldr {
        if let Some(number) = explanation.name.and_then(linux::errno_by_name) {
            also.push(format!("Linux's error number of the same name is -{number}."));
        }
    }
    also
}

/// The class of the module's own state.
const STATE_CLASS: u8 = 5;

/// Makes the explanation more exact where the leaf is the call of an update's step.
fn at_step(explanation: &mut Explanation, leaf: Option<Leaf>) {
    let Some(step) = leaf.and_then(Step::of) else {
        let is_seamldr =
            matches!(leaf, Some(Leaf::Seamldr(_))) && explanation.source != Source::Linux;
        // After a failed update, any call can return the words for a module that is not ready or
        // shut down.
        let is_state = explanation.bits.as_ref().is_some_and(|bits| bits.class == STATE_CLASS);
        let is_td = leaf.is_some() && explanation.source == Source::TdxModule && !is_state;
        if is_seamldr || (is_td && explanation.relation == Relation::Possible) {
            explanation.relation = Relation::None;
            explanation.update =
                "No step of an update makes this call: this error loses no TD.".to_owned();
        }
        return;
    };
    explanation.step = Some(step);
    let is_error = !matches!(explanation.severity, Severity::Success | Severity::Information);
    // After a failed update, any call returns SYS_SHUTDOWN.
    let is_after = explanation.name == Some("SYS_SHUTDOWN");
    if is_error && !is_after {
        explanation.relation = step.relation();
        explanation.update = step.fate().to_owned();
    }
}

#[cfg(test)]
#[path = "explanation_tests.rs"]
mod tests;
