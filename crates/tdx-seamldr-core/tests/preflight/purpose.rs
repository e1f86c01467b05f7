//! Findings about fallback images, and images to resume with or to load.

use tdx_seamldr_core::abi::{SeamldrFeatures0, SeamldrInfo, Svn};
use tdx_seamldr_core::preflight::{
    Facts, Finding, HandoffRange, Purpose, Refusal, SeamldrVersion, Unknown,
};
use zerocopy::little_endian::{U16, U32};
use zerocopy::FromZeros;

use crate::world::{no_elf, refused, unknown, World, SIGNED};

const TAKE_OVER: Purpose = Purpose::TakeOver { handoff_version: None };

/// Removes the facts that no module answers after a shutdown.
fn shut_down(change: impl FnOnce(&mut World)) -> World {
    World::after(|world| {
        let silent = Facts {
            features0: None,
            handoff: None,
            handoff_data: None,
            handoff_pages: None,
            ..world.facts
        };
        world.facts = Facts { module_runs: Some(false), running_mrseam: None, ..silent };
        change(world);
    })
}

#[test]
fn takeover_image_needs_no_running_module() {
    let with = |change: fn(&mut World)| shut_down(change).check_image(TAKE_OVER);
    assert_eq!(with(|_| ()), []);
    assert_eq!(with(|world| world.sigstruct.svn_minor = 4).len(), 1);
    assert_eq!(
        with(|world| world.facts.remaining_updates = Some(0)),
        refused(Refusal::NoRemainingUpdates)
    );
    assert_eq!(
        with(|world| world.facts.num_lps = Some(7)),
        refused(Refusal::LpsMissing { found: 7, wanted: 8 })
    );
    assert_eq!(with(|world| world.module[0] = 0), no_elf());
    assert_eq!(with(|world| world.crypto.out_of_order = Some(SIGNED)), unknown(Unknown::Signature));
}

#[test]
fn takeover_image_needs_a_module_in_place() {
    let world = shut_down(|world| {
        let mut info = SeamldrInfo::new_zeroed();
        (info.major, info.minor, info.num_remaining_updates) =
            (U16::new(1), U16::new(5), U32::new(1));
        (world.facts.running_svn, world.facts.running_mrseam) = (None, None);
        world.facts.add_info(&info);
    });
    assert_eq!((world.facts.running_svn, world.facts.running_mrseam), (None, None));
    assert_eq!(world.check_image(TAKE_OVER), refused(Refusal::NoModule));
    assert_eq!(world.check_image(Purpose::Load), []);
}

#[test]
fn load_image_needs_a_cleanup_if_p_seamldr_has_the_leaf() {
    let with = |major, minor, change: fn(&mut World)| {
        let world = shut_down(|world| {
            world.facts.seamldr_features = Some(SeamldrFeatures0::CLEANUP);
            (world.sigstruct.svn_major, world.sigstruct.svn_minor) = (major, minor);
            change(world);
        });
        world.check_image(Purpose::Load)
    };
    assert_eq!((with(1, 5, |_| ()), with(1, 6, |_| ())), (vec![], vec![]));
    let running = Svn { major: 1, minor: 5 };
    for found in [Svn { major: 1, minor: 4 }, Svn { major: 2, minor: 6 }] {
        let refusal = Refusal::CleanupRequired { found, running };
        assert_eq!(with(found.major, found.minor, |_| ()), refused(refusal));
        let without =
            |world: &mut World| world.facts.seamldr_features = Some(SeamldrFeatures0::S4_MIG_API);
        assert_eq!(with(found.major, found.minor, without), []);
    }
    let zero = with(0, 5, |_| ());
    assert_eq!(
        zero.iter().map(Finding::code).collect::<Vec<_>>(),
        ["major-svn-zero", "cleanup-required"]
    );
    let clean = |world: &mut World| world.facts.keys_are_clean = Some(true);
    assert_eq!((with(1, 4, clean), with(2, 0, clean)), (vec![], vec![]));
    let destroyed = |world: &mut World| {
        (world.facts.keys_are_clean, world.facts.module_in_place) = (Some(false), Some(false))
    };
    let refusal = Refusal::CleanupRequired {
        found: Svn { major: 1, minor: 5 },
        running: Svn { major: 0, minor: 0 },
    };
    assert_eq!(with(1, 5, destroyed), refused(refusal));
    // The keys are dirty after a failed update, and clean after a CLEANUP or a boot. Only the host
    // knows this.
    let absent: [fn(&mut World); 3] = [
        |world| world.facts.module_in_place = Some(false),
        |world| world.facts.running_svn = None,
        |world| world.facts.seamldr_features = None,
    ];
    for change in absent {
        assert_eq!(with(1, 5, change), unknown(Unknown::Cleanup));
    }
}

#[test]
fn load_image_needs_neither_svn_nor_remaining_updates_nor_handoff_data() {
    let with = |change: fn(&mut World)| shut_down(change).check_image(Purpose::Load);
    let changes: [fn(&mut World); 8] = [
        |_| (),
        |world| world.facts.running_svn = Some(Svn { major: 2, minor: 9 }),
        |world| world.facts.running_svn = None,
        |world| world.sigstruct.svn_major = 0,
        |world| world.facts.remaining_updates = Some(0),
        |world| world.facts.remaining_updates = None,
        |world| {
            world.facts.handoff =
                Some(HandoffRange { module_hv: 9, min_update_hv: 9, no_downgrade: true })
        },
        |world| {
            (world.facts.handoff_data, world.facts.handoff_pages) = (Some(u32::MAX), Some(u32::MAX))
        },
    ];
    for change in changes {
        assert_eq!(with(change), []);
    }
    // P-SEAMLDR asks for the rest in both scenarios.
    assert_eq!(
        with(|world| world.facts.num_lps = Some(7)),
        refused(Refusal::LpsMissing { found: 7, wanted: 8 })
    );
    assert_eq!(with(|world| world.module[0] = 0), no_elf());
    let other_line = with(|world| {
        world.facts.p_seamldr = Some(SeamldrVersion { major: 1, minor: 5 });
        world.sigstruct.reserved3[3] = 2;
    });
    assert_eq!(other_line.iter().map(Finding::code).collect::<Vec<_>>(), ["seamldr-too-old"]);
    assert_eq!(with(|world| world.crypto.out_of_order = Some(SIGNED)), unknown(Unknown::Signature));
    assert_eq!(with(|world| world.facts.signer = None), unknown(Unknown::Signer));
    assert_eq!(
        with(|world| world.facts.sockets = None)[..],
        [Finding::Unknown(Unknown::Sockets), Finding::Unknown(Unknown::Memory)]
    );
}

#[test]
fn fallback_image_must_take_the_handoff_version_of_the_update() {
    let takes =
        |handoff_version| World::after(|_| ()).check_image(Purpose::TakeOver { handoff_version });
    for version in [0, 4] {
        let refusal =
            Refusal::HandoffDataVersion { found: version, min_update_hv: 1, module_hv: 3 };
        assert_eq!(takes(Some(version)), refused(refusal));
    }
    for version in [1, 2, 3] {
        assert_eq!(takes(Some(version)), []);
    }
    let unknown_version = World::after(|world| world.sigstruct.min_update_hv = U16::new(3));
    assert_eq!(unknown_version.check_image(TAKE_OVER), [], "the version may be any");
}

#[test]
fn fallback_image_must_have_room_for_the_handoff_data() {
    // The running module writes versions 0 to 2. The image takes versions 0 to 3 and has 2 pages.
    let with = |handoff_version, handoff_data, handoff_pages| {
        let world = World::after(|world| {
            world.sigstruct.min_update_hv = U16::new(0);
            (world.facts.handoff_data, world.facts.handoff_pages) = (handoff_data, handoff_pages);
        });
        world.check_image(Purpose::TakeOver { handoff_version })
    };
    let pages = |found, wanted| refused(Refusal::HandoffPages { found, wanted });
    let (fits, too_long) = (Some(2 * 4096 - 8), Some(2 * 4096 - 7));
    assert_eq!(with(Some(2), fits, None), []);
    assert_eq!(with(Some(2), too_long, None), pages(2, 3));
    assert_eq!(with(None, too_long, None), pages(2, 3), "2 is the highest common version");
    assert_eq!(with(Some(0), too_long, None), [], "version 0 has room for 25 pages");
    assert_eq!(with(Some(0), Some(25 * 4096 - 7), None), pages(25, 26));
    // An unknown size is no finding.
    assert_eq!(with(Some(2), None, Some(3)), []);
    assert_eq!(with(Some(2), None, None), []);
    assert_eq!(with(None, None, None), []);
}
