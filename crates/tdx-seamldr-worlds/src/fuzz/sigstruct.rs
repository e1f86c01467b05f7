//! Reads bytes as a SIGSTRUCT: checks its numbers and its signature, and compares preflight with
//! P-SEAMLDR.

use std::cell::RefCell;
use std::sync::LazyLock;

use tdx_seamldr_core::abi::{
    Scenario, SeamSigstruct, SeamldrLeaf, SeamldrParams, SeamldrStatus, MAX_CPUID_ENTRIES,
    PAGE_SIZE,
};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::{Facts, Finding, HandoffRange, Policy, Refusal, Unknown};
use tdx_seamldr_core::{Crypto, CryptoUnavailable, SeamcallRegs, Sha384Digest, TdxImage};
use tdx_seamldr_mock::model::{
    Config, LoaderProfile, LoaderState, ModuleBuild, ModuleSysInfo, PhysMemory, Platform, SeamDb,
    SeamMemory, SysInfo,
};
use tdx_seamldr_mock::TEST_SIGNER;
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::image::{asked, fixed_facts};
use crate::world::new_image;

/// The module of every SIGSTRUCT.
static MODULE: LazyLock<Vec<u8>> = LazyLock::new(|| new_image().module());

/// Cryptography that accepts this SIGSTRUCT.
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
        let bytes =
            address.checked_sub(start).and_then(|at| bytes.get(usize::try_from(at).ok()?..));
        out.fill(0);
        out.iter_mut().zip(bytes.unwrap_or_default()).for_each(|(slot, byte)| *slot = *byte);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

thread_local! {
    static SEAM_MEMORY: RefCell<Box<SeamMemory>> =
        RefCell::new(SeamMemory::new_box_zeroed().expect("memory"));
}

/// Installs this SIGSTRUCT on both LPs of the fixed platform; returns P-SEAMLDR's answer.
fn installed(sigstruct: &SeamSigstruct) -> Loaders {
    SEAM_MEMORY.with_borrow_mut(|memory| {
        let config =
            Config::new(2, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).expect("a platform");
        let config = Config { addressable_lps_per_socket: 16, ..config };
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
        // The old module's handoff data, in the version that both modules support.
        let hv =
            if sigstruct.min_update_hv.get() <= 1 { sigstruct.module_hv.get().min(1) } else { 1 };
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
            answer = SeamcallRegs {
                rax: SeamldrLeaf::Install.rax(),
                rcx: PARAMS,
                ..SeamcallRegs::default()
            };
            if platform.seamcall(lp, &mut answer, &host, &Signed(sigstruct)).is_err() {
                return TRAP;
            }
        }
        (SeamldrStatus(answer.rax), answer.rdx)
    })
}

/// Returns preflight's refusals of the image, whose SIGSTRUCT counts as signed. All facts are
/// known, except the pages that handoff versions above 2 need.
fn refused(image: &TdxImage<'_>, facts: &Facts) -> Vec<Refusal> {
    let policy = Policy { allow_same_module: true, ..Policy::default() };
    let (_, findings) = asked(image, facts, &Signed(image.sigstruct()), policy);
    let rule_is_public = image.sigstruct().module_hv.get() <= 2;
    let refusals = findings.into_iter().filter_map(|finding| match finding {
        Finding::Refusal(refusal) => Some(refusal),
        Finding::Unknown(Unknown::HandoffData) if !rule_is_public => None,
        Finding::Unknown(unknown) => panic!("{unknown:?}, but it is known"),
    });
    refusals.collect()
}

/// Status and RDX.
type Loaders = (SeamldrStatus, u64);

const SUCCESS: Loaders = (SeamldrStatus::SUCCESS, 0);
/// A fatal error.
const TRAP: Loaders = (SeamldrStatus(u64::MAX), 1);

/// Returns P-SEAMLDR's step that makes the same check, and its possible answers. Returns `None` if
/// only the new module checks it.
fn of_loader(refusal: &Refusal) -> Option<(u32, &'static [Loaders])> {
    const BAD_SIG: &[Loaders] = &[(SeamldrStatus::EBADSIG, 0)];
    Some(match refusal {
        Refusal::SigstructField(_)
        | Refusal::SigstructReserved { .. }
        | Refusal::SeamldrTooOld { .. }
        | Refusal::CpuListLength(_)
        | Refusal::HandoffVersionsReversed { .. }
        | Refusal::GdtOffsetMisaligned(_)
        | Refusal::GdtWithoutFaultWrapper { .. } => (13, BAD_SIG),
        Refusal::DebugModule => (20, BAD_SIG),
        Refusal::MajorSvn { .. } => (22, &[(SeamldrStatus::EBADCALL, 0)]),
        Refusal::MinorSvn { .. } => (23, BAD_SIG),
        Refusal::GdtOutside { .. } | Refusal::FaultWrapperOutside { .. } => (24, BAD_SIG),
        Refusal::Cpu { .. } => (25, &[(SeamldrStatus::EUNSUPCPU, 0)]),
        Refusal::NoCpuList => (26, BAD_SIG),
        Refusal::Memory { .. } => (29, &[(SeamldrStatus::ENOMEM, 0)]),
        Refusal::HandoffVersion { .. } => (31, &[(SeamldrStatus::EBADHANDOFF, 0)]),
        Refusal::PageTables { .. } => (32, &[(SeamldrStatus::ENOMEM, 1), TRAP]),
        Refusal::MajorSvnZero | Refusal::HandoffPages { .. } => return None,
        other => panic!("{other:?} is a refusal that this input cannot cause"),
    })
}

/// Checks that preflight refuses what only the new module refuses.
fn of_new_module(sigstruct: &SeamSigstruct, facts: &Facts, refusals: &[Refusal]) {
    assert_eq!(
        refusals.contains(&Refusal::MajorSvnZero),
        sigstruct.svn_major == 0,
        "{refusals:x?}"
    );
    let (lowest, highest) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
    // Modules with later handoff versions accept 25 pages of version 0, whatever their SIGSTRUCT
    // says.
    let running = facts.handoff.expect("it is known").module_hv;
    let pages = if (running, lowest) == (0, 0) && highest != 0 {
        25
    } else {
        u32::from(sigstruct.num_handoff_pages.get()) + 1
    };
    let room = u64::from(pages) * 4096;
    let data = 8 + u64::from(facts.handoff_data.expect("it is known"));
    let found = refusals.iter().find_map(|refusal| match refusal {
        Refusal::HandoffPages { found, .. } => Some(*found),
        _ => None,
    });
    // Without a common version, the data might have any version that the module accepts. The pages
    // of versions above 2 are not public.
    let common = running.min(highest);
    let version = if common < lowest { highest } else { common };
    assert_eq!(found, (room < data && version <= 2).then_some(pages), "{refusals:x?}");
    let is_refused =
        refusals.iter().any(|refusal| matches!(refusal, Refusal::HandoffVersion { .. }));
    assert_eq!(is_refused, common < lowest, "{refusals:x?}");
}

/// Takes the beginning of a SIGSTRUCT; a valid one provides the rest. Its numbers are within their
/// ranges, and its verification ends. If the SIGSTRUCT is signed, preflight refuses it exactly if
/// P-SEAMLDR or the new module does.
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

    // The signature takes longer than all other checks, so verify it only if the signature or the
    // key has changed.
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
    let facts = fixed_facts();
    let refusals = refused(&image, &facts);
    let answer = installed(&sigstruct);
    // P-SEAMLDR answers to its first failed check.
    let first = refusals.iter().filter_map(of_loader).min_by_key(|(step, _)| *step);
    let expected = first.map_or(&[SUCCESS][..], |(_, answers)| answers);
    assert!(
        expected.contains(&answer),
        "P-SEAMLDR answers {answer:x?}, but preflight finds {refusals:x?}"
    );
    of_new_module(&sigstruct, &facts, &refusals);
    // The older handoff version, with as much data as any new module accepts in it.
    let older = HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false };
    let facts = Facts { handoff: Some(older), handoff_data: Some(25 * 4096 - 8), ..facts };
    of_new_module(&sigstruct, &facts, &refused(&image, &facts));
}
