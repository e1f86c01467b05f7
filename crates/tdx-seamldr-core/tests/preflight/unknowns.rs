//! Unknowns: one for each absent fact, and the policy that allows them.

use tdx_seamldr_core::preflight::{Facts, Finding, Policy, SeamldrVersion, Unknown, Unknowns};
use zerocopy::little_endian::U32;

use crate::world::{after, unknown, World, MODULE, MODULUS, SIGNED};

#[test]
fn absent_fact_is_reported_as_its_own_unknown() {
    type Change = fn(&mut Facts);
    let rows: [(&[Unknown], Change); 17] = [
        (&[Unknown::Signer], |facts| facts.signer = None),
        (&[Unknown::RemainingUpdates], |facts| facts.remaining_updates = None),
        (&[Unknown::RunningModule], |facts| facts.module_runs = None),
        (&[Unknown::RunningSvn], |facts| facts.running_svn = None),
        (&[Unknown::SameModule], |facts| facts.running_mrseam = None),
        (&[Unknown::Features, Unknown::SensitiveOperations], |facts| facts.features0 = None),
        (&[Unknown::HandoffVersions], |facts| {
            (facts.handoff, facts.handoff_data) = (None, Some(0))
        }),
        (&[Unknown::HandoffData], |facts| (facts.handoff_data, facts.handoff_pages) = (None, None)),
        (&[Unknown::Lps], |facts| facts.num_lps = None),
        (&[Unknown::Lps], |facts| facts.platform_lps = None),
        (&[Unknown::LpIds], |facts| facts.highest_x2apic_id = None),
        (&[Unknown::Sockets, Unknown::Memory], |facts| facts.sockets = None),
        (&[Unknown::Memory], |facts| facts.addressable_lps_per_socket = None),
        (&[Unknown::Memory], |facts| facts.seamrr_base = None),
        (&[Unknown::Memory], |facts| facts.p_seamldr_base = None),
        // Preflight needs these facts for some images only.
        (&[], |facts| (facts.p_seamldr, facts.seamldr_features) = (None, None)),
        (&[], |facts| {
            (facts.debug_unlocked, facts.shared_memory, facts.module_in_place) = (None, None, None)
        }),
    ];
    for (unknowns, change) in rows {
        let expected: Vec<_> = unknowns.iter().map(|unknown| Finding::Unknown(*unknown)).collect();
        assert_eq!(after(|world| change(&mut world.facts)), expected);
    }
}

#[test]
fn unknown_version_of_p_seamldr_is_reported_for_images_of_the_2_0_line_only() {
    let without = |version| {
        after(|world| {
            world.facts.p_seamldr = None;
            world.sigstruct.reserved3[3] = version;
        })
    };
    assert_eq!((without(0), without(2)), (vec![], unknown(Unknown::SeamldrVersion)));
}

#[test]
fn unknown_running_module_is_not_reported_if_the_policy_allows_the_same_module() {
    let findings = after(|world| {
        world.facts.running_mrseam = None;
        world.policy.allow_same_module = true;
    });
    assert_eq!(findings, []);
}

#[test]
fn machine_without_facts_reports_each_unknown_once() {
    let findings = after(|world| {
        world.facts = Facts { signer: world.facts.signer, ..Facts::new() };
        world.sigstruct.module_type = U32::new(1 << 31);
        world.sigstruct.reserved3[3] = 2;
    });
    let mut codes: Vec<_> = findings.iter().map(Finding::code).collect();
    codes.sort_unstable();
    let others = [Unknown::Signer, Unknown::Signature, Unknown::ImageHash, Unknown::Cleanup];
    let mut expected: Vec<_> = Unknown::ALL
        .iter()
        .filter(|unknown| !others.contains(unknown))
        .map(Unknown::code)
        .collect();
    expected.sort_unstable();
    assert_eq!(codes, expected);
}

fn passes(change: impl FnOnce(&mut World)) -> bool {
    let world = World::after(change);
    let file = world.file();
    world.check(&file).0.is_ok()
}

#[test]
fn unknown_passes_only_if_the_policy_names_it() {
    let passes = |allow_unknowns| {
        passes(|world| {
            world.policy = Policy { allow_unknowns, ..Policy::default() };
            (world.facts.handoff_data, world.facts.handoff_pages) = (None, None);
        })
    };
    assert!(!passes(Unknowns::NONE) && !passes(Unknowns::NONE.with(Unknown::Memory)));
    assert!(passes(Unknowns::NONE.with(Unknown::HandoffData)) && passes(Unknowns::OF_PLATFORM));
    assert!(!passes(Unknowns::OF_PLATFORM.without(Unknown::HandoffData)));
}

#[test]
fn allowed_unknown_does_not_hide_a_refusal() {
    let lps_missing = passes(|world| {
        world.policy.allow_unknowns = Unknowns::OF_PLATFORM;
        (world.facts.handoff_data, world.facts.handoff_pages) = (None, None);
        world.facts.num_lps = Some(1);
    });
    assert!(!lps_missing);
}

#[test]
fn platform_set_does_not_allow_an_unverified_image() {
    let rows =
        [(MODULUS, Unknown::Signer), (SIGNED, Unknown::Signature), (MODULE, Unknown::ImageHash)];
    for (length, unknown) in rows {
        let passes = |allow_unknowns| {
            passes(|world| {
                world.policy.allow_unknowns = allow_unknowns;
                world.crypto.out_of_order = Some(length);
            })
        };
        assert!(!passes(Unknowns::OF_PLATFORM), "{unknown}");
        assert!(
            passes(Unknowns::OF_PLATFORM.with(unknown)) && passes(Unknowns::NONE.with(unknown)),
            "the policy names the unknown"
        );
    }
    let without_signer = passes(|world| {
        world.policy.allow_unknowns = Unknowns::OF_PLATFORM;
        world.facts.signer = None;
    });
    assert!(!without_signer);
}

#[test]
fn platform_set_passes_an_image_on_a_machine_without_facts() {
    let nothing_known = passes(|world| {
        world.policy.allow_unknowns = Unknowns::OF_PLATFORM;
        world.facts = Facts { signer: world.facts.signer, ..Facts::new() };
    });
    assert!(nothing_known);
    let too_old = passes(|world| {
        world.policy.allow_unknowns = Unknowns::OF_PLATFORM;
        world.facts.p_seamldr = Some(SeamldrVersion { major: 1, minor: 5 });
        world.sigstruct.reserved3[3] = 2;
    });
    assert!(!too_old, "the reason is known");
}
