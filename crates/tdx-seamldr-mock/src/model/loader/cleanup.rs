//! SEAMLDR.CLEANUP, in generations that have it. It wipes keys and caches and empties the SEAM
//! database. All TDs are lost.

use tdx_seamldr_core::abi::SeamldrStatus;
use zerocopy::little_endian::U64;

use super::{
    contains, handoff, insert, Flow, Installed, Loader, LoaderContext, MAX_LP_ID, MAX_PACKAGES,
};

impl Loader {
    /// Returns the package of the calling LP, if P-SEAMLDR has a slot for it.
    fn package_slot(context: &LoaderContext<'_>) -> Option<usize> {
        let package = context.x2apic_id.checked_shr(context.config.package_shift)?;
        usize::try_from(package).ok().filter(|package| *package < MAX_PACKAGES)
    }

    /// Counts the LPs of each package, during the first session since boot.
    pub(super) fn count_package(&mut self, context: &LoaderContext<'_>) {
        if self.lps_ever >= context.config.num_lps {
            return;
        }
        self.lps_ever = self.lps_ever.saturating_add(1);
        let slot =
            Self::package_slot(context).and_then(|package| self.lps_of_package.get_mut(package));
        if let Some(count) = slot {
            *count = count.saturating_add(1);
        }
    }

    /// Marks the keys and caches of every package as possibly used by a module.
    pub(super) fn mark_dirty(&mut self) {
        for (dirty, lps) in self.dirty.iter_mut().zip(&self.lps_of_package) {
            *dirty |= *lps != 0;
        }
    }

    /// Returns whether a package needs SEAMLDR.CLEANUP.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.contains(&true)
    }

    /// Executes SEAMLDR.CLEANUP on one LP.
    pub(super) fn clean_up(
        &mut self,
        context: &mut LoaderContext<'_>,
        installed: &mut Installed,
    ) -> SeamldrStatus {
        if context.x2apic_id >= MAX_LP_ID {
            return SeamldrStatus::EUNSPECERR;
        }
        if !matches!(self.flow, Flow::Ready | Flow::Cleanup)
            || contains(&self.cleanup, context.x2apic_id)
            || self.lps_ever == 0
        {
            return SeamldrStatus::EBADCALL;
        }
        let Some(package) = Self::package_slot(context) else {
            return SeamldrStatus::EUNSPECERR;
        };
        if self.flow == Flow::Ready {
            self.flow = Flow::Cleanup;
            self.seamextend.seam_ready = 0;
            self.seamextend.tee_tcb_svn = [0; 16];
            let mut header = handoff::header(&context.memory.handoff);
            header.valid = 0;
            handoff::set_header(&mut context.memory.handoff, &header);
            *installed = Installed::ModuleGone;
        }
        let cleaned = self.lps_cleaned.get(package).copied().unwrap_or(0).saturating_add(1);
        let is_last_of_package =
            self.lps_of_package.get(package).is_some_and(|lps| cleaned >= *lps);
        if is_last_of_package && self.dirty.get(package).copied().unwrap_or(false) {
            if self.interrupts_pending != 0 {
                self.interrupts_pending = self.interrupts_pending.saturating_sub(1);
                return SeamldrStatus::EINTERRUPT;
            }
            self.dirty.iter_mut().skip(package).take(1).for_each(|dirty| *dirty = false);
        }
        self.lps_cleaned.iter_mut().skip(package).take(1).for_each(|count| *count = cleaned);
        insert(&mut self.cleanup, context.x2apic_id);
        self.lps_in_cleanup = self.lps_in_cleanup.saturating_add(1);
        if self.lps_in_cleanup < context.config.num_lps {
            return SeamldrStatus::SUCCESS;
        }
        self.seamextend.valid = U64::new(0);
        self.seamextend.tee_tcb_svn = [0; 16];
        self.seamextend.mrseam = [0; 48];
        self.seamextend.mrsigner = [0; 48];
        self.seamextend.attributes = U64::new(0);
        self.clear_seamdb();
        self.cleanup = [0; 16];
        self.lps_in_cleanup = 0;
        self.lps_cleaned = [0; MAX_PACKAGES];
        self.flow = Flow::Ready;
        SeamldrStatus::SUCCESS
    }
}
