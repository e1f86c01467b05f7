//! The world of both models: the platform's numbers, the images, and the host's memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use tdx_seamldr_core::abi::{Scenario, SeamldrParams, TdxFeatures0};
use tdx_seamldr_core::Sha384Digest;
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, PhysMemory};
use tdx_seamldr_mock::{sign, TestImage};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Two packages: LPs 0 and 1, and LP 2.
pub(crate) const LPS: u32 = 3;
pub(crate) const PACKAGE: [usize; LPS as usize] = [0, 0, 1];
pub(crate) const SEAMDB: u32 = 4;
const IMAGES: u64 = 0x1_0000_0000;
pub(crate) const PARAMS: u64 = 0x2_0000_0000;
pub(crate) const BUFFER: u64 = 0x3_0000_0000;
pub(crate) const TDMRS: u64 = 0x4_0000_0000;
/// An address of missing memory.
pub(crate) const HOLE: u64 = 0x5_0000_0000;
/// Misaligned, in the SEAM range, with a private KeyID.
pub(crate) const BAD_ADDRESSES: [u64; 3] = [PARAMS + 0x80, 0x20_0000_1000, 0x20 << 40];
/// An MSR that has to be the same on all LPs.
pub(crate) const MSR: u32 = 0x3b;

/// What is wrong with an image, in the order of P-SEAMLDR's checks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Defect {
    None,
    Field,
    Cpu,
    Signature,
    Memory,
    Hash,
    Elf,
}

/// The properties of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub(crate) svn: (u8, u8),
    pub(crate) defect: Defect,
    /// Lowest and highest handoff version in the SIGSTRUCT.
    pub(crate) hv: (u16, u16),
    pub(crate) no_downgrade: bool,
    /// Number of pages for handoff data, minus one.
    pub(crate) pages: u16,
    /// Highest handoff version that the code was built for.
    pub(crate) built_hv: u16,
    pub(crate) counting: bool,
}

const BASE: Image = Image {
    svn: (1, 5),
    defect: Defect::None,
    hv: (0, 0),
    no_downgrade: false,
    pages: 13,
    built_hv: 0,
    counting: false,
};

pub(crate) const ALL_IMAGES: [Image; 17] = [
    BASE,
    Image { svn: (1, 6), ..BASE },
    Image { svn: (1, 1), ..BASE },
    Image { svn: (2, 6), ..BASE },
    Image { svn: (0, 5), ..BASE },
    Image { svn: (0, 6), ..BASE },
    Image { defect: Defect::Field, ..BASE },
    Image { defect: Defect::Cpu, ..BASE },
    Image { defect: Defect::Signature, svn: (1, 6), ..BASE },
    Image { defect: Defect::Memory, ..BASE },
    Image { defect: Defect::Hash, svn: (1, 6), ..BASE },
    Image { defect: Defect::Elf, svn: (1, 6), ..BASE },
    Image { svn: (1, 6), hv: (2, 3), built_hv: 3, ..BASE },
    Image { svn: (1, 6), hv: (0, 1), built_hv: 1, counting: true, ..BASE },
    Image { svn: (1, 6), hv: (1, 1), built_hv: 1, no_downgrade: true, counting: true, ..BASE },
    // In the next two images, SIGSTRUCT and code do not match.
    Image { svn: (1, 6), hv: (0, 1), ..BASE },
    Image { svn: (1, 6), pages: 12, ..BASE },
];

impl Image {
    pub(crate) fn features0(&self) -> TdxFeatures0 {
        let counting =
            if self.counting { TdxFeatures0::UPDATE_COMPATIBILITY } else { TdxFeatures0::empty() };
        ModuleBuild::V1_5_01.features0 | counting
    }

    /// Returns the size of its handoff data in this version, in bytes.
    pub(crate) fn handoff_size(&self, hv: u16) -> u32 {
        if self.counting && hv == 1 {
            53391
        } else {
            53386
        }
    }

    /// Returns the SIGSTRUCT and the module.
    fn make(&self, number: usize) -> (Vec<u8>, Vec<u8>) {
        let handoff_form = if self.counting { HandoffForm::Counting } else { HandoffForm::Plain };
        let built = ModuleBuild {
            features0: self.features0(),
            module_hv: self.built_hv,
            min_update_hv: self.hv.0.min(self.built_hv),
            handoff_form,
            ..ModuleBuild::V1_5_01
        };
        let image = TestImage {
            pages: 3,
            svn_major: self.svn.0,
            svn_minor: self.svn.1,
            module_hv: self.hv.1,
            min_update_hv: self.hv.0,
            no_downgrade: self.no_downgrade,
            num_handoff_pages: self.pages,
            cpus: vec![if self.defect == Defect::Cpu { 0xa06d0 } else { 0x806f0 }],
            fill: number as u8,
            module_build: Some(built),
            ..TestImage::default()
        };
        let mut module = image.module();
        if self.defect == Defect::Elf {
            module[0] = 0;
        }
        let mut sigstruct = image.sigstruct(&module);
        match self.defect {
            Defect::Field => sigstruct.reserved2 = 1,
            Defect::Memory => sigstruct.num_global_data_pages = U16::new(0xffff),
            _ => {}
        }
        sign(&mut sigstruct);
        match self.defect {
            Defect::Signature => sigstruct.signature[7] ^= 1,
            Defect::Hash => module[9000] ^= 1,
            _ => {}
        }
        (sigstruct.as_bytes().to_vec(), module)
    }
}

/// Content of memory by start address.
pub(crate) type Pieces = BTreeMap<u64, Vec<u8>>;

/// The initial memory, and the hash of each image.
pub(crate) static WORLD: LazyLock<(Pieces, Vec<Sha384Digest>)> = LazyLock::new(|| {
    let (mut pieces, mut hashes) = (BTreeMap::new(), Vec::new());
    for (number, image) in ALL_IMAGES.iter().enumerate() {
        let start = IMAGES + number as u64 * 0x10000;
        let (sigstruct, module) = image.make(number);
        hashes.push(sigstruct[900..948].try_into().unwrap());
        pieces.insert(start, sigstruct);
        pieces.insert(start + 4096, module);
        for scenario in [Scenario::Load, Scenario::Update] {
            let mut params = SeamldrParams::new_zeroed();
            params.scenario = U32::new(scenario.value());
            params.sigstruct_pa = U64::new(start);
            params.num_module_pages = U64::new(3);
            for (page, slot) in (1u64..=3).zip(&mut params.module_page_pa) {
                *slot = U64::new(start + page * 4096);
            }
            pieces.insert(params_of(number, scenario), params.as_bytes().to_vec());
        }
    }
    let regions: [u64; 8] =
        [32 << 30, 1 << 30, 40 << 30, 0x1000, 41 << 30, 0x2000, 42 << 30, 0x40_0000];
    pieces.insert(TDMRS, (TDMRS + 4096).to_le_bytes().to_vec());
    pieces.insert(TDMRS + 4096, regions.map(u64::to_le_bytes).concat());
    (pieces, hashes)
});

pub(crate) fn params_of(image: usize, scenario: Scenario) -> u64 {
    PARAMS + (image as u64 * 2 + u64::from(scenario.value())) * 4096
}

/// The host's memory.
pub(crate) struct Memory(pub(crate) RefCell<Pieces>);

impl PhysMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) {
        let pieces = self.0.borrow();
        out.fill(0);
        if let Some((start, bytes)) = pieces.range(..=address).next_back() {
            let rest = bytes.get((address - start) as usize..).unwrap_or_default();
            out.iter_mut().zip(rest).for_each(|(out, byte)| *out = *byte);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if address == BUFFER {
            self.0.borrow_mut().insert(address, bytes.to_vec());
        }
    }
}
