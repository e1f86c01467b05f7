//! The images of `update_ops` scripts: to boot from, to update to, and to save TDs with.

use std::sync::LazyLock;

use tdx_seamldr_core::abi::{TdxFeatures0, PAGE_SIZE};
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild};
use tdx_seamldr_mock::{PageBuf, TestImage};
use zerocopy::little_endian::{U16, U32};

use crate::outcomes::case::{newer, signed, with_versions};
use crate::world::{new_image, old_image};

/// An image file.
pub(super) struct File {
    pub(super) bytes: PageBuf,
    /// SVN of the module, if P-SEAMLDR accepts the image.
    pub(super) svn_minor: u8,
    /// Whether the module was built as its SIGSTRUCT says. Only the module itself can check it.
    pub(super) fits: bool,
    /// MRSEAM that P-SEAMLDR stores for the image.
    pub(super) mrseam: [u8; 48],
}

impl File {
    fn new(bytes: PageBuf, svn_minor: u8) -> Self {
        let mrseam =
            TdxImage::parse_without_checksum(bytes.as_bytes()).unwrap().sigstruct().seamhash;
        Self { bytes, svn_minor, fits: true, mrseam }
    }
}

/// Returns a module that counts TDs in build.
fn counting(image: TestImage) -> TestImage {
    let build = ModuleBuild {
        features0: ModuleBuild::V1_5_01.features0 | TdxFeatures0::UPDATE_COMPATIBILITY,
        handoff_form: HandoffForm::Counting,
        ..ModuleBuild::V1_5_01
    };
    TestImage { module_build: Some(build), ..image }
}

/// The images to boot from.
pub(super) static OLD: LazyLock<Vec<File>> = LazyLock::new(|| {
    [
        old_image(),
        counting(old_image()),
        with_versions(old_image(), 0, 1),
        TestImage { pages: 3, ..old_image() },
    ]
    .into_iter()
    .map(|image| File::new(image.build(), image.svn_minor))
    .collect()
});

/// The images to update to: valid ones first, then those that are refused, each for its own reason.
pub(super) static NEW: LazyLock<Vec<File>> = LazyLock::new(|| {
    let good = [
        new_image(),
        newer(),
        TestImage { svn_minor: 7, ..newer() },
        TestImage { svn_minor: 5, date: 0x20240202, ..newer() },
        counting(newer()),
        with_versions(newer(), 0, 1),
        with_versions(newer(), 1, 1),
        TestImage { debug: true, ..newer() },
        TestImage { cpus: vec![0xc06f0], ..newer() },
        TestImage { num_handoff_pages: 12, ..newer() },
    ];
    let changed = |at: usize| {
        let mut file = newer().build();
        file.as_mut_bytes()[at] ^= 1;
        file
    };
    let not_elf = vec![0x90; 8 * PAGE_SIZE];
    let bad = [
        signed(|s| s.svn_minor = 4),
        signed(|s| s.svn_major = 2),
        signed(|s| s.module_hv = U16::new(1)),
        signed(|s| s.num_global_data_pages = U16::new(65535)),
        signed(|s| s.gdt_idt_offset = U32::new(0x8000)),
        changed(PAGE_SIZE + 600),
        changed(PAGE_SIZE + 130),
        changed(2 * PAGE_SIZE + 5000),
        newer().file(&newer().sigstruct(&not_elf), &not_elf),
    ];
    let good = good.iter().map(|image| File::new(image.build(), image.svn_minor));
    good.chain(bad.into_iter().enumerate().map(|(number, bytes)| File {
        fits: number != OTHER_VERSIONS,
        ..File::new(bytes, newer().svn_minor)
    }))
    .collect()
});

/// Number of images at the start of [`NEW`] that may follow any image of [`OLD`] without a fault.
pub(super) const PLAIN: usize = 3;

/// An image that can restore the TDs of every other image here.
pub(super) static RESCUE: LazyLock<PageBuf> = LazyLock::new(|| {
    let image = TestImage { svn_minor: 9, num_handoff_pages: 24, ..new_image() };
    with_versions(image, 0, 1).build()
});

/// Index, among the invalid images, of the one whose SIGSTRUCT has wrong handoff versions.
const OTHER_VERSIONS: usize = 2;
