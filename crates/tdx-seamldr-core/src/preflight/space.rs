//! The layout of a module in the SEAM range and the space that it needs, computed as P-SEAMLDR
//! does.

use super::facts::Facts;
use super::finding::{Refusal, Unknown};
use super::Findings;
use crate::abi::SeamSigstruct;
use crate::debug::debug_fields;
use crate::image::TdxImage;

const PAGE: u64 = 4096;
/// Bytes that P-SEAMLDR reserves for the code, also for a smaller image.
const CODE_SPACE: u64 = 2 << 20;

/// Linear addresses of a module's parts, without the random bits.
const CODE_BASE: u64 = 0xffff_8000_0000_0000;
const STACK_BASE: u64 = 0xffff_8001_0000_0000;
const KEYHOLE_BASE: u64 = 0xffff_8002_0000_0000;
const DATA_BASE: u64 = 0xffff_8003_0000_0000;
const KEYHOLE_EDIT_BASE: u64 = 0x0000_0001_0000_0000;

/// A part of a module's linear address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The first linear address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// A module's linear address space.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// The image.
    pub code: Region,
    /// TLS, global data and handoff data.
    pub data: Region,
    /// One stack for each addressable LP, with a shadow stack.
    pub stack: Region,
    /// Windows through which the module maps the host's pages.
    pub keyhole: Region,
    /// The page tables of these windows.
    pub keyhole_edit: Region,
    /// The number of LPs that the layout has room for.
    pub lps: u64,
}

debug_fields! { Layout, code, data, stack, keyhole, keyhole_edit, lps }

/// The end of an installation whose page tables P-SEAMLDR estimated too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// The memory suffices.
    None,
    /// The memory runs out at a place where P-SEAMLDR returns an error.
    Reported,
    /// The memory runs out for the keyhole windows. P-SEAMLDR treats that as fatal.
    Fatal,
}

impl Layout {
    /// Returns the layout of a module with this SIGSTRUCT, an image of `image_size` bytes and these
    /// random bits.
    ///
    /// `lps` is the number of LPs that P-SEAMLDR reserves space for. For each socket this is the
    /// number of LPs that can share its last-level cache (CPUID leaf 4), rounded up to a power of
    /// two.
    #[must_use]
    pub fn new(sigstruct: &SeamSigstruct, image_size: u64, lps: u32, random: u64) -> Self {
        let random = (random & 0x7ffc) << 32;
        let region = |base: u64, size: u64| Region { base: base | random, size };
        let lps = u64::from(lps);
        let plus_one = |field: u64| field.saturating_add(1);
        let pages = |count: u64| count.saturating_mul(PAGE);
        let handoff = match sigstruct.svn_major {
            0 => 0,
            _ => plus_one(sigstruct.num_handoff_pages.get().into()),
        };
        // The shadow stack takes one more page.
        let stack = pages(plus_one(plus_one(sigstruct.num_stack_pages.into())).saturating_mul(lps));
        let data = pages(
            plus_one(sigstruct.num_tls_pages.into())
                .saturating_mul(lps)
                .saturating_add(plus_one(sigstruct.num_global_data_pages.get().into()))
                .saturating_add(handoff),
        );
        let keyhole = pages(plus_one(sigstruct.num_keyhole_pages.get().into()).saturating_mul(lps));
        let keyhole_edit = pages((keyhole / PAGE).saturating_mul(8).div_ceil(PAGE));
        Self {
            code: region(CODE_BASE, image_size),
            data: region(DATA_BASE, data),
            stack: region(STACK_BASE, stack),
            keyhole: region(KEYHOLE_BASE, keyhole),
            keyhole_edit: region(KEYHOLE_EDIT_BASE, keyhole_edit),
            lps,
        }
    }

    fn regions(&self) -> [Region; 5] {
        [self.code, self.data, self.stack, self.keyhole, self.keyhole_edit]
    }

    /// Returns the bytes that a module takes without page tables: information page, VMCSs, stacks,
    /// data, code. Keyholes take none.
    fn contents(&self) -> u64 {
        let vmcs = self.lps.saturating_mul(PAGE);
        [PAGE, vmcs, self.stack.size, self.data.size, CODE_SPACE]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Returns P-SEAMLDR's estimate of the bytes for page tables. The estimate is too low: for a
    /// region that does not fill a table it counts no higher table.
    fn estimated_tables(&self) -> u64 {
        let tables = |bytes: u64| {
            [12, 21, 30].into_iter().fold(0u64, |sum, unit| {
                sum.saturating_add((bytes >> unit).saturating_mul(8).div_ceil(PAGE))
            })
        };
        let information_page = tables(PAGE);
        self.regions()
            .into_iter()
            .map(|region| tables(region.size))
            .fold(information_page, u64::saturating_add)
            .saturating_add(1)
            .saturating_mul(PAGE)
    }

    /// Returns the bytes that P-SEAMLDR requires in the SEAM range before it installs the module
    /// (firmware rule 8.5.29).
    #[must_use]
    pub fn need(&self) -> u64 {
        self.contents().saturating_add(self.estimated_tables())
    }

    /// Returns the pages of the page tables: first those of all parts except the keyhole windows,
    /// then those of the keyhole windows.
    fn tables(&self) -> [u64; 2] {
        // The page directories and page tables of one region.
        let local = |region: Region| {
            region.size.div_ceil(2 << 20).saturating_add(region.size.div_ceil(1 << 30))
        };
        // P-SEAMLDR maps the keyhole windows last. Their page tables lie in the lower half and need
        // their own third-level table.
        let last = local(self.keyhole).saturating_add(local(self.keyhole_edit)).saturating_add(1);
        let information_page = local(Region { base: 0, size: PAGE });
        let first = [self.code, self.data, self.stack]
            .into_iter()
            .map(local)
            .fold(information_page, u64::saturating_add)
            .saturating_add(2);
        [first, last]
    }

    /// Returns the bytes that a module takes with the page tables that P-SEAMLDR makes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let [first, last] = self.tables();
        self.contents().saturating_add(first.saturating_add(last).saturating_mul(PAGE))
    }

    /// Returns whether page tables run out of memory if the SEAM range has `available` bytes for
    /// modules (firmware rule 8.5.32).
    #[must_use]
    pub fn shortage(&self, available: u64) -> Shortage {
        let [first, last] = self.tables();
        let available = available.saturating_sub(self.contents()) / PAGE;
        if available < first {
            Shortage::Reported
        } else if available < first.saturating_add(last) {
            Shortage::Fatal
        } else {
            Shortage::None
        }
    }
}

/// Checks that the module and its page tables fit into the SEAM range (SEAMLDR.INSTALL, firmware
/// rules 8.5.29 and 8.5.32). If P-SEAMLDR's base is unknown, the end of the SEAM range is an upper
/// limit: it can only show that a module is too large.
pub(super) fn check(findings: &mut Findings<'_>, image: &TdxImage<'_>, facts: &Facts) {
    let Facts {
        addressable_lps_per_socket, seamrr_base, seamrr_end, p_seamldr_base, sockets, ..
    } = facts;
    let numbers =
        (addressable_lps_per_socket, seamrr_base, p_seamldr_base.or(*seamrr_end), sockets);
    let (Some(addressable), Some(base), Some(end), Some(sockets)) = numbers else {
        return findings.unknown(Unknown::Memory);
    };
    let sockets = u32::try_from(sockets.signatures().len()).unwrap_or(u32::MAX);
    let lps = addressable.checked_next_power_of_two().unwrap_or(u32::MAX).saturating_mul(sockets);
    let size = u64::try_from(image.module().len()).unwrap_or(u64::MAX);
    let layout = Layout::new(image.sigstruct(), size, lps, 0);
    let (found, wanted) = (end.saturating_sub(*base), layout.need());
    if found < wanted {
        findings.refuse(Refusal::Memory { found, wanted });
    } else if p_seamldr_base.is_none() {
        findings.unknown(Unknown::Memory);
    } else {
        let refusal = Refusal::PageTables { found, wanted: layout.size() };
        findings.refuse_if(layout.shortage(found) != Shortage::None, refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U16;
    use zerocopy::FromZeros;

    const MIB: u64 = 1 << 20;

    /// Returns a layout for 4 LPs with 512 keyhole pages each.
    fn layout(svn_major: u8) -> Layout {
        let mut sigstruct = SeamSigstruct::new_zeroed();
        sigstruct.svn_major = svn_major;
        sigstruct.num_stack_pages = 1;
        sigstruct.num_keyhole_pages = U16::new(511);
        sigstruct.num_global_data_pages = U16::new(9);
        sigstruct.num_handoff_pages = U16::new(1);
        Layout::new(&sigstruct, 5 * PAGE, 4, u64::MAX)
    }

    #[test]
    fn layout_has_random_addresses_and_the_sizes_of_the_sigstruct() {
        let random = 0x7ffc << 32;
        let layout = layout(1);
        let region = |base: u64, size| Region { base: base | random, size };
        assert_eq!(layout.code, region(CODE_BASE, 5 * PAGE));
        assert_eq!(
            layout.stack,
            region(STACK_BASE, 3 * 4 * PAGE),
            "with 1 shadow page for each LP"
        );
        assert_eq!(layout.data, region(DATA_BASE, (4 + 10 + 2) * PAGE));
        assert_eq!(layout.keyhole, region(KEYHOLE_BASE, 4 * 512 * PAGE));
        assert_eq!(layout.keyhole_edit, region(KEYHOLE_EDIT_BASE, 4 * PAGE));
    }

    #[test]
    fn layout_of_a_module_with_major_svn_0_has_no_handoff_data() {
        assert_eq!(layout(0).data.size, (4 + 10) * PAGE);
    }

    #[test]
    fn need_is_the_sum_of_contents_and_estimated_tables() {
        // Contents: information page, VMCSs, stacks and data. Tables: 5 for the keyholes, 1 for
        // each of the five other parts, and 1 more.
        let pages = 1 + 4 + 12 + 16 + 5 + 5 + 1;
        assert_eq!(layout(1).need(), 2 * MIB + pages * PAGE);
    }

    #[test]
    fn shortage_is_fatal_only_for_the_keyhole_windows() {
        let layout = layout(1);
        let contents = 2 * MIB + (1 + 4 + 12 + 16) * PAGE;
        let with_tables = |pages: u64| layout.shortage(contents + pages * PAGE);
        // Tables without keyholes: 2 for each of four parts, and 2 above. Tables for the keyholes:
        // 5 and 2, and 1 above.
        assert_eq!(with_tables(9), Shortage::Reported);
        assert_eq!(with_tables(10), Shortage::Fatal);
        assert_eq!(with_tables(17), Shortage::Fatal);
        assert_eq!(with_tables(18), Shortage::None);
        assert_eq!(layout.shortage(contents + 18 * PAGE - 1), Shortage::Fatal);
        assert_eq!(layout.shortage(0), Shortage::Reported);
    }
}
