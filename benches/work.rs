//! Runs one task of the library, whose instructions callgrind counts in [`measured`]. `cargo xtask
//! instructions` runs each task.

use anyhow::{bail, ensure, Context, Result};
use tdx_seamldr_benches::{converted, old_and_new, DoesNothing};
use tdx_seamldr_core::abi::Scenario;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::preflight::{preflight, PassedUpdate, Policy};
use tdx_seamldr_core::update::{Cpu, Progress, Stage, Update};
use tdx_seamldr_core::{
    Crypto, CurrentVmcs, InstallRequest, SeamcallRegs, Seamldr, SharedInfo, SpinLock, TdxImage,
    INTEL_PRODUCTION_SIGNER,
};
use tdx_seamldr_mock::{PageBuf, SimPlatform};
use tdx_seamldr_verify::RustCrypto;

/// Runs the task. Callgrind counts the instructions of this function up to its return.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["read", "v1", file] => read(&converted(&std::fs::read(file)?, ImageFormat::BlobV1)?),
        ["read", "v2", file] => read(&converted(&std::fs::read(file)?, ImageFormat::ImageV2)?),
        ["call", calls] => call(calls.parse()?),
        ["stage", stage] => one_stage(stage),
        ["update", lps] => update(lps.parse()?),
        ["preflight", file] => check(&PageBuf::copy_of(&std::fs::read(file)?)),
        ["crypto", file] => crypto(&PageBuf::copy_of(&std::fs::read(file)?)),
        _ => bail!(
            "usage: work read v1|v2 FILE | call CALLS | stage STAGE | update LPS | preflight FILE \
             | crypto FILE"
        ),
    }
}

/// Parses a file and builds the parameters for SEAMLDR.INSTALL. Prints the number of bytes.
fn read(file: &PageBuf) -> Result<()> {
    let mut params = PageBuf::zeroed(1);
    let params = params.as_params();
    let bytes = file.as_bytes();
    let request = measured(|| {
        let image = TdxImage::parse(bytes)?;
        anyhow::Ok(InstallRequest::build(params, &image, Scenario::Update, &DoesNothing)?)
    })?;
    ensure!(request.scenario() == Scenario::Update, "another request");
    println!("{}", bytes.len());
    Ok(())
}

/// Calls firmware that does nothing. Prints the number of calls.
fn call(calls: u32) -> Result<()> {
    let lock = SpinLock::new();
    let seamldr = Seamldr::new(&DoesNothing, &lock, CurrentVmcs::Preserved)?;
    let mut regs = SeamcallRegs::default();
    let result = measured(|| {
        for _ in 0..calls {
            // SAFETY: the firmware reads and writes no memory.
            unsafe { seamldr.seamldr_call(&mut regs) }?;
        }
        anyhow::Ok(())
    });
    println!("{calls}");
    result
}

/// Runs one stage of an update by one LP. Prints the number of SEAMCALLs.
fn one_stage(wanted: &str) -> Result<()> {
    let images = old_and_new();
    let [old, new] = images.each_ref().map(|image| TdxImage::parse(image.as_bytes()));
    let platform = SimPlatform::builder().lps(1).boot(&old?)?;
    let host = platform.lp(0);
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    let passed = passed(&platform, &new?)?;
    let update = Update::new(&passed, params.as_params(), &info, &host, platform.module_state())?;
    let lock = SpinLock::new();
    let mut cpu = Cpu::new(&update, Seamldr::new(&host, &lock, CurrentVmcs::Preserved)?);
    for stage in Stage::ALL {
        ensure!(update.progress().0 == stage, "{} instead of {stage}", update.progress().0);
        platform.clear_trace();
        let progress =
            if stage.to_string() == wanted { measured(|| cpu.step()) } else { cpu.step() };
        let last = stage == Stage::Done;
        ensure!(
            progress == if last { Progress::Finished } else { Progress::Worked },
            "{progress:?}"
        );
        if stage.to_string() == wanted {
            println!("{}", platform.trace().len());
        }
    }
    ensure!(update.outcome().is_updated(), "{}", update.outcome());
    Ok(())
}

/// Runs an update by this many LPs, in a fixed mixed order of steps. Prints the number of
/// SEAMCALLs.
fn update(lps: u32) -> Result<()> {
    let images = old_and_new();
    let [old, new] = images.each_ref().map(|image| TdxImage::parse(image.as_bytes()));
    let platform = SimPlatform::builder().lps(lps).boot(&old?)?;
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    let passed = passed(&platform, &new?)?;
    let update =
        Update::new(&passed, params.as_params(), &info, &platform.lp(0), platform.module_state())?;
    let lock = SpinLock::new();
    let hosts: Vec<_> = (0..lps).map(|lp| platform.lp(lp)).collect();
    let mut cpus = Vec::new();
    for host in &hosts {
        cpus.push(Cpu::new(&update, Seamldr::new(host, &lock, CurrentVmcs::Preserved)?));
    }
    // The order is the same in all rounds. The stride 7919 is prime to any smaller number of LPs.
    let order: Vec<usize> = (0..cpus.len())
        .scan(0usize, |at, _| {
            *at = at.wrapping_add(7919).checked_rem(hosts.len())?;
            Some(*at)
        })
        .collect();
    platform.clear_trace();
    measured(|| {
        let mut finished = 0;
        while finished < cpus.len() {
            finished = 0;
            for index in &order {
                if cpus.get_mut(*index).map(Cpu::step) == Some(Progress::Finished) {
                    finished = finished.saturating_add(1);
                }
            }
        }
    });
    ensure!(update.outcome().is_updated(), "{}", update.outcome());
    println!("{}", platform.trace().len());
    Ok(())
}

/// Runs preflight of a good image.
fn check(file: &PageBuf) -> Result<()> {
    let image = TdxImage::parse(file.as_bytes())?;
    let platform =
        SimPlatform::builder().fitting(&image).signer(INTEL_PRODUCTION_SIGNER).boot(&image)?;
    let facts = platform.facts()?;
    let policy = Policy { allow_same_module: true, ..Policy::default() };
    measured(|| {
        preflight(&image, &facts, &RustCrypto, policy, &mut |finding| eprintln!("{finding}"))
    })?;
    Ok(())
}

/// Passes an image for an update. This is not measured.
fn passed<'a>(platform: &SimPlatform, image: &TdxImage<'a>) -> Result<PassedUpdate<'a>> {
    let report = &mut |finding| eprintln!("{finding}");
    Ok(preflight(image, &platform.facts()?, &RustCrypto, Policy::default(), report)?)
}

/// Runs the cryptography of a preflight: one hash of the module, one signature.
fn crypto(file: &PageBuf) -> Result<()> {
    let image = TdxImage::parse(file.as_bytes())?;
    let sigstruct = image.sigstruct();
    let signed = RustCrypto.sha384(&sigstruct.signed_parts()).ok().context("no SHA-384")?;
    let (hash, valid) = measured(|| {
        let hash = RustCrypto.sha384(&[image.module()]);
        (hash, RustCrypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &signed))
    });
    ensure!(
        hash.ok() == Some(sigstruct.seamhash) && valid.ok() == Some(true),
        "the image is damaged"
    );
    Ok(())
}
