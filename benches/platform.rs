//! Benchmarks of the simulated platform: single calls, a whole update, and the cryptography of that
//! update.
#![allow(missing_docs)] // `criterion_group` makes a public function
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use tdx_seamldr_benches::old_and_new;
use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf, INTEL_VENDOR_ID};
use tdx_seamldr_core::preflight::{preflight, Policy};
use tdx_seamldr_core::update::{Outcome, Update};
use tdx_seamldr_core::{Crypto, SeamcallRegs, SharedInfo, TdxImage};
use tdx_seamldr_mock::model::{
    Config, LoaderProfile, LoaderState, PhysMemory, Platform, SeamDb, SeamMemory,
};
use tdx_seamldr_mock::{run_on_threads, run_stepped, PageBuf, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;

/// A host without memory.
struct Nothing;

impl PhysMemory for Nothing {
    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

const LPS: u32 = 1024;

/// Returns a platform of 1,024 LPs.
fn platform() -> (Platform<Box<SeamMemory>>, LoaderState) {
    let memory = zerocopy::FromZeros::new_box_zeroed().unwrap();
    let config = Config::new(LPS, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).unwrap();
    let platform = Platform::new(config, SeamDb { size: 64, used: 0, insert_failures: 0 }, memory);
    let state = LoaderState {
        seamextend: *platform.loader().seamextend(),
        entered: true,
        num_remaining_updates: 64,
        module_range_initialized: true,
        sysinfo: None,
    };
    (platform, state)
}

/// Runs SEAMCALLs that do not complete an update: INSTALL on all LPs except one, INFO, and calls
/// that the module refuses.
fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("calls");
    group.throughput(Throughput::Elements(u64::from(LPS) - 1));
    let call = |platform: &mut Platform<Box<SeamMemory>>, lp: u32, rax: u64| {
        let mut regs = SeamcallRegs { rax, rcx: 0x1000, ..SeamcallRegs::default() };
        platform.seamcall(lp, &mut regs, &Nothing, &RustCrypto).map(|()| regs.rax)
    };
    let (mut model, state) = platform();
    group.bench_function("SEAMLDR.INSTALL, not the last", |b| {
        b.iter(|| {
            model.restore_loader(&state);
            for lp in 0..LPS - 1 {
                assert_eq!(call(&mut model, lp, SeamldrLeaf::Install.rax()), Ok(0));
            }
        });
    });
    group.bench_function("SEAMLDR.INFO", |b| {
        b.iter(|| {
            for lp in 0..LPS - 1 {
                assert_eq!(call(&mut model, lp, SeamldrLeaf::Info.rax()), Ok(0));
            }
        });
    });
    let image = TestImage::default().build();
    let sim =
        SimPlatform::builder().lps(1).boot(&TdxImage::parse(image.as_bytes()).unwrap()).unwrap();
    group.bench_function("TDH.SYS.RD", |b| {
        sim.with_model(|model| {
            let rd = u64::from(TdxLeaf::SYS_RD.0);
            b.iter(|| {
                for _ in 0..LPS - 1 {
                    let mut regs = SeamcallRegs {
                        rax: rd,
                        rdx: 0x0800000200000000,
                        ..SeamcallRegs::default()
                    };
                    model.seamcall(0, &mut regs, &Nothing, &RustCrypto).unwrap();
                    assert_eq!(regs.r8, u64::from(INTEL_VENDOR_ID));
                }
            });
        });
    });
    group.finish();
}

/// Runs an update of a small module by 8 LPs and by 1,024 LPs, and the cryptography of the update:
/// three hashes and one signature.
fn update(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    let images = old_and_new();
    let [old, new] = images.each_ref().map(|image| TdxImage::parse(image.as_bytes()).unwrap());
    let boot = |lps| SimPlatform::builder().lps(lps).seamdb_size(u32::MAX).boot(&old).unwrap();
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    // Every round installs the same module. The first update makes this module the running one.
    let policy = Policy { allow_same_module: true, ..Policy::default() };
    let passed = |platform: &SimPlatform| {
        let facts = platform.facts().unwrap();
        preflight(&new, &facts, &RustCrypto, policy, &mut |finding| panic!("{finding}")).unwrap()
    };
    let mut update = |platform: &SimPlatform, passed: &_, run: &dyn Fn(&Update<'_>) -> Outcome| {
        let (params, state) = (params.as_params(), platform.module_state());
        let update = Update::new(passed, params, &info, &platform.lp(0), state).unwrap();
        assert!(run(&update).is_updated());
        platform.clear_trace();
    };
    let few = boot(8);
    let stepped = |update: &Update<'_>| run_stepped(&few, update, 1);
    update(&few, &passed(&few), &stepped);
    let again = passed(&few);
    group.bench_function("8 LPs, 32 KiB", |b| b.iter(|| update(&few, &again, &stepped)));
    let many = boot(LPS);
    let on_threads = |update: &Update<'_>| run_on_threads(&many, update);
    update(&many, &passed(&many), &on_threads);
    let again = passed(&many);
    group.bench_function("1024 LPs on all CPUs, 32 KiB", |b| {
        b.iter(|| update(&many, &again, &on_threads))
    });
    let sigstruct = new.sigstruct();
    group.bench_function("its RSA and SHA-384", |b| {
        b.iter(|| {
            let signer = RustCrypto.sha384(&[&sigstruct.modulus]).unwrap();
            let signed = RustCrypto.sha384(&sigstruct.signed_parts()).unwrap();
            let module = RustCrypto.sha384(&[new.module()]).unwrap();
            let valid = RustCrypto
                .rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &signed)
                .unwrap();
            assert!(valid && signer == TEST_SIGNER && module == sigstruct.seamhash);
            black_box((signer, module))
        });
    });
    group.finish();
}

criterion_group!(benches, calls, update);
criterion_main!(benches);
