//! Draws a run on the simulated platform: each LP's calls in logical time, failures, the way back.

mod page;
mod schedule;

use tdx_seamldr_mock::model::{AnswerName, LeafName, TraceEntry};

use crate::output::counted;
use crate::picture::{number, Anchor, Font, Picture, Tone};
use schedule::{Placed, Schedule};

pub use page::page;
pub(crate) use page::Drawing;

/// A run that has ended.
#[derive(Debug)]
pub struct Run<'a> {
    /// The name of the picture, unique on its page.
    pub id: &'static str,
    /// All calls in the order of their ends.
    pub calls: &'a [TraceEntry],
    /// The number of calls before the update.
    pub before: usize,
    /// The number of LPs.
    pub lps: usize,
    /// The number of TDs, and the number of TDs that are alive at the end.
    pub tds: (usize, usize),
    /// The message of the outcome.
    pub message: &'a str,
}

/// The picture's width, if no stage needs more.
const WIDTH: f64 = 860.0;
/// Where time begins.
const LEFT: f64 = 64.0;
/// The room at the right edge: the TDs after the update.
const RIGHT: f64 = 52.0;
/// Where the row of the TDs begins.
const TOP: f64 = 76.0;
/// The height of all rows, unless there are few of them.
const ROWS: f64 = 600.0;
/// The most failures that are described. Further failures are only marked.
const DESCRIBED: usize = 8;

/// The stages with their places: x of the left edge, and the width of a column.
struct Axis {
    bands: Vec<(f64, f64, f64)>,
    width: f64,
}

impl Axis {
    fn new(schedule: &Schedule) -> Self {
        let columns: usize = schedule.bands.iter().map(|band| band.columns).sum();
        let room = WIDTH - LEFT - RIGHT;
        // Names of stages need room, which their columns get.
        let needed = |name: &str| Font::SMALL.bold().width(name) + 14.0;
        let column = (room / number(columns.max(1))).clamp(0.3, 90.0);
        let mut x = LEFT;
        let mut bands: Vec<(f64, f64, f64)> = Vec::new();
        for band in &schedule.bands {
            let columns = number(band.columns.max(1));
            let width = (column * columns).max(needed(&band.name));
            bands.push((x, width, width / columns));
            x += width;
        }
        // Names can make the picture too wide: the wide stages shrink.
        let excess = x + RIGHT - WIDTH;
        let spare = |(_, width, each): &(f64, f64, f64), name: &str| {
            (width - needed(name).max(if *each > 1.0 { width / each } else { 0.0 })).max(0.0)
        };
        let names = schedule.bands.iter().map(|band| band.name.as_str());
        let spares: Vec<f64> =
            bands.iter().zip(names).map(|(band, name)| spare(band, name)).collect();
        let all: f64 = spares.iter().sum();
        if excess > 0.0 && all > 0.0 {
            let share = (excess / all).min(1.0);
            x = LEFT;
            for ((band, spare), of) in bands.iter_mut().zip(spares).zip(&schedule.bands) {
                let width = band.1 - spare * share;
                *band = (x, width, width / number(of.columns.max(1)));
                x += width;
            }
        }
        Self { bands, width: (x + RIGHT).max(WIDTH) }
    }

    /// The left edge of a call and its width.
    fn place(&self, call: &Placed) -> (f64, f64) {
        let (left, _, column) = self.bands.get(call.band).copied().unwrap_or((LEFT, 0.0, 0.0));
        (left + column * number(call.column), column)
    }

    fn end(&self) -> f64 {
        self.bands.last().map_or(LEFT, |(left, width, _)| left + width)
    }
}

/// Draws a run as an SVG file.
#[must_use]
pub fn draw(run: &Run<'_>) -> String {
    let schedule = Schedule::new(run.calls, run.before, run.lps);
    let axis = Axis::new(&schedule);
    let row = (ROWS / number(run.lps.max(1))).clamp(1.0, 34.0);
    let top = TOP + 30.0;
    let bottom = top + row * number(run.lps);
    let mut picture = Picture::new(run.id, axis.width, run.message);
    let title = format!("An update of {}, call by call", counted(run.lps, "LP"));
    picture.text((LEFT, 28.0), Anchor::Start, Font::TITLE, Tone::Plain, &title);
    draw_bands(&mut picture, &schedule, &axis, bottom);
    draw_rows(&mut picture, run.lps, row, top);
    if run.tds.0 != 0 {
        draw_tds(&mut picture, run, &schedule, &axis);
    }
    let failures = draw_calls(&mut picture, &schedule, &axis, row, top);
    if let Some(call) = schedule.calls.iter().find(|call| call.shuts_down()) {
        let (x, width) = axis.place(call);
        let x = x + width;
        picture.mark((x, TOP - 8.0), (x, bottom + 8.0), Tone::Bad);
        let (anchor, at) =
            if x > axis.width / 2.0 { (Anchor::End, x - 6.0) } else { (Anchor::Start, x + 6.0) };
        let text = "point of no return: the old module is shut down";
        picture.text((at, bottom + 18.0), anchor, Font::SMALL.bold(), Tone::Bad, text);
    }
    let mut y = bottom + 44.0;
    draw_legend(&mut picture, y, failures.is_empty());
    y += 22.0;
    for line in explanations(run, &schedule, &failures) {
        for (index, part) in wrapped(&line, axis.width - LEFT - RIGHT).iter().enumerate() {
            let indent = if index == 0 { 0.0 } else { 14.0 };
            let at = (LEFT + indent, y);
            picture.text(at, Anchor::Start, Font::WORDS, Tone::Plain, part);
            y += 19.0;
        }
    }
    picture.finish(y + 4.0)
}

fn draw_bands(picture: &mut Picture, schedule: &Schedule, axis: &Axis, bottom: f64) {
    for (band, (x, width, _)) in schedule.bands.iter().zip(&axis.bands) {
        picture.rule((*x, 48.0), (*x, bottom + 4.0));
        let middle = x + width / 2.0;
        let font = Font::SMALL.bold();
        picture.text((middle, 60.0), Anchor::Middle, font, Tone::Plain, &band.name);
    }
    picture.rule((axis.end(), 48.0), (axis.end(), bottom + 4.0));
}

fn draw_rows(picture: &mut Picture, lps: usize, row: f64, top: f64) {
    let fits = |step: &usize| row * number(*step) >= 13.0;
    let step = [1, 2, 4, 8, 16, 32].into_iter().find(fits).unwrap_or(64);
    for lp in 0..lps {
        let y = top + row * number(lp);
        if row >= 4.0 {
            picture.rule((LEFT, y + row), (picture.width() - RIGHT, y + row));
        }
        if lp.checked_rem(step) == Some(0) {
            let base = y + (row / 2.0).max(4.0) + 4.0;
            let at = (LEFT - 8.0, base);
            picture.text(at, Anchor::End, Font::SMALL, Tone::Muted, &format!("LP {lp}"));
        }
    }
}

/// The row of the TDs: whether they run, wait or are lost.
fn draw_tds(picture: &mut Picture, run: &Run<'_>, schedule: &Schedule, axis: &Axis) {
    let mut state = (LEFT, Tone::Good, "run");
    let mut parts = Vec::new();
    for call in &schedule.calls {
        let next = if call.shuts_down() && state.1 == Tone::Good {
            (Tone::Waits, "paused")
        } else if call.destroys() && state.1 == Tone::Waits {
            (Tone::Bad, "lost")
        } else if call.takes_over() && state.1 == Tone::Waits && run.tds.0 == run.tds.1 {
            (Tone::Good, "run")
        } else {
            continue;
        };
        let (x, width) = axis.place(call);
        let x = x + width;
        parts.push((state, x));
        state = (x, next.0, next.1);
    }
    // The last part reaches beyond the last call.
    parts.push((state, axis.end() + RIGHT - 10.0));
    let at = (LEFT - 8.0, TOP + 14.0);
    picture.text(at, Anchor::End, Font::SMALL, Tone::Muted, &counted(run.tds.0, "TD"));
    for ((from, tone, word), to) in parts {
        let area = (from, TOP + 1.0, to - from, 18.0);
        if to - from > Font::SMALL.width(word) + 6.0 {
            picture.label(area, Font::SMALL, tone, word);
        } else {
            picture.area(area, tone, Some(word));
        }
    }
}

/// Draws the calls and returns those that have failed.
fn draw_calls<'a>(
    picture: &mut Picture,
    schedule: &'a Schedule,
    axis: &Axis,
    row: f64,
    top: f64,
) -> Vec<&'a Placed> {
    let mut failures = Vec::new();
    for call in &schedule.calls {
        let (x, width) = axis.place(call);
        let y = top + row * f64::from(call.entry.lp);
        let (gap_x, gap_y) =
            (if width > 6.0 { 1.5 } else { 0.0 }, if row > 6.0 { 2.5 } else { 0.0 });
        let tone = match (call.has_failed, call.is_for_loader()) {
            (true, _) => Tone::Bad,
            (false, true) => Tone::Loader,
            (false, false) => Tone::Module,
        };
        // A failed call stays visible in a picture with many LPs.
        let (least_x, least_y) = if call.has_failed { (3.0, 3.0) } else { (0.3, 1.0) };
        let area = (
            x + gap_x,
            y + gap_y,
            (width - 2.0 * gap_x).max(least_x),
            (row - 2.0 * gap_y).max(least_y),
        );
        picture.area(area, tone, Some(&call.entry.to_string()));
        let middle = (x + width / 2.0, y + row / 2.0);
        if call.has_failed {
            failures.push(call);
            let mark = failures.len().to_string();
            if width > Font::SMALL.width(&mark) + 4.0 && row >= 13.0 {
                let at = (middle.0, middle.1 + 4.0);
                picture.text(at, Anchor::Middle, Font::SMALL.bold(), tone, &mark);
            }
        } else {
            draw_name(picture, call, middle, (width, row), tone);
        }
    }
    failures
}

/// Writes the name of a leaf into its box, in two lines, if there is room.
fn draw_name(
    picture: &mut Picture,
    call: &Placed,
    middle: (f64, f64),
    (width, row): (f64, f64),
    tone: Tone,
) {
    let font = Font::SMALL.sized(10.0);
    let name = LeafName(call.entry.input.rax).to_string();
    let system = name.strip_prefix("TDH.SYS.").map(|rest| ("TDH.SYS", rest));
    let (first, second) = system.or_else(|| name.split_once('.')).unwrap_or((&name, ""));
    let second = if second.is_empty() { String::new() } else { format!(".{second}") };
    let needed = font.width(first).max(font.width(&second)) + 10.0;
    if width < needed || row < 30.0 {
        return;
    }
    picture.text((middle.0, middle.1 - 2.0), Anchor::Middle, font, tone, first);
    picture.text((middle.0, middle.1 + 10.0), Anchor::Middle, font, tone, &second);
}

fn draw_legend(picture: &mut Picture, y: f64, all_well: bool) {
    let mut x = LEFT;
    let entries = [
        (Tone::Loader, "call of P-SEAMLDR: one LP at a time"),
        (Tone::Module, "call of the TDX module"),
        (Tone::Bad, "call that failed"),
    ];
    for (tone, text) in entries.into_iter().take(if all_well { 2 } else { 3 }) {
        picture.area((x, y - 10.0, 14.0, 12.0), tone, None);
        picture.text((x + 20.0, y), Anchor::Start, Font::SMALL, Tone::Plain, text);
        x += 20.0 + Font::SMALL.width(text) + 18.0;
    }
}

/// Returns the lines below the picture.
fn explanations(run: &Run<'_>, schedule: &Schedule, failures: &[&Placed]) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, call) in failures.iter().take(DESCRIBED).enumerate() {
        let leaf = LeafName(call.entry.input.rax);
        let answer = match call.entry.output {
            Ok(regs) => format!("{leaf} answered {}", AnswerName { leaf, rax: regs.rax }),
            Err(trap) => format!("{leaf}: {trap}"),
        };
        let lost = if call.destroys() { ": P-SEAMLDR destroyed the handoff data" } else { "" };
        let stage = schedule.bands.get(call.band).map_or("", |band| band.name.as_str());
        lines.push(format!(
            "{}  {stage}, LP {}: {answer}{lost}.",
            index.saturating_add(1),
            call.entry.lp
        ));
    }
    if let Some(more) = failures.len().checked_sub(DESCRIBED).filter(|more| *more != 0) {
        lines.push(format!("{} failed as well.", counted(more, "more call")));
    }
    if let Some(last) = failures.last() {
        let after: Vec<_> = schedule.bands.iter().skip(last.band.saturating_add(1)).collect();
        let names: Vec<_> = after.iter().map(|band| band.name.as_str()).collect();
        if !names.is_empty() {
            lines.push(format!("After the last failure the LPs went on: {}.", names.join(", ")));
        }
    }
    let mut end = run.message.to_owned();
    if let Some(first) = end.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    lines.push(format!("{end}. {} of {} alive.", run.tds.1, counted(run.tds.0, "TD")));
    lines.push(
        "Time is logical: a call begins when its LP has ended its last call, and all LPs the last \
         stage. The width of a box says nothing of how long a call takes."
            .to_owned(),
    );
    lines
}

/// Breaks a text into lines of this width in pixels.
fn wrapped(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if Font::WORDS.width(line) + Font::WORDS.width(word) + 8.0 < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
    use tdx_seamldr_core::{SeamcallRegs, Trap};

    fn call(lp: u32, rax: u64, answer: u64, rdx: u64) -> TraceEntry {
        let input = SeamcallRegs { rax, ..SeamcallRegs::default() };
        TraceEntry { lp, input, output: Ok(SeamcallRegs { rax: answer, rdx, ..input }) }
    }

    fn drawn(calls: &[TraceEntry], alive: usize) -> String {
        let run = Run { id: "r", calls, before: 0, lps: 2, tds: (3, alive), message: "the end" };
        draw(&run)
    }

    fn install(lp: u32, answer: SeamldrStatus, rdx: u64) -> TraceEntry {
        call(lp, SeamldrLeaf::Install.rax(), answer.0, rdx)
    }

    fn module(lp: u32, leaf: TdxLeaf) -> TraceEntry {
        call(lp, leaf.0.into(), TdxStatus::SUCCESS.0, 0)
    }

    #[test]
    fn failure_is_named_and_so_is_the_way_back() {
        let ok = SeamldrStatus::SUCCESS;
        let svg = drawn(
            &[
                module(0, TdxLeaf::SYS_SHUTDOWN),
                install(0, SeamldrStatus::EBADHASH, 0),
                install(0, ok, 0),
                install(1, ok, 0),
                module(1, TdxLeaf::SYS_INIT),
                module(0, TdxLeaf::SYS_LP_INIT),
                module(1, TdxLeaf::SYS_LP_INIT),
                module(0, TdxLeaf::SYS_UPDATE),
            ],
            3,
        );
        for text in [
            "1  CpuInstall, LP 0: SEAMLDR.INSTALL answered EBADHASH.",
            "the LPs went on: CpuInstall again, CpuInit, RunUpdate.",
            "The end. 3 of 3 TDs alive.",
            "call that failed",
        ] {
            assert!(svg.contains(text), "{text:?} is missing in {svg}");
        }
        assert!(!svg.contains(">lost<"), "{svg}");
    }

    #[test]
    fn tds_are_lost_where_p_seamldr_destroys_their_data() {
        let calls = [module(0, TdxLeaf::SYS_SHUTDOWN), install(0, SeamldrStatus::EUNSPECERR, 1)];
        let svg = drawn(&calls, 0);
        assert!(svg.contains(">lost<") && svg.contains("destroyed the handoff data"), "{svg}");
    }

    #[test]
    fn trap_is_a_failure_and_its_words_are_said() {
        let input =
            SeamcallRegs { rax: TdxLeaf::SYS_TDMR_INIT.0.into(), ..SeamcallRegs::default() };
        let entry = TraceEntry { lp: 1, input, output: Err(Trap::UndefinedOpcode) };
        let svg = drawn(&[entry], 3);
        assert!(svg.contains("Start, LP 1: TDH.SYS.TDMR.INIT: SEAMCALL raised #UD"), "{svg}");
    }

    #[test]
    fn calls_of_p_seamldr_are_one_after_the_other_and_those_of_the_module_side_by_side() {
        let calls = [0, 1].map(|lp| install(lp, SeamldrStatus::SUCCESS, 0));
        let columns = |calls: &[TraceEntry]| {
            Schedule::new(calls, 0, 2).calls.iter().map(|c| c.column).collect::<Vec<_>>()
        };
        assert_eq!(columns(&calls), [0, 1]);
        assert_eq!(columns(&[0, 1].map(|lp| module(lp, TdxLeaf::SYS_LP_INIT))), [0, 0]);
    }

    #[test]
    fn run_without_calls_and_without_tds_is_drawn() {
        let run = Run { id: "r", calls: &[], before: 0, lps: 1, tds: (0, 0), message: "" };
        assert!(draw(&run).contains("An update of 1 LP, call by call"));
    }
}
