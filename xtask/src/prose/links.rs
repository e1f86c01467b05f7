//! Links of documents to files of the project: the file exists, and has the heading or the anchor.
//! Links to other sites are not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{ensure, Result};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The links of a document, and the places in it that links can lead to.
#[derive(Debug, Default)]
struct Document {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

impl Document {
    fn read(text: &str) -> Self {
        let mut document = Self::default();
        let mut heading: Option<String> = None;
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let before = seen.entry(slug.clone()).or_default();
                    let anchor = match *before {
                        0 => slug,
                        count => format!("{slug}-{count}"),
                    };
                    *before = before.saturating_add(1);
                    document.anchors.insert(anchor);
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    document.anchors.extend(attributes(&html, "id").map(str::to_owned));
                    for name in ["src", "srcset", "href"] {
                        document.links.extend(attributes(&html, name).map(str::to_owned));
                    }
                }
                _ => {}
            }
        }
        document
    }
}

/// Returns the values of an attribute in HTML.
fn attributes<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!(" {name}=\"");
    let mut rest = html;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&begin)?;
        let (value, end) = after.split_once('"')?;
        rest = end;
        Some(value)
    })
}

/// Returns the anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// Returns a path without `.` and `..`, or `None` if the path leaves the project.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir if plain.pop() => {}
            _ => return None,
        }
    }
    Some(plain)
}

/// Returns the problem of a link of a document.
fn problem(from: &str, link: &str, documents: &BTreeMap<PathBuf, Document>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, at)| (file, Some(at)));
    let from = Path::new(from);
    let target = match file {
        "" => from.to_owned(),
        file => from.parent().unwrap_or(Path::new("")).join(file),
    };
    let Some(target) = plain(&target) else {
        return Some("it leads out of the project".to_owned());
    };
    if !crate::root().join(&target).exists() {
        return Some("there is no such file".to_owned());
    }
    let (anchor, document) = (anchor?, documents.get(&target)?);
    (!document.anchors.contains(anchor)).then(|| format!("{} has no #{anchor}", target.display()))
}

pub(super) fn check() -> Result<()> {
    let mut documents = BTreeMap::new();
    for name in super::files(&["*.md"])? {
        let text = std::fs::read_to_string(crate::root().join(&name))?;
        documents.insert(PathBuf::from(name), Document::read(&text));
    }
    let mut problems = Vec::new();
    for (from, document) in &documents {
        let from = from.display().to_string();
        for link in &document.links {
            if let Some(problem) = problem(&from, link, &documents) {
                problems.push(format!("{from}: {link}: {problem}"));
            }
        }
    }
    ensure!(problems.is_empty(), "{} dead links:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_slugs_of_headings_and_ids() {
        let text =
            "# A `b` c!\n\n## A b c\n\n## <a id=\"2.8\"></a>2.8 More\n\n[x](y.md#z) ![i](i.svg)\n";
        let document = Document::read(text);
        let anchors: Vec<_> = document.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["2.8", "28-more", "a-b-c", "a-b-c-1"]);
        assert_eq!(document.links, ["y.md#z", "i.svg"]);
    }

    #[test]
    fn dead_files_and_dead_anchors_are_found() {
        let text = "# Here\n";
        let documents = [(PathBuf::from("README.md"), Document::read(text))].into();
        let found = |link| problem("README.md", link, &documents);
        for good in ["#here", "README.md#here", "docs/adr", "https://example.org/#no", "Cargo.toml"]
        {
            assert_eq!(found(good), None, "{good}");
        }
        for bad in ["#there", "README.md#there", "no-such-file.md", "../README.md"] {
            assert!(found(bad).is_some(), "{bad}");
        }
    }
}
