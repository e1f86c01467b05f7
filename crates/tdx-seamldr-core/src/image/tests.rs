use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn file(format: ImageFormat, sigstruct: &[u8], module: &[u8]) -> Vec<u8> {
    let parts = ImageParts { sigstruct, module };
    let mut out = vec![0xaa; parts.file_len().unwrap()];
    parts.write(format, &mut out).unwrap();
    out
}

fn small(format: ImageFormat) -> Vec<u8> {
    file(format, &[0x5a; 2048], &[0xc3; 2 * PAGE_SIZE])
}

/// Changes a small file, corrects the v1 checksum, and parses.
fn parse_changed(
    format: ImageFormat,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<ImageFormat, ImageError> {
    let mut bytes = small(format);
    change(&mut bytes);
    if format == ImageFormat::BlobV1 && bytes.len() >= 4 {
        bytes[2..4].fill(0);
        let sum = sum16(&bytes).wrapping_neg();
        bytes[2..4].copy_from_slice(&sum.to_le_bytes());
    }
    TdxImage::parse(&bytes).map(|image| image.format())
}

#[test]
fn image_of_either_format_has_the_parts_that_were_written() {
    for format in ImageFormat::ALL {
        let bytes = small(format);
        let image = TdxImage::parse(&bytes).unwrap();
        assert_eq!(image.format(), format);
        assert_eq!((image.sigstruct_pages(), image.module_pages()), (1, 2));
        assert_eq!(image.module(), [0xc3; 2 * PAGE_SIZE]);
        assert_eq!(image.sigstruct().svn_minor, 0x5a);
        assert!(image.sigstruct_area()[2048..].iter().all(|byte| *byte == 0));
        let wanted = if format == ImageFormat::BlobV1 { Checksum::Ok } else { Checksum::Zero };
        assert_eq!(image.checksum(), wanted);
    }
}

#[test]
fn each_rule_of_v1_has_its_own_error() {
    use ImageError as E;
    let v1 = |change: fn(&mut Vec<u8>)| parse_changed(ImageFormat::BlobV1, change).unwrap_err();
    assert_eq!(v1(|b| b.truncate(4095)), E::TooShort { found: 4095, wanted: 4096 });
    assert_eq!(v1(|b| b[1] = 3), E::Version { found: 0x300, wanted: None });
    assert_eq!(v1(|b| b[8] = b't'), E::Signature { found: *b"tDX-BLOB" });
    assert_eq!(v1(|b| b[20] = 1), E::ReservedNotZero { offset: 20, found: 1 });
    assert_eq!(v1(|b| b[4095] = 7), E::ReservedNotZero { offset: 4095, found: 7 });
    assert_eq!(v1(|b| b[16] = 1), E::Length { found: 16385, wanted: 16384 });
    assert_eq!(v1(|b| b.truncate(16000)), E::Length { found: 16384, wanted: 16000 });
    let offset = |found, wanted| E::ModuleOffset { found, wanted };
    assert_eq!(v1(|b| b[4] = 1), offset(0x2001, "a multiple of 4096"));
    let sigstruct_missing = "at least 8192: a header and a page of SIGSTRUCT";
    assert_eq!(v1(|b| b[5] = 0x10), offset(0x1000, sigstruct_missing));
    assert_eq!(v1(|b| b[5] = 0), offset(0, sigstruct_missing));
    assert_eq!(v1(|b| b[5] = 0x40), offset(0x4000, "less than the length of the file"));
    let partial_page = |b: &mut Vec<u8>| {
        b.truncate(16000);
        b[16..20].copy_from_slice(&16000u32.to_le_bytes());
    };
    assert_eq!(v1(partial_page), E::ModuleLength { found: 16000 - 8192 });
    let too_many = |b: &mut Vec<u8>| {
        b.resize(8192 + 497 * 4096, 0);
        let len = u32::try_from(b.len()).unwrap();
        b[16..20].copy_from_slice(&len.to_le_bytes());
    };
    assert_eq!(v1(too_many), E::ModulePages { found: 497, wanted: Need::AtMost(496) });
}

#[test]
fn each_rule_of_v2_has_its_own_error() {
    use ImageError as E;
    let v2 = |change: fn(&mut Vec<u8>)| parse_changed(ImageFormat::ImageV2, change).unwrap_err();
    assert_eq!(v2(|b| b.clear()), E::TooShort { found: 0, wanted: 4096 });
    assert_eq!(v2(|b| b[4] = 0), E::Signature { found: *b"\0DX-BLOB" });
    assert_eq!(v2(|b| b[24] = 9), E::ReservedNotZero { offset: 24, found: 9 });
    assert_eq!(v2(|b| b[12] = 0), E::SigstructPages { found: 0, wanted: Need::AtLeast(1) });
    assert_eq!(v2(|b| b[12] = 2), E::Length { found: 20480, wanted: 16384 });
    assert_eq!(v2(|b| b[19] = 0x80), E::Length { found: (4 + 0x8000_0000) * 4096, wanted: 16384 });
    let no_module = |b: &mut Vec<u8>| {
        b.truncate(8192);
        b[16] = 0;
    };
    assert_eq!(v2(no_module), E::ModulePages { found: 0, wanted: Need::AtLeast(1) });
    let too_many = |b: &mut Vec<u8>| {
        b.resize(8192 + 497 * 4096, 0);
        b[16..20].copy_from_slice(&497u32.to_le_bytes());
    };
    assert_eq!(v2(too_many), E::ModulePages { found: 497, wanted: Need::AtMost(496) });
}

/// Linux multiplies page counts in 32 bits, so it takes 0x100001 pages for 1.
#[test]
fn parse_rejects_page_counts_that_overflow_32_bits() {
    let change = |b: &mut Vec<u8>| b[12..16].copy_from_slice(&0x0010_0001u32.to_le_bytes());
    let error = parse_changed(ImageFormat::ImageV2, change).unwrap_err();
    assert_eq!(error, ImageError::Length { found: (0x0010_0001 + 2 + 1) * 4096, wanted: 16384 });
}

#[test]
fn wrong_checksum_is_an_error_in_v1_and_reported_in_v2() {
    let mut v1 = small(ImageFormat::BlobV1);
    let wanted = u16::from_le_bytes([v1[2], v1[3]]);
    v1[2] ^= 1;
    assert_eq!(
        TdxImage::parse(&v1).unwrap_err(),
        ImageError::Checksum { found: wanted ^ 1, wanted }
    );
    let damaged = TdxImage::parse_without_checksum(&v1).unwrap();
    assert_eq!(damaged.checksum(), Checksum::Bad { found: wanted ^ 1, wanted });

    let mut v2 = small(ImageFormat::ImageV2);
    v2[2] = 1;
    assert!(matches!(TdxImage::parse(&v2).unwrap().checksum(), Checksum::Bad { found: 1, .. }));
    let sum = sum16(&v2).wrapping_sub(1).wrapping_neg();
    v2[2..4].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(TdxImage::parse(&v2).unwrap().checksum(), Checksum::Ok);
}

#[test]
fn sigstruct_area_has_up_to_4_pages_in_v1_and_1_in_v2() {
    let bytes = file(ImageFormat::BlobV1, &[1; 4 * PAGE_SIZE], &[2; PAGE_SIZE]);
    assert_eq!(TdxImage::parse(&bytes).unwrap().sigstruct_pages(), 4);

    for (format, pages) in [(ImageFormat::BlobV1, 5), (ImageFormat::ImageV2, 2)] {
        let sigstruct = vec![1; pages * PAGE_SIZE];
        let parts = ImageParts { sigstruct: &sigstruct, module: &[2; PAGE_SIZE] };
        let mut out = vec![0; parts.file_len().unwrap()];
        let (found, wanted) =
            (u32::try_from(pages).unwrap(), Need::AtMost(format.max_sigstruct_pages()));
        assert_eq!(
            parts.write(format, &mut out),
            Err(WriteError::SigstructPages { found, wanted })
        );

        // A file that announces as many pages.
        let mut bytes = file(format, &[1; PAGE_SIZE], &vec![2; pages * PAGE_SIZE]);
        match format {
            ImageFormat::BlobV1 => {
                bytes[4..8].copy_from_slice(
                    &u32::try_from((pages + 1) * PAGE_SIZE).unwrap().to_le_bytes(),
                );
            }
            ImageFormat::ImageV2 => (bytes[12], bytes[16]) = (2, 1),
        }
        let error = TdxImage::parse_without_checksum(&bytes).unwrap_err();
        assert_eq!(error, ImageError::SigstructPages { found, wanted });
    }
}

#[test]
fn sum16_counts_an_odd_last_byte_as_a_low_byte() {
    assert_eq!(sum16(&[1, 2, 3]), 0x0204);
    assert_eq!(sum16(&[]), 0);
}

#[test]
fn write_rejects_parts_that_do_not_form_a_file() {
    let len =
        |sigstruct: &[u8], module: &[u8]| ImageParts { sigstruct, module }.file_len().unwrap_err();
    assert_eq!(len(&[0; 2047], &[0; 4096]), WriteError::SigstructLength { found: 2047 });
    assert_eq!(
        len(&[0; 2048], &[]),
        WriteError::ModulePages { found: 0, wanted: Need::AtLeast(1) }
    );
    assert_eq!(len(&[0; 2048], &[0; 4097]), WriteError::ModuleLength { found: 4097 });
    let many = vec![0; 497 * 4096];
    assert_eq!(
        len(&[0; 2048], &many),
        WriteError::ModulePages { found: 497, wanted: Need::AtMost(496) }
    );
    let parts = ImageParts { sigstruct: &[0; 2048], module: &[0; 4096] };
    let mut short = [7; 100];
    assert_eq!(
        parts.write(ImageFormat::BlobV1, &mut short),
        Err(WriteError::Buffer { found: 100, wanted: 12288 })
    );
    assert_eq!(short, [7; 100]);
}

#[test]
fn parse_accepts_496_pages_of_module() {
    for format in ImageFormat::ALL {
        let bytes = file(format, &[1; 2048], &vec![2; MAX_MODULE_PAGES * PAGE_SIZE]);
        assert_eq!(TdxImage::parse(&bytes).map(|image| image.module_pages()), Ok(496));
    }
}

#[test]
fn parse_rejects_two_equal_reserved_words() {
    let change = |b: &mut Vec<u8>| (b[24], b[32]) = (9, 9);
    let error = parse_changed(ImageFormat::ImageV2, change).unwrap_err();
    assert_eq!(error, ImageError::ReservedNotZero { offset: 24, found: 9 });
}

#[test]
fn parse_only_rejects_the_other_format() {
    for (format, other) in
        [(ImageFormat::BlobV1, ImageFormat::ImageV2), (ImageFormat::ImageV2, ImageFormat::BlobV1)]
    {
        let bytes = small(format);
        let image = TdxImage::parse_only(format, &bytes).unwrap();
        assert_eq!((image.format(), image.as_bytes()), (format, &bytes[..]));
        let error = TdxImage::parse_only(other, &bytes).unwrap_err();
        assert_eq!(error, ImageError::Version { found: format.version(), wanted: Some(other) });
        assert_eq!(
            TdxImage::parse_only(format, &bytes[..9]).unwrap_err(),
            ImageError::TooShort { found: 9, wanted: 4096 }
        );
    }
}

#[test]
fn debug_shows_the_sizes_of_an_image() {
    let bytes = small(ImageFormat::BlobV1);
    let shown = std::format!("{:?}", TdxImage::parse(&bytes).unwrap());
    assert_eq!(
        shown,
        "TdxImage { format: BlobV1, length: 16384, sigstruct_pages: 1, module_pages: 2, .. }"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..10000)) {
        let _ = TdxImage::parse(&bytes);
    }

    #[test]
    fn any_header_over_a_good_file_is_parsed_without_a_panic(
        v2: bool, at in 0usize..64, patch in prop::collection::vec(any::<u8>(), 0..32),
    ) {
        let mut bytes = small(if v2 { ImageFormat::ImageV2 } else { ImageFormat::BlobV1 });
        bytes[at..at + patch.len()].copy_from_slice(&patch);
        if let Ok(image) = TdxImage::parse_without_checksum(&bytes) {
            let parts = image.sigstruct_area().len() + image.module().len();
            prop_assert_eq!(parts + PAGE_SIZE, bytes.len());
        }
    }

    #[test]
    fn written_file_is_read_back_and_written_the_same(
        sigstruct in prop::collection::vec(any::<u8>(), 2048..9000), pages in 1usize..4, fill: u8,
    ) {
        let module = vec![fill; pages * PAGE_SIZE];
        let formats = ImageFormat::ALL.into_iter();
        let fits = |format: &ImageFormat| {
            sigstruct.len() <= 4096 || *format == ImageFormat::BlobV1
        };
        for format in formats.filter(fits) {
            let bytes = file(format, &sigstruct, &module);
            let image = TdxImage::parse(&bytes).unwrap();
            prop_assert_eq!(&image.sigstruct_area()[..sigstruct.len()], &sigstruct[..]);
            prop_assert_eq!(image.module(), &module[..]);
            let mut again = vec![0; bytes.len()];
            image.parts().write(format, &mut again).unwrap();
            prop_assert_eq!(again, bytes);
        }
    }
}
