//! `simulate --draw`, looked at in a real browser: Chromium. Without it, these tests are ignored.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{tdx_seamldr, Folder};
use serde_json::Value;

/// Looks at the picture of a page. It lists texts that overlap, texts and boxes that leave the
/// frame, and texts with too little contrast to the page.
const LOOK: &str = r#"<pre id="found"></pre><script>
const svg = document.querySelector('svg');
const frame = svg.getBoundingClientRect();
const texts = [...svg.querySelectorAll('text')].map(node => [node, node.getBoundingClientRect()]);
const found = {dark: matchMedia('(prefers-color-scheme: dark)').matches, texts: texts.length,
               overlap: [], outside: [], faint: []};
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
                    && a.top < b.bottom - 3 && b.top < a.bottom - 3;
texts.forEach(([node, area], index) => {
  for (const [other, box] of texts.slice(index + 1)) {
    if (meet(area, box)) found.overlap.push(node.textContent + ' / ' + other.textContent);
  }
});
for (const node of svg.querySelectorAll('text, rect:not(.page)')) {
  const area = node.getBoundingClientRect();
  if (area.left < frame.left || area.right > frame.right + 1 || area.top < frame.top
      || area.bottom > frame.bottom + 1) found.outside.push(node.textContent);
}
const light = node => {
  const parts = getComputedStyle(node).fill.match(/[\d.]+/g).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
for (const [node] of texts) {
  const pair = [light(node), light(svg.querySelector('.page'))].sort((a, b) => b - a);
  if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) found.faint.push(node.textContent);
}
document.querySelector('#found').textContent = JSON.stringify(found);
</script>"#;

/// Returns what the browser finds in a page.
fn looked_at(folder: &Folder, page: &str, dark: bool) -> Value {
    let file = folder.put("looked-at.html", format!("{page}{LOOK}").as_bytes());
    let scheme = format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 });
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,900"]);
    command.arg(scheme).arg(format!("--user-data-dir={}", folder.path("profile").display()));
    let output = command.args(["--dump-dom"]).arg(file).output().unwrap();
    let page = String::from_utf8_lossy(&output.stdout);
    let (_, found) = page.rsplit_once("<pre id=\"found\">").unwrap_or_else(|| {
        panic!("chromium shows no page: {}", String::from_utf8_lossy(&output.stderr))
    });
    let (found, _) = found.split_once("</pre>").unwrap();
    let found = found.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"))
}

#[track_caller]
fn assert_is_legible(found: &Value, what: &str) {
    for problem in ["overlap", "outside", "faint"] {
        assert_eq!(found[problem].as_array().unwrap().len(), 0, "{what}: {problem}: {found}");
    }
}

/// Draws a run into a file with this name, and returns its text.
fn drawn(folder: &Folder, name: &str, more: &[&str]) -> String {
    let file = folder.path(name);
    let mut arguments = vec!["simulate", "--draw", file.to_str().unwrap()];
    arguments.extend(more);
    let output = tdx_seamldr(arguments);
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(file).unwrap()
}

#[test_with::executable(chromium)]
#[test]
fn drawing_of_any_number_of_lps_is_legible_on_light_and_dark_pages() {
    let folder = Folder::new();
    for lps in ["1", "4", "64", "300"] {
        let page = drawn(&folder, "run.html", &["--lps", lps]);
        for dark in [false, true] {
            let found = looked_at(&folder, &page, dark);
            assert_eq!(found["dark"], dark, "{found}");
            assert!(found["texts"].as_u64().unwrap() > 10, "{found}");
            assert_is_legible(&found, &format!("{lps} LPs, dark: {dark}"));
        }
    }
}

#[test_with::executable(chromium)]
#[test]
fn browser_finds_texts_that_overlap_leave_the_frame_or_are_faint() {
    let page = "<svg viewBox='0 0 100 50' width='100' height='50'><rect class='page' width='100' \
                height='50' fill='white'/><text x='5' y='20'>one</text><text x='8' \
                y='22'>two</text><text x='95' y='45' fill='#eee'>far out</text></svg>";
    let found = looked_at(&Folder::new(), page, false);
    for problem in ["overlap", "outside", "faint"] {
        assert_eq!(found[problem].as_array().unwrap().len(), 1, "{problem}: {found}");
    }
}

#[test_with::executable(chromium)]
#[test]
fn pictures_of_the_documents_are_legible_on_light_and_dark_pages() {
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures");
    let folder = Folder::new();
    let mut count = 0;
    for picture in std::fs::read_dir(pictures).unwrap() {
        let path = picture.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "svg") {
            continue;
        }
        count += 1;
        let page = std::fs::read_to_string(&path).unwrap();
        for dark in [false, true] {
            let found = looked_at(&folder, &page, dark);
            assert_is_legible(&found, &format!("{}, dark: {dark}", path.display()));
        }
    }
    assert!(count >= 7, "{count} pictures");
}

#[test]
fn drawing_is_one_file_that_names_each_call_and_the_point_of_no_return() {
    let folder = Folder::new();
    let svg = drawn(&folder, "run.svg", &["--lps", "2"]);
    assert_eq!(svg.matches("<title>").count(), 1 + 10 + 2 + 2 + 2 + 1 + 2 + 1, "{svg}");
    for text in ["point of no return", "CpuInstall", "3 of 3 TDs alive", "LP 1"] {
        assert!(svg.contains(text), "{text:?} is missing in {svg}");
    }
    let page = drawn(&folder, "run.html", &["--lps", "2"]);
    assert!(page.starts_with("<!DOCTYPE html>"));
    for loads in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[test]
fn drawing_of_a_refused_update_ends_with_preflight() {
    let folder = Folder::new();
    let image = folder.image("image", &tdx_seamldr_mock::TestImage::default());
    let (image, file) = (image.to_str().unwrap(), folder.path("run.svg"));
    let file = file.to_str().unwrap();
    let output = tdx_seamldr(["simulate", "--from", image, "--to", image, "--draw", file]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let svg = std::fs::read_to_string(file).unwrap();
    assert!(svg.contains("Preflight") && !svg.contains("point of no return"), "{svg}");
}

#[test]
fn drawing_into_a_file_with_another_ending_is_wrong_usage() {
    let output = tdx_seamldr(["simulate", "--draw", "run.png"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains(".svg or .html"), "{output:?}");
}
