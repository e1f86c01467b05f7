//! Tests with files of all kinds, changed in many ways.

use proptest::prelude::*;
use tdx_seamldr_core::abi::{SeamSigstruct, PAGE_SIZE};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_mock::{released_images, TestImage, TEST_SIGNER};
use zerocopy::little_endian::U32;
use zerocopy::IntoBytes;

use super::*;
use crate::text::hex;

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

fn small(format: ImageFormat) -> Vec<u8> {
    TestImage { format, pages: 3, ..TestImage::default() }.build().as_bytes().to_vec()
}

fn found(bytes: &[u8]) -> Examination {
    examine(bytes, &Releases::built_in())
}

fn codes(found: &Examination) -> Vec<&'static str> {
    found.problems.iter().map(|problem| problem.code).collect()
}

/// The image with one byte changed.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

/// A table in which the module of the small images is release 9.9.09.
fn table_with_the_small_module() -> Releases {
    let image = small(ImageFormat::BlobV1);
    let module = ModuleFacts::of(&image[8192..], None, &Releases::default());
    let row = format!("9.9.09,0x0105,,,,,{}", hex(&module.sha384));
    Releases::parse(&format!("version,svn,image,cpus,hv,ctx,mrseam\n{row}\n")).unwrap()
}

#[test]
fn image_that_a_test_key_signed_is_signed_by_another_key() {
    for format in ImageFormat::ALL {
        let found = examine(&small(format), &table_with_the_small_module());
        assert_eq!(
            (found.verdict, found.kind, codes(&found)),
            (Verdict::AnotherKey, Kind::Image, vec!["signer"])
        );
        assert_eq!(found.release, None, "only Intel's signature proves a release");
        let sigstruct = found.sigstruct.as_ref().unwrap();
        assert_eq!((sigstruct.signature, sigstruct.signer_sha384), (Signature::Valid, TEST_SIGNER));
        assert_eq!(
            (sigstruct.svn.to_string(), sigstruct.date.as_deref()),
            ("1.5".into(), Some("2024-01-29"))
        );
        let module = found.module.as_ref().unwrap();
        assert_eq!((module.as_signed, module.release), (Some(true), sigstruct.release));
        assert_eq!(module.release.unwrap().to_string(), "9.9.09");
        assert!(found.to_string().starts_with("signed by another key"), "{found}");
    }
}

#[test]
fn debug_module_is_named_as_such() {
    let image = TestImage { debug: true, ..TestImage::default() }.build();
    assert!(found(image.as_bytes()).to_string().ends_with("; a debug module"));
}

#[test]
fn each_change_is_named_by_the_changed_part() {
    let image = small(ImageFormat::BlobV1);
    for (at, expected) in [
        (0, vec!["image-version", "signer"]),
        (2, vec!["image-checksum", "signer"]),
        (9, vec!["image-signature-string", "signer"]),
        (17, vec!["image-length", "signer"]),
        (100, vec!["image-reserved-not-zero", "signer"]),
        (4096 + 950, vec!["signature", "image-checksum"]),
        (4096 + 600, vec!["signature", "image-checksum"]),
        (4096 + 200, vec!["signature", "image-checksum"]),
        (4096 + 905, vec!["signature", "image-hash", "image-checksum"]),
        (4096 + 3000, vec!["sigstruct-padding", "image-checksum", "signer"]),
        (8192 + 5000, vec!["image-hash", "image-checksum", "signer"]),
    ] {
        let found = found(&flipped(&image, at));
        assert_eq!((found.verdict, codes(&found)), (Verdict::Tampered, expected), "byte {at}");
        assert_eq!(found.to_string(), format!("tampered: {}", found.problems[0].message));
    }
    let found = found(&flipped(&image, 9));
    assert!(found.notes.iter().any(|note| note.contains("belong together")), "{found:?}");
}

#[test]
fn image_without_signature_or_key_is_unsigned_despite_other_faults() {
    let image = small(ImageFormat::ImageV2);
    for (begin, end) in [(516, 900), (128, 512)] {
        let mut bytes = image.clone();
        bytes[4096 + begin..4096 + end].fill(0);
        assert_eq!(found(&bytes).verdict, Verdict::Unsigned);
        assert_eq!(found(&flipped(&bytes, 8192)).verdict, Verdict::Unsigned);
        assert_eq!(found(&flipped(&bytes, 30)).verdict, Verdict::Unsigned);
    }
}

#[test]
fn file_that_is_too_long_is_named_with_the_extra_bytes() {
    for format in ImageFormat::ALL {
        for more in [1, 100, 4096] {
            let image = [small(format), vec![b'\n'; more]].concat();
            let found = found(&image);
            assert_eq!((found.verdict, found.kind), (Verdict::Tampered, Kind::DamagedImage));
            assert_eq!(codes(&found), ["trailing-bytes", "signer"]);
            assert!(found.problems[0].message.starts_with(&more.to_string()), "{found}");
            assert_eq!((found.length, found.module.unwrap().as_signed), (image.len(), Some(true)));
        }
    }
}

#[test]
fn cut_file_is_named_with_both_lengths_and_the_remaining_parts() {
    for format in ImageFormat::ALL {
        let image = small(format);
        for length in [20, 4095, 4096, 6143, 6144, 8192, 8193, image.len() - 1] {
            let found = found(&image[..length]);
            assert_eq!(found.kind, Kind::CutImage, "{format} cut to {length}");
            assert!(codes(&found).contains(&"cut"), "{format} cut to {length}: {found:?}");
            assert!(found.problems.iter().any(|problem| {
                problem.message.contains(&format!("{length} bytes"))
                    && problem.message.contains("20480")
            }));
            let sigstruct_is_there = length >= 6144;
            assert_eq!(found.sigstruct.is_some(), sigstruct_is_there, "{length}");
            assert_eq!((found.verdict, found.release), (Verdict::Part, None));
        }
    }
}

#[test]
fn sigstruct_alone_is_judged_by_its_signature() {
    let sigstruct = small(ImageFormat::BlobV1)[4096..8192].to_vec();
    for length in [2048, 3000, 4096] {
        let found = found(&sigstruct[..length]);
        assert_eq!((found.verdict, found.kind), (Verdict::AnotherKey, Kind::Sigstruct));
        assert!(found.notes.iter().any(|note| note.contains("tdx-seamldr pack")), "{found:?}");
    }
    for (at, code) in [(950, "signature"), (3000, "sigstruct-padding")] {
        let found = found(&flipped(&sigstruct, at));
        assert_eq!((found.verdict, codes(&found)[0]), (Verdict::Tampered, code));
    }
    let long = found(&[sigstruct.as_slice(), b"more"].concat());
    assert_eq!((long.verdict, codes(&long)[0]), (Verdict::Tampered, "trailing-bytes"));
    assert_eq!(found(&sigstruct[..2047]).kind, Kind::Unknown);
}

#[test]
fn binary_of_a_module_is_recognised_by_its_hash_over_whole_pages() {
    let image = small(ImageFormat::BlobV1);
    let module = &image[8192..];
    let table = table_with_the_small_module();
    let known = examine(module, &table);
    assert_eq!((known.verdict, known.kind), (Verdict::Part, Kind::Module));
    assert_eq!(known.to_string(), "only a part: the module's binary of TDX module 9.9.09");
    let changed = examine(&flipped(module, 5000), &table);
    assert_eq!(
        (changed.verdict, changed.kind, changed.release),
        (Verdict::NotAnImage, Kind::Elf, None)
    );
    let mut unknown = module.to_vec();
    unknown[6000..6012].copy_from_slice(b"Inte    lTDX");
    let unknown = examine(&unknown, &table);
    assert_eq!(
        (unknown.verdict, unknown.kind, unknown.release),
        (Verdict::Part, Kind::Module, None)
    );
    assert!(unknown.to_string().ends_with("of no release in the table"), "{unknown}");

    // The same, but zeros end it, and they were cut off.
    let zeros = TestImage { fill: 0, pages: 3, ..TestImage::default() }.module();
    let row = format!("9.9.10,0x0105,,,,,{}", hex(&ModuleFacts::of(&zeros, None, &table).sha384));
    let table = Releases::parse(&format!("version,svn,image,cpus,hv,ctx,mrseam\n{row}\n")).unwrap();
    assert_eq!(examine(&zeros[..zeros.len() - 100], &table).release.unwrap().to_string(), "9.9.10");
    let cut = examine(&zeros[..0x60], &table);
    assert_eq!((cut.kind, codes(&cut)), (Kind::Elf, vec!["cut"]));
}

#[test]
fn file_that_people_mistake_for_an_image_is_recognised() {
    let mut acm = vec![0x5a; 4096];
    for (at, field) in [(0, 2_u32), (16, 0x8086), (24, 1024)] {
        acm[at..at + 4].copy_from_slice(&field.to_le_bytes());
    }
    let mut short_acm = acm.clone();
    short_acm[24] = 1;
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: &[(&[u8], Kind)] = &[
        (b"", Kind::Empty),
        (&[0; 5000], Kind::Zeros),
        (&acm, Kind::Acm),
        (&short_acm, Kind::Unknown),
        (&tar, Kind::Tar),
        (&[0x1f, 0x8b, 8, 0], Kind::Gzip),
        (b"\xfd7zXZ\0\0", Kind::Xz),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0], Kind::Zstd),
        (b"BZh91AY", Kind::Bzip2),
        (&[0x04, 0x22, 0x4d, 0x18], Kind::Lz4),
        (b"PK\x03\x04....", Kind::Zip),
        (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
        (b"\n <!DOCTYPE html><title>Not found</title>", Kind::WebPage),
        (b"\xef\xbb\xbf<HTML lang=de>\xe4", Kind::WebPage),
        (b"<?xml version='1.0'?><Error/>", Kind::WebPage),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", Kind::LfsPointer),
        (b"{\"a\": 1}", Kind::Json),
        (
            b"{\"tdx_module_releases\": [{\"version\": \"1.5.05\"}, {\"version\": \"\\u001b[2J\"}]}",
            Kind::MappingFile,
        ),
        (b"404: Not Found", Kind::Text),
        (b"{\"tdx_module_releases\": [{\"ver", Kind::Text),
        (b"text\x07bell", Kind::Unknown),
        (b"\xff\xfe\x00", Kind::Unknown),
        (b"TDX-BLOB", Kind::Text),
    ];
    for (bytes, kind) in cases {
        let found = found(bytes);
        assert_eq!(
            (found.verdict, found.kind),
            (Verdict::NotAnImage, *kind),
            "{}",
            bytes.escape_ascii()
        );
        assert!(found.to_string().starts_with("not an image: "));
    }
}

#[test]
fn text_from_a_file_is_escaped() {
    let listed =
        found(br#"{"tdx_module_releases": [{"version": "1.5.05"}, {"version": "\u001b[2J"}]}"#);
    assert_eq!(listed.listed, ["1.5.05", "\\u{1b}[2J"]);
    let text = found("error \u{202e}txt".as_bytes());
    assert_eq!(text.notes[0], "the text begins with \"error \\u{202e}txt\"");
    let mut image = small(ImageFormat::BlobV1);
    image[8..16].copy_from_slice(b"\x1b[2J\x1b[1m");
    let damaged = found(&image);
    assert!(
        damaged.to_string().contains("\\x1b[2J") && !damaged.to_string().contains('\u{1b}'),
        "{damaged}"
    );
}

#[test]
fn sigstruct_area_of_two_pages_is_noted() {
    let image = TestImage { pages: 3, ..TestImage::default() };
    let module = image.module();
    let sigstruct = [image.sigstruct(&module).as_bytes(), &[0; 3000]].concat();
    let parts = tdx_seamldr_core::image::ImageParts { sigstruct: &sigstruct, module: &module };
    let mut file = vec![0; parts.file_len().unwrap()];
    parts.write(ImageFormat::BlobV1, &mut file).unwrap();
    let found = found(&file);
    assert!(
        found.notes.iter().any(|note| note.contains("2 pages, but SEAMLDR.INSTALL takes 1")),
        "{found:?}"
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn released_images_are_genuine_and_their_parts_are_known() {
    for image in released_images().unwrap().unwrap() {
        let bytes = image.bytes.as_bytes();
        let whole = found(bytes);
        assert_eq!(
            whole.to_string(),
            format!("genuine: TDX module {}, signed by Intel", image.version)
        );
        assert_eq!((whole.problems.len(), whole.notes.len()), (0, 0));
        let (sigstruct, module) = (found(&bytes[4096..6144]), found(&bytes[8192..]));
        for (part, kind) in [
            (sigstruct, Kind::Sigstruct),
            (module, Kind::Module),
            (found(&bytes[..9000]), Kind::CutImage),
        ] {
            assert_eq!((part.verdict, part.kind), (Verdict::Part, kind));
            assert_eq!(part.release.unwrap().to_string(), image.version);
        }
        assert_eq!(examine(bytes, &Releases::default()).verdict, Verdict::Genuine);
        assert_eq!(examine(bytes, &Releases::default()).release, None);
        let long = found(&[bytes, b"\n"].concat());
        assert!(long.to_string().contains("without that the file would be genuine"), "{long}");
        for at in [
            0,
            9,
            100,
            2,
            4096 + 20,
            4096 + 200,
            4096 + 600,
            4096 + 950,
            4096 + 3000,
            8192,
            bytes.len() - 1,
        ] {
            let changed = found(&flipped(bytes, at));
            assert_eq!(
                (changed.verdict, changed.release),
                (Verdict::Tampered, None),
                "{}: byte {at}",
                image.version
            );
        }
        // Another module behind a good SIGSTRUCT, with the right checksum.
        let mut parts = TdxImage::parse(bytes).unwrap().parts();
        let other = TestImage::default().module();
        parts.module = &other;
        let mut forged = vec![0; parts.file_len().unwrap()];
        parts.write(ImageFormat::BlobV1, &mut forged).unwrap();
        let forged = found(&forged);
        assert_eq!((forged.verdict, codes(&forged)), (Verdict::Tampered, vec!["image-hash"]));
        assert!(
            forged.to_string().contains(&format!("signed as TDX module {}", image.version)),
            "{forged}"
        );
    }
}

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    Xor(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Fill(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 1..=255_u8).prop_map(|(at, mask)| Change::Xor(at, mask)),
        index().prop_map(Change::Cut),
        (index(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Fill(at, byte)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Xor(at, mask) => bytes[at.index(length)] ^= mask,
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Fill(at, byte) => {
                let at = at.index(length);
                bytes[at..(at + 64).min(length)].fill(*byte);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_changed_byte_of_an_image_passes(at in any::<prop::sample::Index>(), mask in 1..=255_u8,
        v2 in any::<bool>()) {
        let mut image = small(if v2 { ImageFormat::ImageV2 } else { ImageFormat::BlobV1 });
        // Most of the bytes are the module's: take each part as often.
        let at = match at.index(3) {
            0 => at.index(PAGE_SIZE),
            1 => PAGE_SIZE + at.index(SeamSigstruct::SIZE),
            _ => at.index(image.len()),
        };
        image[at] ^= mask;
        let found = found(&image);
        // The rule for the checksum of v2 is not published.
        if v2 && (2..4).contains(&at) {
            prop_assert_eq!(found.verdict, Verdict::AnotherKey);
        } else {
            prop_assert_eq!(found.verdict, Verdict::Tampered);
        }
    }

    #[test]
    fn changed_files_are_examined_and_written_as_json(changes in prop::collection::vec(change(),
        0..5)) {
        let original = small(ImageFormat::BlobV1);
        let mut image = original.clone();
        changes.iter().for_each(|change| change.apply(&mut image));
        let found = found(&image);
        prop_assert_eq!(found.length, image.len());
        let holds = found.verdict == Verdict::AnotherKey && found.kind == Kind::Image;
        prop_assert_eq!(holds, image == original);
        prop_assert!(serde_json::to_string(&found).is_ok());
        prop_assert!(!found.to_string().contains(char::is_control));
    }

    #[test]
    fn any_bytes_are_examined(bytes in prop::collection::vec(any::<u8>(), 0..9000),
        magic in 0..6_usize) {
        let begin: &[u8] = [b"".as_slice(), b"\0\x01..\0\x20\0\0TDX-BLOB", b"\0\x02..TDX-BLOB", b"\x7fELF\x02\x01\x01", b"{\"", b"<"][magic];
        let found = found(&[begin, &bytes].concat());
        prop_assert!(!matches!(found.verdict, Verdict::Genuine | Verdict::AnotherKey));
        prop_assert!(serde_json::to_string(&found).is_ok());
    }
}

#[test]
fn sigstruct_with_few_right_fields_is_not_recognised() {
    let mut sigstruct: SeamSigstruct = TestImage::default().sigstruct(&[]);
    (sigstruct.header_type, sigstruct.size) = (U32::new(7), U32::new(0));
    assert!(sigstruct::find(sigstruct.as_bytes()).is_some());
    sigstruct.header_length = U32::new(0);
    assert!(sigstruct::find(sigstruct.as_bytes()).is_none());
}
