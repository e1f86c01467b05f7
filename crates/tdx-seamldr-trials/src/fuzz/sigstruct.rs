//! Bytes as a SIGSTRUCT: its numbers, its signature, and preflight beside what P-SEAMLDR says to it.

use std::cell::RefCell;
use std::sync::LazyLock;

use tdx_seamldr_core::abi::{
    Scenario, SeamSigstruct, SeamldrLeaf, SeamldrParams, SeamldrStatus, MAX_CPUID_ENTRIES, PAGE_SIZE,
};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::{Finding, Policy, Refusal};
use tdx_seamldr_core::{Crypto, CryptoUnavailable, SeamcallRegs, Sha384Digest, TdxImage};
use tdx_seamldr_mock::model::{
    Config, LoaderProfile, LoaderState, ModuleBuild, ModuleSysInfo, PhysMemory, Platform, SeamDb, SeamMemory,
    SysInfo,
};
use tdx_seamldr_mock::TEST_SIGNER;
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::image::{asked, fixed_facts, fixed_info, fixed_platform};
use crate::world::new_image;

/// The module that goes with every SIGSTRUCT.
static MODULE: LazyLock<Vec<u8>> = LazyLock::new(|| new_image().module());

/// Cryptography for which this SIGSTRUCT is signed as it has to be.
struct Signed<'a>(&'a SeamSigstruct);

impl Crypto for Signed<'_> {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        let is_modulus = matches!(parts, [part] if part.len() == self.0.modulus.len());
        Ok(if is_modulus { TEST_SIGNER } else { self.0.seamhash })
    }

    fn rsa3072_verify(
        &self,
        _: &[u8; 384],
        _: &[u8; 384],
        _: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        Ok(true)
    }
}

/// Host memory with parameters, a SIGSTRUCT and the module, one page after the other.
struct Memory<'a> {
    params: SeamldrParams,
    sigstruct: &'a SeamSigstruct,
}

const PARAMS: u64 = 0x10_0000;
const SIGSTRUCT: u64 = PARAMS + 0x1000;
const FIRST_PAGE: u64 = SIGSTRUCT + 0x1000;

impl<'a> Memory<'a> {
    fn new(sigstruct: &'a SeamSigstruct) -> Self {
        let mut params = SeamldrParams::new_zeroed();
        params.scenario = U32::new(Scenario::Update.value());
        params.sigstruct_pa = U64::new(SIGSTRUCT);
        let pages = MODULE.len() / PAGE_SIZE;
        params.num_module_pages = U64::new(pages as u64);
        let addresses = (FIRST_PAGE..).step_by(PAGE_SIZE);
        params
            .module_page_pa
            .iter_mut()
            .zip(addresses)
            .take(pages)
            .for_each(|(slot, at)| *slot = U64::new(at));
        Self { params, sigstruct }
    }
}

impl PhysMemory for Memory<'_> {
    fn read(&self, address: u64, out: &mut [u8]) {
        let (start, bytes) = match address {
            PARAMS..SIGSTRUCT => (PARAMS, self.params.as_bytes()),
            SIGSTRUCT..FIRST_PAGE => (SIGSTRUCT, self.sigstruct.as_bytes()),
            _ => (FIRST_PAGE, MODULE.as_slice()),
        };
        let bytes = address.checked_sub(start).and_then(|at| bytes.get(usize::try_from(at).ok()?..));
        out.fill(0);
        out.iter_mut().zip(bytes.unwrap_or_default()).for_each(|(slot, byte)| *slot = *byte);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

thread_local! {
    static SEAM_MEMORY: RefCell<Box<SeamMemory>> = RefCell::new(SeamMemory::new_box_zeroed().expect("memory"));
}

/// What P-SEAMLDR answers if both LPs of the fixed platform install this.
fn installed(sigstruct: &SeamSigstruct) -> (SeamldrStatus, u64) {
    SEAM_MEMORY.with_borrow_mut(|memory| {
        let config = Config::new(2, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).expect("a platform");
        let mut platform =
            Platform::new(config, SeamDb { size: 64, used: 1, insert_failures: 0 }, &mut **memory);
        let mut seamextend = *platform.loader().seamextend();
        seamextend.tee_tcb_svn[..2].copy_from_slice(&[5, 1]);
        platform.restore_loader(&LoaderState {
            seamextend,
            entered: true,
            num_remaining_updates: 3,
            module_range_initialized: true,
            sysinfo: Some(ModuleSysInfo {
                module_hv: 1,
                min_update_hv: 0,
                no_downgrade: 0,
                num_handoff_pages: 31,
                ..ModuleSysInfo::default()
            }),
        });
        let told = SysInfo {
            module_hv: 1,
            min_update_hv: 0,
            no_downgrade: false,
            num_handoff_pages: 31,
            tot_num_lps: 2,
            num_packages: 1,
        };
        platform.put_module(ModuleBuild::V1_5_01, told, false);
        // What the module leaves behind, in the version that both have.
        let hv = if sigstruct.min_update_hv.get() <= 1 { sigstruct.module_hv.get().min(1) } else { 1 };
        let header = tdx_seamldr_core::abi::HandoffHeader {
            valid: 1,
            reserved: 0,
            hv: hv.into(),
            size: 53_391.into(),
        };
        platform.handoff().iter_mut().zip(header.as_bytes()).for_each(|(slot, byte)| *slot = *byte);
        let host = Memory::new(sigstruct);
        let mut answer = SeamcallRegs::default();
        for lp in 0..2 {
            answer = SeamcallRegs { rax: SeamldrLeaf::Install.rax(), rcx: PARAMS, ..SeamcallRegs::default() };
            if platform.seamcall(lp, &mut answer, &host, &Signed(sigstruct)).is_err() {
                return (SeamldrStatus(u64::MAX), 1);
            }
        }
        (SeamldrStatus(answer.rax), answer.rdx)
    })
}

/// The numbers of a SIGSTRUCT are within their ranges, whatever it says; verifying its signature ends; and if it is signed, preflight
/// refuses it exactly if P-SEAMLDR does. An input is a SIGSTRUCT from its beginning; what is missing is as in a good one.
pub fn sigstruct(input: &[u8]) {
    static GOOD: LazyLock<SeamSigstruct> = LazyLock::new(|| new_image().sigstruct(&MODULE));
    let mut bytes = *GOOD.as_bytes().first_chunk::<{ SeamSigstruct::SIZE }>().unwrap();
    bytes.iter_mut().zip(input).for_each(|(slot, byte)| *slot = *byte);
    let sigstruct = SeamSigstruct::read_from_bytes(&bytes).unwrap();
    assert_eq!(sigstruct.as_bytes(), bytes);

    assert!(sigstruct.cpus().len() <= MAX_CPUID_ENTRIES);
    assert!(sigstruct
        .cpus()
        .iter()
        .all(|cpu| sigstruct.lists_cpu(cpu.get()) && sigstruct.lists_cpu(cpu.get() ^ 0xf)));
    let [head, tail] = sigstruct.signed_parts();
    assert_eq!((head, tail), (&bytes[..128], &bytes[900..]));
    assert!(!sigstruct.svn().to_string().is_empty());

    // The signature itself costs more than all the rest, and is looked at if it or the key is another one.
    if (sigstruct.modulus, sigstruct.signature) != (GOOD.modulus, GOOD.signature) {
        let digest = RustCrypto.sha384(&sigstruct.signed_parts()).unwrap();
        let verified = RustCrypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &digest);
        let in_range = sigstruct.signature.iter().rev().lt(sigstruct.modulus.iter().rev());
        assert!(verified == Ok(false) || verified == Ok(true) && in_range, "{verified:?}");
    }

    let parts = ImageParts { sigstruct: &bytes, module: &MODULE };
    let mut file = vec![0; parts.file_len().unwrap()];
    parts.write(ImageFormat::ImageV2, &mut file).unwrap();
    let image = TdxImage::parse(&file).expect("an image is not refused for its SIGSTRUCT");
    assert_eq!(image.sigstruct(), &sigstruct);
    let (info, platform) = (fixed_info(), fixed_platform());
    let facts = fixed_facts(&info, &platform);
    let policy = Policy { allow_same_module: true, ..Policy::default() };
    let (verdict, findings) = asked(&image, &facts, &Signed(&sigstruct), policy);
    let answer = installed(&sigstruct);
    // What this loader leaves to the new module.
    let modules_own = |finding: &Finding| {
        matches!(finding, Finding::Refusal(Refusal::MajorSvnZero | Refusal::HandoffPages { .. }))
    };
    let passes = findings.iter().all(modules_own);
    assert_eq!(verdict.passed(), findings.is_empty());
    assert_eq!(
        passes,
        answer.0.is_success(),
        "P-SEAMLDR answers {answer:?}, but preflight finds {findings:?}"
    );
}
