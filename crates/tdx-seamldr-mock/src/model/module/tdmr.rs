//! TDH.SYS.CONFIG's look at the memory that is to be TDs' (TDMRs) and at the memory that describes it (PAMTs).

use core::ops::Range;

use tdx_seamldr_core::abi::{Cmr, TdxStatus};
use zerocopy::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Alignment of TDMRs, and what their sizes are multiples of.
pub(super) const TDMR_UNIT: u64 = 1 << 30;

/// TDMR_INFO: a region of memory, where its PAMTs go, and what of it is not to be used.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct TdmrInfo {
    pub(super) base: U64,
    pub(super) size: U64,
    /// For pages of 1 GiB, 2 MiB and 4 KiB: base and size.
    pamts: [[U64; 2]; 3],
    /// Offset and size.
    reserved: [[U64; 2]; 16],
}

/// Bytes of a PAMT entry.
const PAMT_ENTRY: u64 = 16;

fn range(base: u64, size: u64) -> Option<Range<u64>> {
    Some(base..base.checked_add(size)?)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl TdmrInfo {
    pub(super) fn region(&self) -> Option<Range<u64>> {
        range(self.base.get(), self.size.get())
    }

    /// The PAMTs, with the size that each has to have.
    fn pamts(&self) -> impl Iterator<Item = (Option<Range<u64>>, u64)> + '_ {
        self.pamts.iter().zip([30, 21, 12]).map(|([base, size], unit)| {
            let entries = self.size.get() >> unit;
            let needed = entries.saturating_mul(PAMT_ENTRY).next_multiple_of(4096);
            (range(base.get(), size.get()), needed)
        })
    }

    /// The reserved areas, up to the first that is empty.
    fn reserved(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let areas = self.reserved.iter().take_while(|[_, size]| size.get() != 0);
        areas.filter_map(|[offset, size]| range(self.base.get().checked_add(offset.get())?, size.get()))
    }

    /// What of the region is to be used: the gaps between reserved areas.
    fn used(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut start = self.base.get();
        let end = self.region().map_or(start, |region| region.end);
        let gaps = self.reserved().chain(core::iter::once(end..end)).map(move |area| {
            let gap = start..area.start;
            start = area.end;
            gap
        });
        gaps.filter(|gap| !gap.is_empty())
    }

    fn check_reserved(&self) -> Result<(), TdxStatus> {
        let mut lowest = 0;
        let mut ended = false;
        for [offset, size] in &self.reserved {
            let (offset, size) = (offset.get(), size.get());
            if size == 0 {
                ended = true;
                continue;
            }
            let inside = range(offset, size).is_some_and(|area| area.end <= self.size.get());
            if (offset | size) % 4096 != 0 || !inside {
                return Err(TdxStatus::INVALID_RESERVED_IN_TDMR);
            }
            if ended || offset < lowest {
                return Err(TdxStatus::NON_ORDERED_RESERVED_IN_TDMR);
            }
            lowest = offset.saturating_add(size);
        }
        Ok(())
    }
}

/// Whether a range lies in one region of convertible memory.
fn is_convertible(wanted: &Range<u64>, cmrs: &[Cmr]) -> bool {
    cmrs.iter()
        .filter_map(|cmr| range(cmr.base.get(), cmr.size.get()))
        .any(|cmr| cmr.start <= wanted.start && wanted.end <= cmr.end)
}

/// Checks the regions; an error says which one in its details.
pub(super) fn check(
    count: usize,
    info: impl Fn(usize) -> TdmrInfo,
    cmrs: &[Cmr],
    address_limit: u64,
) -> Result<(), TdxStatus> {
    for index in 0..count {
        let detail = |status: TdxStatus| TdxStatus(status.0 | u64::try_from(index).unwrap_or(0));
        let tdmr = info(index);
        let (base, size) = (tdmr.base.get(), tdmr.size.get());
        let region = tdmr.region().filter(|region| {
            base % TDMR_UNIT == 0 && size % TDMR_UNIT == 0 && size != 0 && region.end <= address_limit
        });
        let Some(region) = region else { return Err(detail(TdxStatus::INVALID_TDMR)) };
        let before = index.checked_sub(1).and_then(|before| info(before).region());
        if before.is_some_and(|before| before.end > region.start) {
            return Err(detail(TdxStatus::NON_ORDERED_TDMR));
        }
        tdmr.check_reserved().map_err(detail)?;
        if !tdmr.used().all(|used| is_convertible(&used, cmrs)) {
            return Err(detail(TdxStatus::TDMR_OUTSIDE_CMRS));
        }
        for (level, (pamt, needed)) in tdmr.pamts().enumerate() {
            let pamt = pamt.filter(|pamt| {
                let size = pamt.end.saturating_sub(pamt.start);
                (pamt.start | size) % 4096 == 0 && size >= needed && pamt.end <= address_limit
            });
            let Some(pamt) = pamt else { return Err(detail(TdxStatus::INVALID_PAMT)) };
            if !is_convertible(&pamt, cmrs) {
                return Err(detail(TdxStatus::PAMT_OUTSIDE_CMRS));
            }
            let taken = |other: &TdmrInfo, levels: usize| {
                other.used().any(|used| overlap(&used, &pamt))
                    || other.pamts().take(levels).any(|(other, _)| other.is_some_and(|o| overlap(&o, &pamt)))
            };
            if taken(&tdmr, level) || (0..index).any(|before| taken(&info(before), 3)) {
                return Err(detail(TdxStatus::PAMT_OVERLAP));
            }
        }
        // PAMTs of the ones before must not lie in this one.
        let used_by_pamt = |other: TdmrInfo| {
            other
                .pamts()
                .any(|(pamt, _)| pamt.is_some_and(|pamt| tdmr.used().any(|used| overlap(&used, &pamt))))
        };
        if (0..index).any(|before| used_by_pamt(info(before))) {
            return Err(detail(TdxStatus::PAMT_OVERLAP));
        }
    }
    Ok(())
}
