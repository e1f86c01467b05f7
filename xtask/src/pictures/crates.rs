//! The published crates and their dependencies, by `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use tdx_seamldr_cli::picture::{number, Anchor, Font, Picture, Tone};

const WIDTH: f64 = 860.0;
const BOX: (f64, f64) = (188.0, 40.0);
const LEVEL: f64 = 92.0;
const TOP: f64 = 76.0;

/// The published crates, each with the published crates that it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn graph() -> Result<Graph> {
    let mut command = MetadataCommand::new();
    command.manifest_path(crate::root().join("Cargo.toml")).no_deps();
    let metadata = command.exec().context("cargo metadata")?;
    let is_published = |package: &&Package| package.publish.is_none();
    let packages: Vec<&Package> = metadata.packages.iter().filter(is_published).collect();
    let names: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let of = |package: &&Package| {
        let normal = package.dependencies.iter().filter(|on| on.kind == DependencyKind::Normal);
        let own = normal.map(|on| on.name.clone()).filter(|name| names.contains(name));
        (package.name.to_string(), own.collect())
    };
    Ok(packages.iter().map(of).collect())
}

/// Returns all crates that a crate uses, directly or not.
fn below(graph: &Graph, name: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut left: Vec<&str> = vec![name];
    while let Some(next) = left.pop() {
        for on in graph.get(next).into_iter().flatten() {
            if all.insert(on.clone()) {
                left.push(on);
            }
        }
    }
    all
}

/// Returns the number of levels of crates below a crate.
fn level(graph: &Graph, name: &str) -> usize {
    let below = graph.get(name).into_iter().flatten();
    below.map(|on| level(graph, on).saturating_add(1)).max().unwrap_or(0)
}

/// Returns the direct dependencies that no other dependency brings.
fn needed<'a>(graph: &'a Graph, name: &str) -> Vec<&'a String> {
    let Some(direct) = graph.get(name) else { return Vec::new() };
    let brings = |one: &String, other: &String| below(graph, other).contains(one);
    direct.iter().filter(|one| !direct.iter().any(|other| brings(one, other))).collect()
}

pub(super) fn draw() -> Result<String> {
    let graph = graph()?;
    let levels = graph.keys().map(|name| level(&graph, name)).max().unwrap_or(0);
    let bottom = TOP + LEVEL * number(levels);
    let mut places = BTreeMap::new();
    for at in 0..=levels {
        let row: Vec<_> = graph.keys().filter(|name| level(&graph, name) == at).collect();
        let room = WIDTH / number(row.len().max(1));
        for (index, name) in row.into_iter().enumerate() {
            let middle = room * (number(index) + 0.5);
            places.insert(name.as_str(), (middle, bottom - LEVEL * number(at)));
        }
    }
    let mut picture = Picture::new("crates", WIDTH, "Which crate stands on which");
    let at = (16.0, 28.0);
    picture.text(at, Anchor::Start, Font::TITLE, Tone::Plain, "Which crate stands on which");
    let note = "An arrow leads to a crate that another one uses. Crates below bring theirs along.";
    picture.text((16.0, 48.0), Anchor::Start, Font::WORDS, Tone::Muted, note);
    for (name, (x, y)) in &places {
        let needed = needed(&graph, name);
        for (index, on) in needed.iter().enumerate() {
            let Some((to_x, to_y)) = places.get(on.as_str()) else { continue };
            let share = number(index.saturating_add(1)) / number(needed.len().saturating_add(1));
            let start = (x - BOX.0 / 2.0 + BOX.0 * share, y + BOX.1);
            let lean = (start.0 - to_x).clamp(-BOX.0 / 2.0 + 12.0, BOX.0 / 2.0 - 12.0);
            picture.arrow(&[start, (to_x + lean, *to_y)], Tone::Muted);
        }
    }
    for (name, (x, y)) in &places {
        let tone = if below(&graph, name).is_empty() { Tone::Loader } else { Tone::Module };
        picture.label((x - BOX.0 / 2.0, *y, BOX.0, BOX.1), Font::CODE, tone, name);
    }
    Ok(picture.finish(bottom + BOX.1 + 16.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_others_imply_is_left_out() {
        let graph: Graph = [("a", vec!["b", "c"]), ("b", vec!["c"]), ("c", vec![])]
            .into_iter()
            .map(|(name, on)| (name.to_owned(), on.into_iter().map(str::to_owned).collect()))
            .collect();
        assert_eq!(needed(&graph, "a"), ["b"]);
        assert_eq!(["a", "b", "c"].map(|name| level(&graph, name)), [2, 1, 0]);
    }
}
