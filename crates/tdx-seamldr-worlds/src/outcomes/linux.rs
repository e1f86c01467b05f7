//! An imitation of Linux 7.2's policy. It checks the framing of the file, shuts the module down
//! with the highest handoff version that the module can write, and gives up at the first failure.
//!
//! A second upload does the same with the module that is then installed. If the first upload shut
//! the module down, the second one fails in TDH.SYS.RD or TDH.SYS.SHUTDOWN, so it never reaches
//! SEAMLDR.INSTALL.

use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrLeaf, TdxLeaf, TdxStatus, PAGE_SIZE};
use tdx_seamldr_core::{Host, SeamcallBackend, SeamcallRegs, Trap};
use tdx_seamldr_mock::{PageBuf, SimLp, SimPlatform};
use zerocopy::little_endian::{U32, U64};

/// How often a call is tried that returns RND_NO_ENTROPY.
const TRIES: u32 = 10;

/// The fields that Linux reads again after an update.
const VERSION: [FieldId; 3] =
    [FieldId::MAJOR_VERSION, FieldId::MINOR_VERSION, FieldId::UPDATE_VERSION];

/// The driver's return value, and the first failed call: its leaf and RAX.
pub(crate) type Failed = (i32, Option<(u64, Result<u64, Trap>)>);

const EINVAL: i32 = -22;
const EIO: i32 = -5;
const ENODEV: i32 = -19;

/// Checks the file in the driver's order: header, sizes, version, page counts, magic, reserved
/// bytes. Returns the numbers of pages of SIGSTRUCT and module.
fn parse(file: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| file.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let header = file.get(..PAGE_SIZE)?;
    let (sigstruct, module) = (word(12)?, word(16)?);
    // Each product has 32 bits, the sum has 64.
    let [first, second] = [sigstruct, module].map(|pages| u64::from(pages.wrapping_mul(4096)));
    let length = 4096u64.wrapping_add(first).wrapping_add(second);
    let good = u64::try_from(file.len()) == Ok(length)
        && header.get(..2) == Some(&[0, 2])
        && sigstruct <= 1
        && module <= 496
        && header.get(4..12) == Some(b"TDX-BLOB")
        && header.get(20..)?.iter().all(|byte| *byte == 0);
    good.then_some((sigstruct, module))
}

/// Installs the file as the driver does, on the online LPs.
pub(crate) fn update(
    platform: &SimPlatform,
    file: &PageBuf,
    has_erratum: bool,
) -> Result<(), Failed> {
    update_on(platform, platform.online(), file, has_erratum)
}

/// Installs the file on these LPs.
pub(super) fn update_on(
    platform: &SimPlatform,
    lps: impl Iterator<Item = u32>,
    file: &PageBuf,
    has_erratum: bool,
) -> Result<(), Failed> {
    let Some((sigstruct_pages, module_pages)) = parse(file.as_bytes()) else {
        return Err((EINVAL, None));
    };
    let lps: Vec<SimLp<'_>> = lps.map(|lp| platform.lp(lp)).collect();
    let Some(lead) = lps.first() else { return Err((EINVAL, None)) };
    let address = |offset: usize| {
        let byte = file.as_bytes().get(offset..).map_or(std::ptr::null(), <[u8]>::as_ptr);
        let _ = byte.expose_provenance();
        lead.phys_addr(byte).map_or(0, |address| address.0)
    };
    let mut params = PageBuf::zeroed(1);
    let fields = &mut params.as_params().0;
    fields.scenario = U32::new(Scenario::Update.value());
    let first = if sigstruct_pages == 0 { 0 } else { address(PAGE_SIZE) };
    fields.sigstruct_pa = U64::new(first);
    fields.num_module_pages = U64::new(module_pages.into());
    let start =
        PAGE_SIZE.saturating_mul(usize::try_from(sigstruct_pages.saturating_add(1)).unwrap_or(0));
    for (index, slot) in fields
        .module_page_pa
        .iter_mut()
        .enumerate()
        .take(usize::try_from(module_pages).unwrap_or(0))
    {
        *slot = U64::new(address(start.saturating_add(index.saturating_mul(PAGE_SIZE))));
    }
    let page = params.as_bytes().as_ptr();
    let _ = page.expose_provenance();
    let params_address = lead.phys_addr(page).map_or(0, |address| address.0);

    // The first CPU calls SHUTDOWN.
    let hv = call(lead, TdxLeaf::SYS_RD.rax(0), 0, FieldId::MODULE_HV.0)?.r8;
    call(lead, TdxLeaf::SYS_SHUTDOWN.rax(0), hv, 0)?;
    platform.module_state().reset();
    for lp in &lps {
        if has_erratum {
            return Err((EINVAL, None));
        }
        call(lp, SeamldrLeaf::Install.rax(), params_address, 0)?;
    }
    call(lead, TdxLeaf::SYS_INIT.rax(0), 0, 0)?;
    for lp in &lps {
        call(lp, TdxLeaf::SYS_LP_INIT.rax(0), 0, 0)?;
    }
    call(lead, TdxLeaf::SYS_UPDATE.rax(0), 0, 0)?;
    // A version that cannot be read only gives a warning.
    let _ = VERSION
        .iter()
        .try_for_each(|field| call(lead, TdxLeaf::SYS_RD.rax(0), 0, field.0).map(drop));
    platform.module_state().set_ready();
    Ok(())
}

/// Makes one call, and retries after the module's RND_NO_ENTROPY.
fn call(lp: &SimLp<'_>, rax: u64, rcx: u64, rdx: u64) -> Result<SeamcallRegs, Failed> {
    let mut tries = TRIES;
    loop {
        let mut regs = SeamcallRegs { rax, rcx, rdx, ..SeamcallRegs::default() };
        // SAFETY: the addresses are those of the file and of the parameters, which are borrowed
        // meanwhile, or of missing memory.
        let result = unsafe { lp.seamcall(&mut regs) };
        tries = tries.saturating_sub(1);
        match result {
            Err(trap) => {
                let errno = if trap == Trap::VmFailInvalid { ENODEV } else { EIO };
                return Err((errno, Some((rax, Err(trap)))));
            }
            Ok(()) if regs.rax == 0 => return Ok(regs),
            Ok(()) if regs.rax == TdxStatus::RND_NO_ENTROPY.0 && tries != 0 => {}
            Ok(()) => return Err((EIO, Some((rax, Ok(regs.rax))))),
        }
    }
}
