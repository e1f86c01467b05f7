//! TDH.SYS.CONFIG's checks of memory for TDs (TDMRs) and of its metadata (PAMTs).

use core::ops::Range;

use tdx_seamldr_core::abi::{Cmr, TdxStatus};
use zerocopy::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Alignment of TDMRs, and unit of their sizes, in bytes.
pub(super) const TDMR_UNIT: u64 = 1 << 30;

/// TDMR_INFO: a region of memory, its PAMTs, and its reserved areas.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in super::super) struct TdmrInfo {
    pub(super) base: U64,
    pub(super) size: U64,
    /// Base and size, for pages of 1 GiB, 2 MiB and 4 KiB.
    pamts: [[U64; 2]; 3],
    /// Offset and size.
    reserved: [[U64; 2]; 16],
}

/// Size of a PAMT entry in bytes.
const PAMT_ENTRY: u64 = 16;

/// A PAMT: its level as in error details (0: 4 KiB, 1: 2 MiB, 2: 1 GiB), and its range.
type Pamt = (u8, Range<u64>);

/// Returns a status with up to four details of one byte each: the TDMR, and what is wrong with it.
fn detailed(status: TdxStatus, details: [u8; 4]) -> TdxStatus {
    TdxStatus(status.0 | u64::from(u32::from_le_bytes(details)))
}

fn range(base: u64, size: u64) -> Option<Range<u64>> {
    Some(base..base.checked_add(size)?)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn byte(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

impl TdmrInfo {
    fn region(&self) -> Option<Range<u64>> {
        range(self.base.get(), self.size.get())
    }

    /// Returns the PAMTs, from 4 KiB to 1 GiB. A PAMT whose end overflows is empty; an earlier
    /// check refuses it.
    fn pamts(&self) -> [Pamt; 3] {
        let [one_gib, two_mib, four_kib] =
            self.pamts.map(|[base, size]| range(base.get(), size.get()).unwrap_or(0..0));
        [(0, four_kib), (1, two_mib), (2, one_gib)]
    }

    /// Iterates over the reserved areas, up to the first empty one.
    fn reserved(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let areas = self.reserved.iter().take_while(|[_, size]| size.get() != 0);
        areas.filter_map(|[offset, size]| {
            range(self.base.get().checked_add(offset.get())?, size.get())
        })
    }

    /// Iterates over the usable parts of the region: the gaps between reserved areas.
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

    /// Checks the reserved areas. Errors name the TDMR and the area.
    fn check_reserved(&self, tdmr: u8) -> Result<(), TdxStatus> {
        for (index, [offset, size]) in self.reserved.iter().enumerate() {
            let (offset, size) = (offset.get(), size.get());
            let error = |status| Err(detailed(status, [tdmr, byte(index), 0, 0]));
            if size == 0 {
                // No area may follow an empty one. The error names the empty one.
                let next = index.checked_add(1).and_then(|next| self.reserved.get(next));
                if next.is_some_and(|[_, size]| size.get() != 0) {
                    return error(TdxStatus::NON_ORDERED_RESERVED_IN_TDMR);
                }
                continue;
            }
            let Some(area) = range(offset, size) else {
                return error(TdxStatus::INVALID_RESERVED_IN_TDMR);
            };
            let before = index.checked_sub(1).and_then(|before| self.reserved.get(before));
            let before = before.map_or(0, |[offset, size]| offset.get().wrapping_add(size.get()));
            if offset < before {
                return error(TdxStatus::NON_ORDERED_RESERVED_IN_TDMR);
            }
            if (offset | size) % 4096 != 0 || area.end > self.size.get() {
                return error(TdxStatus::INVALID_RESERVED_IN_TDMR);
            }
        }
        Ok(())
    }

    /// Checks the PAMTs. Errors name the TDMR and the PAMT's level.
    fn check_pamts(&self, tdmr: u8, address_limit: u64) -> Result<(), TdxStatus> {
        for ([base, size], (level, unit)) in self.pamts.iter().zip([(2, 30), (1, 21), (0, 12)]) {
            let (base, size) = (base.get(), size.get());
            let needed = (self.size.get() >> unit).saturating_mul(PAMT_ENTRY);
            let fits = range(base, size).is_some_and(|pamt| pamt.end <= address_limit);
            if !fits || (base | size) % 4096 != 0 || size < needed {
                return Err(detailed(TdxStatus::INVALID_PAMT, [tdmr, level, 0, 0]));
            }
        }
        Ok(())
    }
}

/// Returns whether a range lies in convertible memory: in one region, or in several adjacent ones.
fn is_convertible(wanted: &Range<u64>, cmrs: &[Cmr]) -> bool {
    let mut before = 0..0;
    cmrs.iter().filter(|cmr| cmr.size.get() != 0).any(|cmr| {
        let (start, size) = (cmr.base.get(), cmr.size.get());
        let start = if start == before.end { before.start } else { start };
        before = start..cmr.base.get().saturating_add(size);
        before.start <= wanted.start && wanted.end <= before.end
    })
}

/// Checks a TDMR against the TDMRs before it, which were accepted. The lowest byte of the error
/// names the TDMR; the bytes above name the part and the other TDMR.
pub(super) fn check(
    tdmr: &TdmrInfo,
    before: &[TdmrInfo],
    cmrs: &[Cmr],
    address_limit: u64,
) -> Result<(), TdxStatus> {
    let own = byte(before.len());
    let error = |status| detailed(status, [own, 0, 0, 0]);
    let (base, size) = (tdmr.base.get(), tdmr.size.get());
    let region = tdmr.region().ok_or(error(TdxStatus::INVALID_TDMR))?;
    let last = before.last().and_then(TdmrInfo::region);
    if last.is_some_and(|last| last.end > region.start) {
        return Err(error(TdxStatus::NON_ORDERED_TDMR));
    }
    if base % TDMR_UNIT != 0 || size % TDMR_UNIT != 0 || size == 0 || region.end > address_limit {
        return Err(error(TdxStatus::INVALID_TDMR));
    }
    tdmr.check_reserved(own)?;
    tdmr.check_pamts(own, address_limit)?;
    check_overlaps(tdmr, before, own)?;
    for (level, pamt) in tdmr.pamts().into_iter().rev() {
        if !is_convertible(&pamt, cmrs) {
            return Err(detailed(TdxStatus::PAMT_OUTSIDE_CMRS, [own, level, 0, 0]));
        }
    }
    if !tdmr.used().all(|used| is_convertible(&used, cmrs)) {
        return Err(error(TdxStatus::TDMR_OUTSIDE_CMRS));
    }
    Ok(())
}

/// Checks that PAMTs overlap neither each other nor usable memory. Errors name the TDMR, the level
/// of the PAMT, and the other TDMR.
fn check_overlaps(tdmr: &TdmrInfo, before: &[TdmrInfo], own: u8) -> Result<(), TdxStatus> {
    let error =
        |of: u8, level: u8, with: u8| Err(detailed(TdxStatus::PAMT_OVERLAP, [of, level, with, 0]));
    let pamts = tdmr.pamts();
    for (other, earlier) in (0u8..).zip(before) {
        let earlier = earlier.pamts();
        for (level, pamt) in &pamts {
            if earlier.iter().any(|(_, taken)| overlap(taken, pamt)) {
                return error(own, *level, other);
            }
        }
    }
    let [four_kib, two_mib, one_gib] = &pamts;
    for ((level, one), (_, other)) in [(four_kib, two_mib), (four_kib, one_gib), (two_mib, one_gib)]
    {
        if overlap(one, other) {
            return error(own, *level, own);
        }
    }
    let in_use = |pamt: &Range<u64>, of: &TdmrInfo| of.used().any(|used| overlap(&used, pamt));
    for (other, earlier) in (0u8..).zip(before) {
        for (level, pamt) in &pamts {
            if in_use(pamt, earlier) {
                return error(own, *level, other);
            }
        }
        for (level, pamt) in earlier.pamts() {
            if in_use(&pamt, tdmr) {
                return error(other, level, own);
            }
        }
    }
    for (level, pamt) in &pamts {
        if in_use(pamt, tdmr) {
            return error(own, *level, own);
        }
    }
    Ok(())
}
