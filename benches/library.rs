//! Benchmarks of the library: parse an image, verify it, call firmware.
#![allow(missing_docs)] // `criterion_group` makes a public function
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use tdx_seamldr_benches::{converted, DoesNothing};
use tdx_seamldr_core::abi::Scenario;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::{CurrentVmcs, InstallRequest, SeamcallRegs, Seamldr, SpinLock, TdxImage};
use tdx_seamldr_mock::{released_images, PageBuf};

/// Parses each of Intel's images, builds the parameters for SEAMLDR.INSTALL, and verifies the
/// image.
fn images(c: &mut Criterion) {
    let mut params = PageBuf::zeroed(1);
    for image in released_images().unwrap().unwrap_or_default() {
        let mut group = c.benchmark_group(&image.version);
        for (name, format) in [("read v1", ImageFormat::BlobV1), ("read v2", ImageFormat::ImageV2)]
        {
            let file = converted(image.bytes.as_bytes(), format).unwrap();
            group.bench_function(name, |b| {
                b.iter(|| {
                    let image = TdxImage::parse(black_box(file.as_bytes())).unwrap();
                    let params = params.as_params();
                    InstallRequest::build(params, &image, Scenario::Update, &DoesNothing)
                        .unwrap()
                        .params()
                });
            });
        }
        group.throughput(Throughput::Bytes(image.bytes.as_bytes().len().try_into().unwrap()));
        let file = TdxImage::parse(image.bytes.as_bytes()).unwrap();
        group.bench_function("verify", |b| b.iter(|| tdx_seamldr_verify::verify(black_box(&file))));
        group.finish();
    }
}

/// Calls firmware that does nothing.
fn call(c: &mut Criterion) {
    let lock = SpinLock::new();
    let seamldr = Seamldr::new(&DoesNothing, &lock, CurrentVmcs::Preserved).unwrap();
    let mut regs = SeamcallRegs::default();
    c.bench_function("seamldr_call", |b| {
        // SAFETY: the firmware reads and writes no memory.
        b.iter(|| unsafe { seamldr.seamldr_call(black_box(&mut regs)) }.unwrap());
    });
}

criterion_group!(benches, images, call);
criterion_main!(benches);
