//! The two layouts of an image file, as the core's structures have them.

use anyhow::{ensure, Context, Result};
use tdx_seamldr_cli::picture::{Anchor, Font, Picture, Tone};
use tdx_seamldr_core::abi::{MAX_MODULE_PAGES, PAGE_SIZE};
use tdx_seamldr_core::image::ImageFormat;

/// The structures of the header.
const SOURCE: &str = "crates/tdx-seamldr-core/src/image/header.rs";

/// A field of the header: its offset in the file, its size in bytes, its name.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    offset: usize,
    size: usize,
    name: String,
}

/// Returns the size of a type, in bytes.
fn size(of: &str) -> Option<usize> {
    let word = |name: &str| -> Option<usize> {
        match name {
            "u8" => Some(1),
            "U16" => Some(2),
            "U32" => Some(4),
            "U64" => Some(8),
            _ => None,
        }
    };
    match of.strip_prefix('[').and_then(|array| array.strip_suffix(']')) {
        Some(array) => {
            let (one, count) = array.split_once("; ")?;
            word(one)?.checked_mul(count.parse().ok()?)
        }
        None => word(of),
    }
}

/// Returns the fields of a structure in a source. The first field has this offset.
fn fields(source: &str, name: &str, mut offset: usize) -> Result<Vec<Field>> {
    let head = format!("struct {name} {{\n");
    let (_, rest) = source.split_once(&head).with_context(|| format!("{SOURCE}: {name}"))?;
    let (body, _) = rest.split_once("\n}").context("the end of a structure")?;
    let mut fields = Vec::new();
    for line in body.lines() {
        let Some(field) = line.trim().strip_prefix("pub(super) ") else { continue };
        let (name, of) = field.trim_end_matches(',').split_once(": ").context("a field")?;
        let size = size(of).with_context(|| format!("{SOURCE}: the size of {of}"))?;
        fields.push(Field { offset, size, name: name.to_owned() });
        offset = offset.saturating_add(size);
    }
    Ok(fields)
}

/// Returns the fields of the header of a format. The format's own fields replace `fields`.
fn header(source: &str, format: ImageFormat) -> Result<Vec<Field>> {
    let own = match format {
        ImageFormat::BlobV1 => "HeaderV1",
        ImageFormat::ImageV2 => "HeaderV2",
    };
    let mut all = Vec::new();
    for field in fields(source, "Header", 0)? {
        if field.name == "fields" {
            all.extend(fields(source, own, field.offset)?);
        } else {
            all.push(field);
        }
    }
    let end = all.last().map(|last| last.offset.saturating_add(last.size));
    ensure!(end == Some(PAGE_SIZE), "{own}: the header ends at {end:?}");
    Ok(all)
}

const COLUMN: f64 = 410.0;
const TOP: f64 = 84.0;
const ROW: f64 = 24.0;

pub(super) fn draw() -> Result<String> {
    let source = super::source(SOURCE)?;
    let mut picture = Picture::new("layouts", 860.0, "The two layouts of an image file");
    let title = "The two layouts of an image file";
    picture.text((16.0, 28.0), Anchor::Start, Font::TITLE, Tone::Plain, title);
    let mut end = TOP;
    for (left, format) in [24.0, 24.0 + COLUMN].into_iter().zip(ImageFormat::ALL) {
        let whose = match format {
            ImageFormat::BlobV1 => "Intel's releases",
            ImageFormat::ImageV2 => "Linux 7.2",
        };
        let title = format!("{}, version {:#06x}: {whose}", format.name(), format.version());
        let font = Font::WORDS.bold();
        picture.text((left + 52.0, TOP - 24.0), Anchor::Start, font, Tone::Plain, &title);
        picture.text((left + 44.0, TOP - 6.0), Anchor::End, Font::SMALL, Tone::Muted, "offset");
        let mut y = TOP;
        let line = |picture: &mut Picture, y: f64, offset: &str, tone, text: &str, rows: f64| {
            let at = (left + 44.0, y + ROW / 2.0 + 4.0);
            picture.text(at, Anchor::End, Font::SMALL, Tone::Muted, offset);
            picture.label((left + 52.0, y, 330.0, ROW * rows - 2.0), Font::CODE, tone, text);
        };
        for field in header(&source, format)? {
            let tone = if field.name.starts_with("reserved") { Tone::Muted } else { Tone::Plain };
            let text = format!("{}, {} bytes", field.name, field.size);
            line(&mut picture, y, &field.offset.to_string(), tone, &text, 1.0);
            y += ROW;
        }
        let text = match format.max_sigstruct_pages() {
            1 => "SIGSTRUCT, 1 page".to_owned(),
            pages => format!("SIGSTRUCT, 1 to {pages} pages"),
        };
        line(&mut picture, y, &PAGE_SIZE.to_string(), Tone::Loader, &text, 1.6);
        y += ROW * 1.6;
        let after = match format {
            ImageFormat::BlobV1 => "at offset_of_module",
            ImageFormat::ImageV2 => "behind the SIGSTRUCT",
        };
        let text = format!("module, 1 to {MAX_MODULE_PAGES} pages");
        line(&mut picture, y, "", Tone::Module, &text, 2.6);
        let at = (left + 217.0, y + ROW * 2.6 - 12.0);
        picture.text(at, Anchor::Middle, Font::SMALL, Tone::Module, after);
        y += ROW * 2.6;
        end = end.max(y);
    }
    let note = format!("A page has {PAGE_SIZE} bytes. Integers are little-endian. The signature is the text TDX-BLOB.");
    picture.text((76.0, end + 20.0), Anchor::Start, Font::SMALL, Tone::Muted, &note);
    Ok(picture.finish(end + 36.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_offsets_and_sizes() {
        let source =
            "struct A {\n    /// 4.\n    pub(super) a: U32,\n    pub(super) b: [U64; 3],\n}\n";
        let found = fields(source, "A", 4).unwrap_or_default();
        let field = |offset, size, name: &str| Field { offset, size, name: name.to_owned() };
        assert_eq!(found, [field(4, 4, "a"), field(8, 24, "b")]);
        assert!(fields(source, "B", 0).is_err());
        assert!(fields("struct A {\n    pub(super) a: String,\n}\n", "A", 0).is_err());
    }
}
