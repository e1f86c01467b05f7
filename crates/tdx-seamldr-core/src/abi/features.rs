//! Feature bits.

use core::fmt;

use bitflags::{bitflags, parser};

/// TDX_FEATURES0, metadata field 0x0A00000300000008: the features of the TDX module. Keeps bits
/// without a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TdxFeatures0(u64);

/// `features0` of SEAMLDR_INFO: the features of P-SEAMLDR. Older versions of P-SEAMLDR return 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeamldrFeatures0(u64);

// The macro does not define the structs. It would also define functions that parse names, and these
// can panic.
bitflags! {
    impl TdxFeatures0: u64 {
        /// TD migration.
        const TD_MIGRATION = 1 << 0;
        /// The module can be replaced while TDs live on. Linux offers updates only if this bit is
        /// set.
        const TD_PRESERVING = 1 << 1;
        /// Service TDs.
        const SERVICE_TD = 1 << 2;
        /// TDG.VP.RD and TDG.VP.WR.
        const TDG_VP_RD_WR = 1 << 3;
        /// Relaxed memory management.
        const RELAXED_MEM_MNG = 1 << 4;
        /// The guest controls CPUID virtualisation.
        const CPUID_GUEST_CONTROL = 1 << 5;
        /// TD partitioning.
        const TD_PARTITIONING = 1 << 7;
        /// Local attestation.
        const LOCAL_ATTESTATION = 1 << 8;
        /// Enhancements of TD entry.
        const TD_ENTRY_ENHANCEMENTS = 1 << 9;
        /// Locks that give the host priority.
        const HOST_PRIORITY_LOCKS = 1 << 10;
        /// IA32_ARCH_CAPABILITIES can be configured.
        const CONFIG_IA32_ARCH_CAPABILITIES = 1 << 11;
        /// EPT violations of pending pages, second form.
        const PENDING_EPT_VIOLATION_V2 = 1 << 16;
        /// Family, model and stepping can be configured.
        const FMS_CONFIG = 1 << 17;
        /// The module does not change RBP. Linux does not initialise TDX without this bit.
        const NO_RBP_MOD = 1 << 18;
        /// Fewer TLB invalidations for nested guests.
        const L2_TLB_INVD_OPT = 1 << 19;
        /// Topology enumeration.
        const TOPOLOGY_ENUM = 1 << 20;
        /// The host must flush memory from the caches before it gives the memory to the module.
        const CLFLUSH_BEFORE_ALLOC = 1 << 23;
        /// PAMT pages can be added at run time.
        const DYNAMIC_PAMT = 1 << 36;
        /// The module can refuse a shutdown during compatibility-sensitive operations, or detect
        /// their damage afterwards.
        const UPDATE_COMPATIBILITY = 1 << 47;
        /// TDH.SYS.DISABLE exists.
        const SYS_DISABLE = 1 << 53;

        const _ = !0;
    }

    impl SeamldrFeatures0: u64 {
        /// The "s4_mig_api" bit of the published sources.
        const S4_MIG_API = 1 << 0;
        /// SEAMLDR.CLEANUP exists.
        const CLEANUP = 1 << 1;

        const _ = !0;
    }
}

impl fmt::Debug for TdxFeatures0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TdxFeatures0(")?;
        parser::to_writer(self, &mut *f)?;
        f.write_str(")")
    }
}

impl fmt::Debug for SeamldrFeatures0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeamldrFeatures0(")?;
        parser::to_writer(self, &mut *f)?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_a_released_module_are_read_without_loss() {
        let features = TdxFeatures0::from_bits_retain(0x226F3F0FBF); // 1.5.16
        assert!(features.contains(TdxFeatures0::TD_PRESERVING | TdxFeatures0::NO_RBP_MOD));
        assert!(!features.contains(TdxFeatures0::UPDATE_COMPATIBILITY));
        assert_eq!(features.bits(), 0x226F3F0FBF);
    }

    #[test]
    fn features_are_shown_by_name_and_unknown_bits_as_a_number() {
        let features = TdxFeatures0::TD_PRESERVING | TdxFeatures0::from_bits_retain(1 << 63);
        assert_eq!(format!("{features:?}"), "TdxFeatures0(TD_PRESERVING | 0x8000000000000000)");
        assert_eq!(format!("{:?}", SeamldrFeatures0::CLEANUP), "SeamldrFeatures0(CLEANUP)");
    }
}
