//! Files that are not images: parts of an image, and files that people mistake for images.

use serde::Deserialize;
use tdx_seamldr_core::abi::INTEL_VENDOR_ID;
use tdx_seamldr_core::preflight::elf::{read, ElfHeader, IDENT};

use super::{sigstruct, Examination, Kind, ModuleFacts, Verdict};
use crate::releases::Releases;
use crate::text::{first_line, printable};

/// The first bytes of files, from the specifications of their formats: offset, bytes, kind.
const MAGICS: [(usize, &[u8], Kind); 9] = [
    (0, &[0x1f, 0x8b], Kind::Gzip),
    (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], Kind::Xz),
    (0, &[0x28, 0xb5, 0x2f, 0xfd], Kind::Zstd),
    (0, b"BZh", Kind::Bzip2),
    (0, &[0x04, 0x22, 0x4d, 0x18], Kind::Lz4),
    (0, &[b'P', b'K', 3, 4], Kind::Zip),
    (0, &[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c], Kind::SevenZip),
    (257, b"ustar", Kind::Tar),
    (0, b"version https://git-lfs.github.com/spec/", Kind::LfsPointer),
];

/// The beginning of a text that a server sent in place of a file, in lower case.
const MARKUP: [&str; 4] = ["<!doctype", "<html", "<?xml", "<error"];

/// The answer of CPUID leaf 0x21 in TDs, in the order EBX, ECX, EDX. The binary of a TDX module
/// contains it.
const CPUID_ANSWER: &[u8] = b"Inte    lTDX";

/// The most characters of a text that are shown.
const SHOWN: usize = 60;

/// The most versions of a `mapping_file.json` that are listed.
const LISTED: usize = 1000;

pub(super) fn examine(bytes: &[u8], releases: &Releases) -> Examination {
    let mut found = match sigstruct::find(bytes) {
        Some(sigstruct) => sigstruct::examine(bytes, sigstruct, releases),
        None if bytes.starts_with(&IDENT) => elf(bytes, releases),
        None => no_part(bytes),
    };
    found.note_advice();
    found
}

/// Examines an ELF file, which may be the binary of a module.
fn elf(bytes: &[u8], releases: &Releases) -> Examination {
    let mut found = Examination::new(Verdict::Part, Kind::Module, bytes.len());
    let module = ModuleFacts::of(bytes, None, releases);
    found.release = module.release;
    if module.release.is_none() {
        if !bytes.windows(CPUID_ANSWER.len()).any(|window| window == CPUID_ANSWER) {
            found.verdict = Verdict::NotAnImage;
            found.kind = Kind::Elf;
        }
        // An unchanged file ends with the headers of its sections.
        let end = read::<ElfHeader>(bytes, 0).and_then(|header| {
            let sections =
                u64::from(header.e_shnum.get()).checked_mul(header.e_shentsize.get().into())?;
            header.e_shoff.get().checked_add(sections)
        });
        if let Some(end) =
            end.filter(|end| u64::try_from(bytes.len()).is_ok_and(|length| length < *end))
        {
            let length = bytes.len();
            found.problem(
                "cut",
                format!("the file has {length} bytes, but its ELF header needs {end}"),
            );
        }
    }
    found.module = Some(module);
    found
}

/// Examines a file that is not a part of an image.
fn no_part(bytes: &[u8]) -> Examination {
    let mut found = Examination::new(Verdict::NotAnImage, Kind::Unknown, bytes.len());
    let magic = MAGICS
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    found.kind = match (magic, std::str::from_utf8(bytes)) {
        (Some((_, _, kind)), _) => *kind,
        _ if is_markup(bytes) => Kind::WebPage,
        _ if bytes.is_empty() => Kind::Empty,
        _ if bytes.iter().all(|byte| *byte == 0) => Kind::Zeros,
        _ if is_acm(bytes) => Kind::Acm,
        (None, Ok(text)) => of_text(text, &mut found),
        (None, Err(_)) => Kind::Unknown,
    };
    found
}

/// Whether the file begins like a web page or an XML text, in any encoding.
fn is_markup(bytes: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(bytes.get(..bytes.len().min(1024)).unwrap_or_default())
        .to_lowercase();
    let begin = begin.trim_start_matches('\u{feff}').trim_start();
    MARKUP.iter().any(|markup| begin.starts_with(markup))
}

/// Whether the file begins with the header of an Intel authenticated code module: type 2 (chipset),
/// the vendor, and the size of the file in 32-bit words.
fn is_acm(bytes: &[u8]) -> bool {
    let field = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let length = field(24).and_then(|words| words.checked_mul(4));
    field(0).is_some_and(|kind| kind & 0xffff == 2)
        && field(16) == Some(INTEL_VENDOR_ID)
        && length.is_some_and(|length| {
            length != 0 && usize::try_from(length).is_ok_and(|length| length <= bytes.len())
        })
}

/// The members of `mapping_file.json` that are shown.
#[derive(Deserialize)]
struct MappingFile {
    tdx_module_releases: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    version: String,
}

fn of_text(text: &str, found: &mut Examination) -> Kind {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with(['{', '[']) {
        if let Ok(file) = serde_json::from_str::<MappingFile>(text) {
            let versions = file.tdx_module_releases.iter().take(LISTED);
            found.listed = versions.map(|listed| printable(&listed.version)).collect();
            return Kind::MappingFile;
        }
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            return Kind::Json;
        }
    }
    if text.chars().any(|character| character.is_control() && !character.is_whitespace()) {
        return Kind::Unknown;
    }
    found.note(format!("the text begins with \"{}\"", first_line(text, SHOWN)));
    Kind::Text
}

impl Examination {
    /// Notes what to do with a file of this kind.
    pub(super) fn note_advice(&mut self) {
        let is_cut = self.problems.iter().any(|problem| problem.code == "cut");
        let kind = if is_cut { Kind::CutImage } else { self.kind };
        if let Some(advice) = kind.advice() {
            self.note(advice);
        }
    }
}
