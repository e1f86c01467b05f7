//! Checks that no function of the core's public interface can reach a panic.
//!
//! `docs/api` lists all functions; `cargo xtask public-api --check` checks the list. This check
//! writes the functions without type parameters into a generated list. `xtask/embed/all.rs` must
//! list all others, with a kernel's types. A program that takes the addresses of all functions is
//! linked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use super::{Build, CORE, PANIC_SYMBOL};

const API: &str = "docs/api/tdx-seamldr-core.txt";
const PROBE: &str = "xtask/embed/all.rs";

pub(super) fn check(build: &Build, root: &Path, sources: &BTreeMap<String, PathBuf>) -> Result<()> {
    let out = build.out.join("all");
    std::fs::create_dir_all(&out)?;
    let mut all =
        Build { out, externs: build.externs.clone(), overflow_checks: build.overflow_checks };
    all.externs.retain(|(name, _)| name != CORE);
    let features = ["--cap-lints=allow", "--cfg=feature=\"mutex\"", "--cfg=feature=\"spin_mutex\""];
    all.library("spin", sources.get("spin").context("no source of spin")?, &features)?;
    let source = root.join("crates/tdx-seamldr-core/src/lib.rs");
    all.library(CORE, &source, &["--cfg=feature=\"spin\""])?;

    let probe = root.join(PROBE);
    let api = std::fs::read_to_string(root.join(API)).context(API)?;
    let functions = functions(&api)?;
    let list = std::fs::read_to_string(&probe).context(PROBE)?;
    let listed: BTreeSet<_> = list.lines().filter_map(of_list).collect();
    let missing: Vec<_> =
        functions.iter().filter_map(|function| function.missing_in(&listed)).collect();
    ensure!(
        missing.is_empty(),
        "functions that are missing in {PROBE}:\n  {}",
        missing.join("\n  ")
    );

    let expressions: BTreeSet<_> =
        functions.iter().filter_map(|function| function.expression.as_deref()).collect();
    let expressions: Vec<_> = expressions.into_iter().collect();
    let generated = all.out.join("functions.rs");
    let link = |expressions: &[&str]| {
        std::fs::write(&generated, addresses_of(expressions))?;
        let file = generated.to_str().context("a path that is not UTF-8")?;
        let file = format!("--env-set=PUBLIC_FUNCTIONS={file}");
        match all.link_probe(
            "all",
            &probe,
            &["probe_all", "probe_public"],
            &["-Zunstable-options", &file],
        ) {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains(PANIC_SYMBOL) => Ok(false),
            Err(error) => Err(error),
        }
    };
    let checks = if build.overflow_checks { "with" } else { "without" };
    if !link(&expressions)? {
        // The functions of the probe's list are part of every link, so they are checked first.
        ensure!(
            link(&[])?,
            "{checks} overflow checks, a panic can be reached from one of the functions in the \
             list of {PROBE}; none of the others was tried by itself"
        );
        let culprits = culprits(&expressions, &link)?;
        bail!("{checks} overflow checks, a panic can be reached from\n  {}", culprits.join("\n  "));
    }
    println!(
        "{checks} overflow checks, no panic can be reached from any of the core's {} public \
         functions; ok",
        expressions.len().saturating_add(listed.len())
    );
    Ok(())
}

/// Returns the source of a function with the addresses of these functions.
fn addresses_of(expressions: &[&str]) -> String {
    let mut text = format!(
        "#[no_mangle]\npub fn probe_public() -> [*const (); {}] {{\n    [\n",
        expressions.len()
    );
    for expression in expressions {
        let _ = writeln!(text, "        {expression} as *const (),");
    }
    text.push_str("    ]\n}\n");
    text
}

/// Returns the functions that each make the link fail.
fn culprits<'a>(
    expressions: &[&'a str],
    link: &dyn Fn(&[&str]) -> Result<bool>,
) -> Result<Vec<&'a str>> {
    if link(expressions)? {
        return Ok(Vec::new());
    }
    if expressions.len() <= 1 {
        return Ok(expressions.to_vec());
    }
    let (first, second) = expressions.split_at(expressions.len() / 2);
    Ok([culprits(first, link)?, culprits(second, link)?].concat())
}

/// The last part of the path of a type or trait, and the name of its function.
type Name = (String, String);

/// A function of the public interface.
struct Function<'a> {
    line: &'a str,
    path: &'a str,
    /// The expression that names the function, if it has no type parameters.
    expression: Option<String>,
}

impl<'a> Function<'a> {
    /// Whether the function has type parameters and is not in the list.
    fn missing_in(&self, listed: &BTreeSet<Name>) -> Option<&'a str> {
        let is_listed = of_path(self.path).is_some_and(|name| {
            // The list names an implementation for references by its trait.
            let by_reference = name.0 == "&B" && listed.iter().any(|(_, other)| *other == name.1);
            by_reference || listed.contains(&name)
        });
        (self.expression.is_none() && !is_listed).then_some(self.line)
    }
}

/// The owner of the following lines.
enum Place<'a> {
    Module,
    /// A type, by itself or as a trait. It may have functions without type parameters.
    Type(&'a str, Option<&'a str>),
    Generic,
}

/// Returns all functions. In the form of `cargo public-api`, an `impl` or a trait comes before its
/// functions.
fn functions(api: &str) -> Result<Vec<Function<'_>>> {
    let mut place = Place::Module;
    let mut functions = Vec::new();
    for line in api.lines().map(without_attributes) {
        if let Some(header) = line.strip_prefix("unsafe ").unwrap_or(line).strip_prefix("impl") {
            place = implementation(header).unwrap_or(Place::Generic);
        } else if line.starts_with("pub trait ") || line.starts_with("pub unsafe trait ") {
            place = Place::Generic;
        } else if ["pub mod ", "pub struct ", "pub enum "].iter().any(|item| line.starts_with(item))
        {
            place = Place::Module;
        } else if let Some((keywords, rest)) = function(line) {
            let path = signature(keywords, rest)
                .with_context(|| format!("{API} has a function that cannot be read: {line}"))?;
            functions.push(Function { line, path, expression: expression(path, &place) });
        }
    }
    Ok(functions)
}

/// Reads the text after `impl`: `<'a, T> a::Trait for b::Type where ..`.
fn implementation(header: &str) -> Option<Place<'_>> {
    let mut header = header.split(" where ").next()?;
    if let Some(rest) = header.strip_prefix('<') {
        let (parameters, rest) = rest.split_at_checked(closing(rest)?)?;
        if has_types(parameters) {
            return Some(Place::Generic);
        }
        header = rest.strip_prefix('>')?;
    }
    let header = header.trim();
    Some(match header.split_once(" for ") {
        // The path of a trait may be private, so the program imports its name.
        Some((of, on)) => {
            let end = of.find('<').unwrap_or(of.len());
            let start = of.get(..end)?.rfind("::").map_or(0, |at| at.saturating_add(2));
            Place::Type(on, of.get(start..))
        }
        None => Place::Type(header, None),
    })
}

/// Returns the line without its attributes: `#[no_mangle] pub fn ..`.
fn without_attributes(line: &str) -> &str {
    let start = if line.starts_with("#[") { line.find("] pub ") } else { None };
    start.and_then(|at| line.get(at..)).map_or(line, |rest| rest.trim_start_matches("] "))
}

/// Returns the texts before and after `fn`, if the line is a function.
fn function(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("pub ")?;
    rest.strip_prefix("fn ").map(|path| ("", path)).or_else(|| rest.split_once(" fn "))
}

/// Returns the path of a function, with type arguments. Refuses other keywords: the address of an
/// `async` function does not lead to its body.
fn signature<'a>(keywords: &str, path: &'a str) -> Option<&'a str> {
    if !keywords.split_whitespace().all(|word| word == "const" || word == "unsafe") {
        return None;
    }
    let mut depth = 0usize;
    let end = path.find(|character| {
        match character {
            '<' => depth = depth.saturating_add(1),
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == '(' && depth == 0
    })?;
    path.get(..end)
}

/// Returns the expression that names the function, unless it has type parameters. `hash` gets a
/// hasher that does nothing.
fn expression(path: &str, place: &Place<'_>) -> Option<String> {
    let function = without_arguments(path).rsplit("::").next()?.to_owned();
    let (path, parameters) = match path.strip_suffix('>') {
        Some(inner) => path.split_at_checked(opening(inner)?)?,
        None => (path, ""),
    };
    let parameters = parameters.trim_start_matches('<').trim_end_matches('>');
    let is_hash = parameters == "__H: core::hash::Hasher";
    let arguments = if is_hash { "::<NoHasher>" } else { "" };
    if !is_hash && has_types(parameters) {
        return None;
    }
    match place {
        Place::Generic => None,
        Place::Type(on, of)
            if without_arguments(path) == format!("{}::{function}", without_arguments(on)) =>
        {
            let on = on.replace("'a", "'static").replace("'_", "'static");
            // `Drop::drop` cannot be named. `drop_in_place` calls it.
            if *of == Some("Drop") {
                return Some(format!("core::ptr::drop_in_place::<{on}>"));
            }
            let of = of.map(|of| format!(" as {of}")).unwrap_or_default();
            Some(format!("<{on}{of}>::{function}{arguments}"))
        }
        Place::Type(..) | Place::Module => Some(path.to_owned()),
    }
}

/// Whether one of these parameters is not a lifetime.
fn has_types(parameters: &str) -> bool {
    without_arguments(parameters)
        .split(',')
        .map(str::trim)
        .any(|parameter| !parameter.is_empty() && !parameter.starts_with('\''))
}

/// Reads a line of the probe's list: `Type::f`, `Type::f::<A>`, or `<A as Trait>::f`, which names
/// the trait.
fn of_list(line: &str) -> Option<Name> {
    let line = line.trim().trim_end_matches(',');
    let Some(rest) = line.strip_prefix('<') else { return of_path(line) };
    let (of, function) = rest.split_once(" as ")?.1.split_once('>')?;
    of_path(&format!("{of}{function}"))
}

fn of_path(path: &str) -> Option<Name> {
    let path = without_arguments(path);
    let (of, function) = path.rsplit_once("::")?;
    Some((of.rsplit("::").next()?.to_owned(), function.to_owned()))
}

/// Returns the text without angle brackets and their content.
fn without_arguments(text: &str) -> String {
    let mut depth = 0usize;
    let mut rest = String::new();
    for character in text.chars() {
        match character {
            '<' => depth = depth.saturating_add(1),
            '>' => depth = depth.saturating_sub(1),
            other if depth == 0 => rest.push(other),
            _ => {}
        }
    }
    rest.replace("::::", "::").trim_end_matches("::").to_owned()
}

/// Returns the offset where an angle bracket from before this text closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1usize;
    text.char_indices().find_map(|(at, character)| {
        match character {
            '<' => depth = depth.saturating_add(1),
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Returns the offset where an angle bracket that closes after this text opens.
fn opening(text: &str) -> Option<usize> {
    let mut depth = 1usize;
    text.char_indices().rev().find_map(|(at, character)| {
        match character {
            '>' => depth = depth.saturating_add(1),
            '<' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const SOME: &str = "pub mod a
#[no_mangle] pub fn a::free(u8) -> u8
#[repr(C)] pub struct a::M<'a>
impl<'a> a::M<'a>
pub const fn a::M<'a>::new<'b>(&'b u8) -> core::result::Result<Self, a::E>
pub fn a::M<'a>::build<H: a::Host + ?c::Sized>(&H) -> Self
impl core::hash::private::Hash for a::M<'_>
pub fn a::M<'_>::hash<__H: core::hash::Hasher>(&self, &mut __H)
impl core::ops::drop::Drop for a::M<'_>
pub fn a::M<'_>::drop(&mut self)
impl<'a, T> a::Own for a::N<'a, T> where T: a::X
pub fn a::N<'a, T>::own()
pub unsafe trait a::Own
pub unsafe fn a::Own::own()
impl<B: a::Own> a::Own for &B
pub unsafe fn &B::own()
";

    #[test]
    fn functions_with_type_parameters_must_be_listed_and_others_are_named() {
        let functions = functions(SOME).unwrap();
        let named: Vec<_> =
            functions.iter().filter_map(|function| function.expression.as_deref()).collect();
        assert_eq!(
            named,
            [
                "a::free",
                "<a::M<'static>>::new",
                "<a::M<'static> as Hash>::hash::<NoHasher>",
                "core::ptr::drop_in_place::<a::M<'static>>"
            ]
        );
        let missing = |list: &str| {
            let listed = list.lines().filter_map(of_list).collect();
            functions.iter().filter(|function| function.missing_in(&listed).is_some()).count()
        };
        assert_eq!(missing(""), 4);
        assert_eq!(missing("    M::build::<Kernel>,\n    N::own,\n"), 1, "the trait's own");
        assert_eq!(
            missing("    M::build::<Kernel>,\n    N::own,\n    <&Kernel as Own>::own,\n"),
            0
        );
    }

    #[test]
    fn function_that_cannot_be_parsed_is_an_error() {
        for line in [
            "pub async fn a::f()",
            "pub extern \"C\" fn a::f()",
            "pub fn a::f<T: Fn(",
            "pub fn a::f",
        ] {
            let error = functions(line).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.ends_with(line), "{line}: {error:?}");
        }
        let others =
            "pub a::S::callback: unsafe fn(u8) -> u8\npub type a::F = fn(u8)\npub struct a::fn_";
        assert!(functions(others).unwrap().is_empty());
    }

    #[test]
    fn each_function_that_fails_to_link_is_found() {
        let link = |some: &[&str]| Ok(!some.contains(&"b") && !some.contains(&"e"));
        assert_eq!(culprits(&["a", "b", "c", "d", "e"], &link).unwrap(), ["b", "e"]);
    }
}
