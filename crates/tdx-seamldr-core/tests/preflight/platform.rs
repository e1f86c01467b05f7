//! Findings about the machine and its running module.

use tdx_seamldr_core::abi::{Svn, TdxFeatures0};
use tdx_seamldr_core::preflight::{Finding, Refusal, SeamldrVersion, Sockets, Unknown};
use zerocopy::little_endian::{U16, U32};

use crate::world::{after, refused, unknown, World};

#[test]
fn image_passes_on_a_machine_that_keeps_all_rules() {
    assert_eq!(after(|_| ()), []);
    // Values at their limits pass, too.
    let limits: [fn(&mut World); 8] = [
        |world| world.facts.running_svn = Some(Svn { major: 1, minor: 4 }),
        |world| world.sigstruct.min_update_hv = U16::new(2),
        |world| world.sigstruct.gdt_idt_offset = U32::new(3 * 4096),
        |world| world.sigstruct.module_hv = U16::new(1),
        |world| world.sigstruct.cpuid_table_size = U32::new(255),
        |world| world.facts.handoff_data = Some(0),
        |world| world.facts.num_lps = world.facts.platform_lps,
        |world| world.sigstruct.svn_minor = 255,
    ];
    for (number, limit) in limits.into_iter().enumerate() {
        let findings = after(|world| {
            limit(world);
            if world.sigstruct.gdt_idt_offset.get() != 0 {
                world.sigstruct.fault_wrapper_offset = U32::new(4 * 4096 - 512);
            }
        });
        assert_eq!(findings, [], "{number}");
    }
}

#[test]
fn debug_module_passes_on_an_unlocked_platform_without_a_list_of_cpus() {
    let debug = |unlocked| {
        after(|world| {
            world.sigstruct.module_type = U32::new(1 << 31);
            world.sigstruct.cpuid_table_size = U32::new(0);
            world.facts.debug_unlocked = unlocked;
        })
    };
    assert_eq!(debug(Some(true)), []);
    assert_eq!(debug(Some(false)), refused(Refusal::DebugModule));
    assert_eq!(debug(None), unknown(Unknown::DebugUnlocked));
    assert_eq!(
        after(|world| world.sigstruct.cpuid_table_size = U32::new(0)),
        refused(Refusal::NoCpuList)
    );
}

#[test]
fn lower_svn_or_another_major_svn_is_refused() {
    let after = |major, minor| {
        let findings = after(|world| {
            (world.sigstruct.svn_major, world.sigstruct.svn_minor) = (major, minor);
        });
        findings.iter().map(Finding::code).collect::<Vec<_>>()
    };
    assert_eq!(after(1, 4), ["minor-svn"]);
    assert_eq!(after(2, 4), ["major-svn"]);
    assert_eq!(after(0, 5), ["major-svn-zero", "major-svn"]);
    assert!(after(1, 6).is_empty());
}

#[test]
fn platform_that_cannot_update_is_refused_with_its_reason() {
    assert_eq!(after(|world| world.facts.module_runs = Some(false)), refused(Refusal::NoModule));
    assert_eq!(
        after(|world| world.facts.module_in_place = Some(false)),
        refused(Refusal::NoModule)
    );
    let none_left = after(|world| world.facts.remaining_updates = Some(0));
    assert_eq!(none_left, refused(Refusal::NoRemainingUpdates));
    let version = |major, minor| SeamldrVersion { major, minor };
    for (found, is_refused) in
        [(version(1, 0), true), (version(1, 4), true), (version(1, 5), false)]
    {
        let refusal =
            if is_refused { refused(Refusal::SeamldrWithoutHandoff { found }) } else { Vec::new() };
        // P-SEAMLDR 1.0 counts no updates.
        let remaining = if is_refused { 0 } else { 1 };
        let findings = after(|world| {
            (world.facts.p_seamldr, world.facts.remaining_updates) = (Some(found), Some(remaining))
        });
        assert_eq!(findings, refusal);
    }
    for found in [7, 9] {
        let missing = Refusal::LpsMissing { found, wanted: 8 };
        assert_eq!(after(|world| world.facts.num_lps = Some(found)), refused(missing));
    }
    let features = TdxFeatures0::UPDATE_COMPATIBILITY;
    assert_eq!(
        after(|world| world.facts.features0 = Some(features)),
        refused(Refusal::NotTdPreserving(features))
    );
    assert_eq!(
        after(|world| world.facts.features0 = None),
        [Finding::Unknown(Unknown::Features), Finding::Unknown(Unknown::SensitiveOperations)]
    );
    let other_cpu = |world: &mut World| world.facts.sockets = Sockets::new(&[0x806f8, 0x906f8]);
    assert_eq!(after(other_cpu), refused(Refusal::Cpu { socket: 1, cpuid: 0x906f8 }));
}

#[test]
fn sensitive_operations_are_refused_unless_the_policy_allows_damage() {
    let with = |known, allow_damage| {
        after(|world| {
            world.facts.features0 = Some(TdxFeatures0::TD_PRESERVING);
            world.facts.sensitive_operations = known;
            world.policy.allow_damage = allow_damage;
        })
    };
    assert_eq!(with(Some(0), false), []);
    assert_eq!(with(Some(2), false), refused(Refusal::SensitiveOperations(2)));
    assert_eq!(with(None, false), unknown(Unknown::SensitiveOperations));
    assert_eq!(with(Some(2), true), []);
    let counted = after(|world| world.facts.sensitive_operations = Some(2));
    assert_eq!(
        counted,
        refused(Refusal::SensitiveOperations(2)),
        "the module may not count all of them"
    );
}

#[test]
fn running_module_passes_only_if_the_policy_allows_it() {
    let same = |allow_same_module| {
        after(|world| {
            world.facts.running_mrseam = Some(world.sigstruct.seamhash);
            world.policy.allow_same_module = allow_same_module;
        })
    };
    assert_eq!(same(false), refused(Refusal::SameModule));
    assert_eq!(same(true), []);
}

#[test]
fn x2apic_id_above_1023_is_refused() {
    let highest = |id| after(|world| world.facts.highest_x2apic_id = Some(id));
    assert_eq!((highest(0), highest(1023)), (vec![], vec![]));
    assert_eq!(highest(1024), refused(Refusal::LpId { found: 1024, limit: 1023 }));
}
