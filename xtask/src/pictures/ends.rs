//! The fate of the TDs in failing updates: ends, next steps, and the losses by Linux's policy and
//! by this library.

use anyhow::{ensure, Context, Result};
use tdx_seamldr_cli::picture::{number, Anchor, Font, Picture, Tone};
use tdx_seamldr_core::update::{NextStep, TdFate};
use tdx_seamldr_worlds::outcomes::{Counts, End, Tables};

use crate::figures;

const WIDTH: f64 = 860.0;

/// Returns the text and the tone of a box for the end of an update.
const fn fate(tds: Option<TdFate>) -> (&'static str, &'static str, Tone) {
    match tds {
        None => ("refused by preflight", "nothing was touched", Tone::Good),
        Some(TdFate::NeverAtRisk) => ("NeverAtRisk", "nothing was shut down", Tone::Good),
        Some(TdFate::Preserved) => ("Preserved", "a module took the TDs over", Tone::Good),
        Some(TdFate::Held) => ("Held", "paused, handoff data intact", Tone::Waits),
        Some(TdFate::Unknown) => ("Unknown", "the firmware does not tell", Tone::Waits),
        Some(TdFate::Lost) => ("Lost", "P-SEAMLDR destroyed the data", Tone::Bad),
    }
}

/// The order of boxes, from good to bad.
const FATES: [Option<TdFate>; 6] = [
    Some(TdFate::Preserved),
    Some(TdFate::NeverAtRisk),
    None,
    Some(TdFate::Unknown),
    Some(TdFate::Held),
    Some(TdFate::Lost),
];

/// Returns the text of a box for a next step. `None`: preflight's finding names the way out.
const fn step(next: Option<NextStep>) -> (&'static str, &'static str) {
    match next {
        None => ("see the finding", "remove the reason, then repeat"),
        Some(NextStep::Done) => ("Done", "nothing to do"),
        Some(NextStep::Retry) => ("Retry", "remove the reason, then repeat"),
        Some(NextStep::RetryLater) => ("RetryLater", "the module was busy: repeat later"),
        Some(NextStep::InstallAgain) => ("InstallAgain", "Update::resume, on every LP"),
        Some(NextStep::CompleteSession) => ("CompleteSession", "Update::resume, on every LP"),
        Some(NextStep::Finish) => ("Finish", "Update::finish"),
        Some(NextStep::Load) => ("Load", "Update::load, without these TDs"),
        Some(NextStep::Configure) => ("Configure", "TDH.SYS.CONFIG, as at boot"),
        Some(NextStep::Reboot) => ("Reboot", "nothing answers"),
    }
}

const STEPS: [Option<NextStep>; 10] = [
    Some(NextStep::Done),
    Some(NextStep::Retry),
    Some(NextStep::RetryLater),
    None,
    Some(NextStep::Finish),
    Some(NextStep::CompleteSession),
    Some(NextStep::InstallAgain),
    Some(NextStep::Load),
    Some(NextStep::Configure),
    Some(NextStep::Reboot),
];

/// Returns the way of an update through the picture: fate, next step, whether TDs run afterwards.
const fn way(end: End) -> (Option<TdFate>, Option<NextStep>, bool) {
    match end {
        End::Refused => (None, None, true),
        End::Ended { tds, next, alive } => (Some(tds), Some(next), alive),
    }
}

/// A box of a column: its fate or step, its upper edge, and its number of scenarios.
struct Place<T> {
    of: T,
    y: f64,
    count: u32,
}

const BOX: f64 = 44.0;
const GAP: f64 = 16.0;
const TOP: f64 = 106.0;
/// The left edges of the columns, and their widths.
const COLUMNS: [(f64, f64); 3] = [(16.0, 246.0), (326.0, 246.0), (640.0, 204.0)];

/// Places the boxes of a column that any way goes through, in this order.
fn places<T: Copy + PartialEq>(
    order: &[T],
    ends: &[(End, u32)],
    of: impl Fn(End) -> T,
) -> Vec<Place<T>> {
    let mut places: Vec<Place<T>> = Vec::new();
    for one in order {
        let here = ends.iter().filter(|(end, _)| of(*end) == *one);
        let count: u32 = here.map(|(_, count)| count).sum();
        if count != 0 {
            let y = TOP + (BOX + GAP) * number(places.len());
            places.push(Place { of: *one, y, count });
        }
    }
    places
}

/// Draws the arrows from a column to the next one.
fn arrows<A: Copy + PartialEq, B: Copy + PartialEq>(
    picture: &mut Picture,
    ends: &[(End, u32)],
    (from, from_x, of): (&[Place<A>], f64, impl Fn(End) -> A),
    (to, to_x, on): (&[Place<B>], f64, impl Fn(End) -> B),
) {
    for start in from {
        let goes = |end: &&Place<B>| {
            ends.iter().any(|(way, _)| of(*way) == start.of && on(*way) == end.of)
        };
        let targets: Vec<&Place<B>> = to.iter().filter(goes).collect();
        for (port, end) in targets.iter().enumerate() {
            let share = number(port.saturating_add(1)) / number(targets.len().saturating_add(1));
            let begin = (from_x, start.y + BOX * share);
            // Arrows that arrive at the same box spread over its height.
            let ways = from.iter().filter(|place| {
                ends.iter().any(|(way, _)| of(*way) == place.of && on(*way) == end.of)
            });
            let all = ways.clone().count();
            let before = ways.take_while(|place| place.y < start.y).count();
            let share = number(before.saturating_add(1)) / number(all.saturating_add(1));
            let stop = (to_x, end.y + BOX * share);
            picture.arrow(&[begin, stop], Tone::Muted);
        }
    }
}

/// The picture of ends and next steps, in the sweep with the most LPs.
pub(super) fn flow(tables: &Tables) -> Result<String> {
    let (lps, counts) = tables.singles().last().context("a sweep")?;
    let ends = &counts.ends;
    let total: u32 = ends.iter().map(|(_, count)| count).sum();
    ensure!(total == counts.scenarios, "{total} ends of {} scenarios", counts.scenarios);
    let fates = places(&FATES, ends, |end| way(end).0);
    let steps = places(&STEPS, ends, |end| way(end).1);
    let finals = places(&[true, false], ends, |end| way(end).2);
    let title = "How an update ends, and what is next";
    let mut picture = Picture::new("outcomes", WIDTH, title);
    picture.text((16.0, 28.0), Anchor::Start, Font::TITLE, Tone::Plain, title);
    let note = format!(
        "{lps} LPs. One call fails, or one LP stays away: {} scenarios. Each is counted once in \
         each column.",
        figures::number(counts.scenarios.into())
    );
    picture.text((16.0, 50.0), Anchor::Start, Font::WORDS, Tone::Muted, &note);
    let titles = ["Outcome::tds", "Outcome::next", "in the end"];
    for ((x, width), title) in COLUMNS.into_iter().zip(titles) {
        let font = Font::WORDS.bold();
        picture.text((x + width / 2.0, TOP - 14.0), Anchor::Middle, font, Tone::Plain, title);
    }
    let [(x0, w0), (x1, w1), (x2, w2)] = COLUMNS;
    let (of, on) = (|end| way(end).0, |end| way(end).1);
    arrows(&mut picture, ends, (fates.as_slice(), x0 + w0, of), (steps.as_slice(), x1, on));
    arrows(
        &mut picture,
        ends,
        (steps.as_slice(), x1 + w1, on),
        (finals.as_slice(), x2, |end| way(end).2),
    );
    for place in &fates {
        let (name, what, tone) = fate(place.of);
        node(&mut picture, (x0, w0), place.y, tone, [name, what], place.count);
    }
    for place in &steps {
        let (name, what) = step(place.of);
        node(&mut picture, (x1, w1), place.y, Tone::Loader, [name, what], place.count);
    }
    for place in &finals {
        let (name, what, tone) = match place.of {
            true => ("the TDs run", "as before", Tone::Good),
            false => ("the TDs are lost", "their data is destroyed", Tone::Bad),
        };
        node(&mut picture, (x2, w2), place.y, tone, [name, what], place.count);
    }
    let rows = number(fates.len().max(steps.len()));
    let y = TOP + (BOX + GAP) * rows + 8.0;
    let others: Vec<_> = STEPS
        .into_iter()
        .filter(|other| steps.iter().all(|place| place.of != *other))
        .map(|other| step(other).0)
        .collect();
    let note =
        format!("Other next steps, after a resumed update or a load: {}.", others.join(", "));
    picture.text((16.0, y), Anchor::Start, Font::SMALL, Tone::Muted, &note);
    Ok(picture.finish(y + 16.0))
}

/// Draws a box with a name, a line below it, and its number of scenarios.
fn node(
    picture: &mut Picture,
    (x, width): (f64, f64),
    y: f64,
    tone: Tone,
    [name, what]: [&str; 2],
    count: u32,
) {
    picture.area((x, y, width, BOX), tone, None);
    picture.text((x + 10.0, y + 19.0), Anchor::Start, Font::WORDS.bold(), tone, name);
    picture.text((x + 10.0, y + 35.0), Anchor::Start, Font::SMALL, tone, what);
    let count = figures::number(count.into());
    let at = (x + width - 10.0, y + 19.0);
    picture.text(at, Anchor::End, Font::WORDS.bold(), tone, &count);
}

const BAR: f64 = 18.0;
const BAR_LEFT: f64 = 200.0;
const BAR_RIGHT: f64 = 700.0;

/// The picture of losses: a pair of bars for each number of LPs, in two groups.
pub(super) fn bars(tables: &Tables) -> String {
    let title = "TDs at the end of an update in which one thing fails";
    let mut picture = Picture::new("losses", WIDTH, title);
    picture.text((16.0, 28.0), Anchor::Start, Font::TITLE, Tone::Plain, title);
    let mut x = BAR_LEFT;
    for (tone, text) in [(Tone::Bad, "Linux 7.2's policy"), (Tone::Loader, "this library")] {
        picture.area((x, 42.0, 14.0, 12.0), tone, None);
        picture.text((x + 20.0, 52.0), Anchor::Start, Font::WORDS, Tone::Plain, text);
        x += 190.0;
    }
    let longest = tables.singles().iter().flat_map(|(_, counts)| {
        [counts.linux.not_running, counts.linux.lost].map(|harm| share(harm, counts))
    });
    let longest = longest.fold(0.01, f64::max);
    let mut y = 84.0;
    let lost: fn(&Counts) -> [u32; 2] = |counts| [counts.linux.lost, counts.ours.lost];
    let stopped: fn(&Counts) -> [u32; 2] =
        |counts| [counts.linux.not_running, counts.ours.not_running];
    for (heading, values) in [
        ("Lost after everything that can be done in this boot", lost),
        ("Not running when the update ends: lost, or paused", stopped),
    ] {
        picture.text((16.0, y), Anchor::Start, Font::WORDS.bold(), Tone::Plain, heading);
        y += 12.0;
        for (lps, counts) in tables.singles() {
            let named = figures::counted((*lps).into(), "LP");
            let label = format!("{named}, {} scenarios", figures::number(counts.scenarios.into()));
            let at = (BAR_LEFT - 10.0, y + BAR + 4.0);
            picture.text(at, Anchor::End, Font::WORDS, Tone::Plain, &label);
            for (harm, tone) in values(counts).into_iter().zip([Tone::Bad, Tone::Loader]) {
                let part = share(harm, counts);
                let width = (BAR_RIGHT - BAR_LEFT) * part / longest;
                picture.area((BAR_LEFT, y, width, BAR - 2.0), tone, None);
                let text = format!("{harm} ({:.1} %)", part * 100.0);
                let at = (BAR_LEFT + width + 8.0, y + BAR - 5.0);
                picture.text(at, Anchor::Start, Font::SMALL, Tone::Plain, &text);
                y += BAR;
            }
            y += 8.0;
        }
        y += 20.0;
    }
    if tables.singles().iter().all(|(_, counts)| counts.ours.lost == counts.destroyed) {
        let note =
            "In each scenario that this library loses, P-SEAMLDR destroyed the handoff data \
                    (RDX 1): no software can keep these TDs.";
        picture.text((16.0, y - 4.0), Anchor::Start, Font::SMALL, Tone::Muted, note);
        y += 16.0;
    }
    picture.finish(y)
}

/// Returns the share of the scenarios that harm the TDs.
fn share(harm: u32, counts: &Counts) -> f64 {
    f64::from(harm) / f64::from(counts.scenarios.max(1))
}
