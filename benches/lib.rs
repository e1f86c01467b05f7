//! Parts that several benchmarks share: a host that does almost nothing, and images.

use anyhow::{Context, Result};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::{Host, Patience, PhysAddr, SeamcallBackend, SeamcallRegs, TdxImage, Trap};
use tdx_seamldr_mock::{PageBuf, TestImage};

/// A host of one LP. Its firmware succeeds at once, and its address translation takes almost no
/// time.
#[derive(Clone, Copy, Debug)]
pub struct DoesNothing;

// SAFETY: the firmware reads and writes no memory.
unsafe impl SeamcallBackend for DoesNothing {
    #[inline(never)]
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        regs.rax = 0;
        Ok(())
    }
}

// SAFETY: the firmware reads no memory.
unsafe impl Host for DoesNothing {
    fn current_lp(&self) -> u32 {
        0
    }

    fn num_lps(&self) -> u32 {
        1
    }

    fn relax(&self) -> Patience {
        Patience::GiveUp
    }

    // Not inlined, as in a kernel, so that callgrind does not count its instructions for the
    // library.
    #[inline(never)]
    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        u64::try_from(address.addr()).ok()?.checked_add(1 << 40).map(PhysAddr)
    }
}

/// Returns the images of two small modules. The second has the higher SVN.
#[must_use]
pub fn old_and_new() -> [PageBuf; 2] {
    [TestImage::default(), TestImage { svn_minor: 6, ..TestImage::default() }]
        .map(|image| image.build())
}

/// Returns the image as a file of this format.
///
/// # Errors
///
/// The file is not an image.
pub fn converted(file: &[u8], format: ImageFormat) -> Result<PageBuf> {
    let parts = TdxImage::parse(file)?.parts();
    let len = parts.file_len()?;
    let mut out = PageBuf::copy_of(&vec![0; len]);
    parts.write(format, out.as_mut_bytes()).context("the image cannot be written")?;
    Ok(out)
}
