//! Splits a line of a kernel log into its time and the text of TDX's code.

/// A line, without the prefix of the logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The time in the log's form, e.g. `10.798780` or `Nov 28 06:37:50`.
    pub(super) time: Option<String>,
    /// The kernel's text from its prefix on, e.g. `virt/tdx: module initialized`.
    pub(super) text: &'a str,
}

/// The prefixes of lines from TDX's code.
const PREFIXES: &[&str] = &[
    "virt/tdx: ",
    "virt/seamldr: ",
    "x86/virt/tdx: ",
    "x86/tdx: ",
    "tdx_host: ",
    "tdx-host: ",
    "tdx_host tdx_host: ",
    "faux tdx_host: ",
    "tdx_guest: ",
    "tdx: ",
    "seamldr: ",
    "SEAMCALL ",
    "SEAMCALL[",
    "TDH.",
    "TDH_",
    "TD vp_enter_ret ",
];

/// The prefixes of KVM's lines.
const KVM: &[&str] = &["kvm_intel: ", "kvm: ", "kvm_amd: ", "kvm [", "vmkernel: "];
/// A line of KVM is about TDX if it contains one of these words.
const KVM_WORDS: &[&str] = &["TDX", "tdx", "SEAMCALL", "TDH_", "TDH.", "TD vp_enter_ret", "tdh_"];

/// Returns the text of TDX's code in a line, and the time before it. `None` if the line is not
/// about TDX.
pub(super) fn cut(line: &str) -> Option<Line<'_>> {
    let at = PREFIXES.iter().filter_map(|prefix| position(line, prefix)).min();
    let kvm = || {
        let at = KVM.iter().filter_map(|prefix| position(line, prefix)).min()?;
        let rest = line.get(at..)?;
        KVM_WORDS.iter().any(|word| rest.contains(word)).then_some(at)
    };
    // Of two prefixes the first counts: "kvm_intel: SEAMCALL ...".
    let at = [at, kvm()].into_iter().flatten().min()?;
    let (before, text) = line.split_at_checked(at)?;
    Some(Line { time: time(before), text: text.trim_end() })
}

/// Returns the position of a prefix at the start of the line or after another prefix.
fn position(line: &str, prefix: &str) -> Option<usize> {
    line.match_indices(prefix).map(|(at, _)| at).find(|at| {
        let before = line.get(..*at).unwrap_or_default();
        // The logging's prefix ends in one of these characters. A word inside another text does
        // not.
        before.trim_end().is_empty() || before.trim_end().ends_with([']', ':', ';', '>', ')'])
    })
}

/// Reads the time in the prefix of the logging.
fn time(before: &str) -> Option<String> {
    kmsg(before).or_else(|| bracket(before)).or_else(|| syslog(before))
}

/// Whether a line begins a record of /dev/kmsg. Lines that follow and begin with a space belong to
/// the record.
pub(super) fn is_record(line: &str) -> bool {
    kmsg(line).is_some()
}

/// `6,1234,5678901,-;`: level, sequence number, microseconds.
fn kmsg(before: &str) -> Option<String> {
    let mut fields = before.split_once(';')?.0.split(',');
    let (_, _, micros) =
        (number(fields.next()?)?, number(fields.next()?)?, number(fields.next()?)?);
    Some(format!("{}.{:06}", micros.checked_div(1_000_000)?, micros.checked_rem(1_000_000)?))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `[   12.345678]` of dmesg, or `[Sat Nov 28 06:37:50 2026]` of dmesg -T.
fn bracket(before: &str) -> Option<String> {
    let mut groups = before
        .split('[')
        .skip(1)
        .filter_map(|group| group.split_once(']'))
        .map(|(in_it, _)| in_it.trim());
    groups.find(|group| is_time(group)).map(|group| cut_to(group, 40))
}

fn is_time(text: &str) -> bool {
    let seconds = text
        .split_once('.')
        .is_some_and(|(whole, part)| number(whole).is_some() && number(part).is_some());
    seconds || (text.contains(':') && text.contains(|c: char| c.is_ascii_digit()))
}

/// `Nov 28 06:37:50 host kernel: ` or `2026-11-28T06:37:50.123456+00:00 host kernel: `.
fn syslog(before: &str) -> Option<String> {
    let has_clock =
        |word: &str| word.matches(':').count() >= 2 && word.contains(|c: char| c.is_ascii_digit());
    let words: Vec<&str> = before.split_whitespace().take(6).collect();
    let clock = words.iter().position(|word| has_clock(word))?;
    let first = if words.get(clock)?.contains('T') { clock } else { 0 };
    Some(cut_to(&words.get(first..=clock)?.join(" "), 40))
}

/// The first characters of a text.
pub(super) fn cut_to(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_and_time_are_cut_off_in_every_form_of_log() {
        let text = "virt/tdx: module initialized";
        let lines = [
            ("virt/tdx: module initialized", None),
            ("[   36.379132] virt/tdx: module initialized", Some("36.379132")),
            ("[    1.234567][  T123] virt/tdx: module initialized", Some("1.234567")),
            ("<6>[   36.379132] virt/tdx: module initialized", Some("36.379132")),
            ("<6>virt/tdx: module initialized", None),
            ("kern  :info  : [    9.36] virt/tdx: module initialized", Some("9.36")),
            (
                "[Sat Nov 28 06:37:50 2026] virt/tdx: module initialized",
                Some("Sat Nov 28 06:37:50 2026"),
            ),
            ("Nov 28 06:37:50 host kernel: virt/tdx: module initialized", Some("Nov 28 06:37:50")),
            ("Nov 28 06:37:50 host kernel: [   36.3] virt/tdx: module initialized", Some("36.3")),
            (
                "2026-11-28T06:37:50.123456+00:00 host kernel: virt/tdx: module initialized",
                Some("2026-11-28T06:37:50.123456+00:00"),
            ),
            ("6,1234,36379132,-;virt/tdx: module initialized", Some("36.379132")),
            ("6,1234,36379132,-,caller=T1;virt/tdx: module initialized", Some("36.379132")),
        ];
        for (line, time) in lines {
            assert_eq!(cut(line), Some(Line { time: time.map(str::to_owned), text }), "{line}");
        }
    }

    #[test]
    fn lines_of_other_code_are_not_about_tdx() {
        for line in [
            "",
            "[    0.000000] Command line: BOOT_IMAGE=/vmlinuz kvm_intel.tdx=1 nohibernate",
            "[    1.0] kvm_intel: VMX not supported by CPU 0",
            "[    1.0] i2c i2c-1: 16/32 memory slots populated (from DMI)",
            "[    1.0] systemd[1]: Started work on virt/tdx: the unit",
            " SUBSYSTEM=faux",
            " DEVICE=+faux:tdx_host",
        ] {
            assert_eq!(cut(line), None, "{line}");
        }
    }
}
