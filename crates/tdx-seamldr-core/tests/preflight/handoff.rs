//! Findings about the handoff data.

use tdx_seamldr_core::abi::SeamSigstruct;
use tdx_seamldr_core::preflight::{handoff_data_size, Finding, HandoffRange, Refusal, Unknown};
use tdx_seamldr_core::TdxVersion;
use zerocopy::little_endian::U16;
use zerocopy::FromZeros;

use crate::world::{after, refused, unknown};

#[test]
fn handoff_version_or_size_that_the_image_cannot_take_is_refused() {
    let running = HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false };
    let version = Refusal::HandoffVersion { running, min_update_hv: 1, module_hv: 3 };
    assert_eq!(after(|world| world.facts.handoff = Some(running)), refused(version));
    assert_eq!(after(|world| world.facts.handoff = None), unknown(Unknown::HandoffVersions));
    let pages = Refusal::HandoffPages { found: 2, wanted: 3 };
    assert_eq!(after(|world| world.facts.handoff_data = Some(8185)), refused(pages));
}

#[test]
fn handoff_data_of_unknown_size_needs_as_many_pages_as_the_running_module_has() {
    let with = |handoff_data, handoff_pages| {
        after(|world| {
            (world.facts.handoff_data, world.facts.handoff_pages) = (handoff_data, handoff_pages)
        })
    };
    assert_eq!(with(None, Some(2)), []);
    assert_eq!(with(None, Some(3)), unknown(Unknown::HandoffData));
    assert_eq!(with(None, None), unknown(Unknown::HandoffData));
    assert_eq!(with(Some(8184), Some(3)), [], "a known size decides");
    let pages = Refusal::HandoffPages { found: 2, wanted: 3 };
    assert_eq!(with(Some(8185), Some(2)), refused(pages));
}

#[test]
fn handoff_data_of_unknown_version_needs_room_in_each_version_that_the_image_takes() {
    let with = |min_update_hv, handoff_data, handoff_pages| {
        let findings = after(|world| {
            world.sigstruct.min_update_hv = U16::new(min_update_hv);
            world.sigstruct.module_hv = U16::new(2);
            (world.facts.handoff, world.facts.handoff_data, world.facts.handoff_pages) =
                (None, handoff_data, handoff_pages);
        });
        assert_eq!(findings[0], Finding::Unknown(Unknown::HandoffVersions));
        findings[1..].to_vec()
    };
    let pages = |found, wanted| refused(Refusal::HandoffPages { found, wanted });
    assert_eq!(with(1, Some(2 * 4096 - 8), None), []);
    assert_eq!(with(1, Some(2 * 4096 - 7), None), pages(2, 3));
    // The image takes 25 pages of version 0.
    assert_eq!(with(0, Some(2 * 4096 - 8), None), []);
    assert_eq!(with(0, Some(2 * 4096 - 7), None), unknown(Unknown::HandoffData));
    assert_eq!(with(0, Some(25 * 4096 - 8), None), unknown(Unknown::HandoffData));
    assert_eq!(with(0, Some(25 * 4096 - 7), None), pages(25, 26));
    assert_eq!(with(0, None, Some(2)), []);
    assert_eq!(with(0, None, Some(3)), unknown(Unknown::HandoffData));
}

#[test]
fn module_with_a_later_version_takes_25_pages_of_handoff_version_0() {
    let with = |handoff_data, running_hv, module_hv| {
        after(|world| {
            world.facts.handoff =
                Some(HandoffRange { module_hv: running_hv, min_update_hv: 0, no_downgrade: false });
            (world.sigstruct.min_update_hv, world.sigstruct.module_hv) =
                (U16::new(0), U16::new(module_hv));
            world.sigstruct.num_handoff_pages = U16::new(13);
            world.facts.handoff_data = Some(handoff_data);
        })
    };
    let pages = |found, wanted| refused(Refusal::HandoffPages { found, wanted });
    assert_eq!(with(25 * 4096 - 8, 0, 1), []);
    assert_eq!(with(25 * 4096 - 7, 0, 1), pages(25, 26));
    assert_eq!(with(25 * 4096 - 8, 0, 0), pages(14, 25), "the module has no later version");
    assert_eq!(with(25 * 4096 - 8, 1, 1), pages(14, 25), "the handoff data has the later version");
    let own_pages = |module_hv| {
        after(|world| {
            world.facts.handoff =
                Some(HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false });
            (world.sigstruct.min_update_hv, world.sigstruct.module_hv) =
                (U16::new(0), U16::new(module_hv));
            world.sigstruct.num_handoff_pages = U16::new(25);
            world.facts.handoff_data = Some(25 * 4096 - 7);
        })
    };
    assert_eq!(own_pages(0), []);
    assert_eq!(own_pages(1), pages(25, 26), "the module's own pages do not count");
}

#[test]
fn highest_common_handoff_version_is_negotiated() {
    let range = |module_hv, min_update_hv, no_downgrade| HandoffRange {
        module_hv,
        min_update_hv,
        no_downgrade,
    };
    let mut new = SeamSigstruct::new_zeroed();
    (new.min_update_hv, new.module_hv) = (U16::new(2), U16::new(5));
    assert_eq!(range(7, 0, false).negotiate(&new), Some(5));
    assert_eq!(range(4, 0, false).negotiate(&new), Some(4));
    assert_eq!(range(2, 2, false).negotiate(&new), Some(2));
    assert_eq!(
        range(1, 0, false).negotiate(&new),
        None,
        "the new module takes no version of the running module"
    );
    assert_eq!(
        range(7, 6, false).negotiate(&new),
        None,
        "the running module writes no version of the new module"
    );
    assert_eq!(range(7, 0, true).negotiate(&new), None, "the running module writes version 7 only");
    assert_eq!(range(5, 0, true).negotiate(&new), Some(5));
}

#[test]
fn handoff_data_size_is_known_for_published_modules_only() {
    let size = |major, minor, update| handoff_data_size(TdxVersion { major, minor, update });
    let sizes = [0, 25, 26, 28, 34, 35].map(|update| size(1, 5, update));
    assert_eq!(sizes, [Some(53_391), Some(53_391), None, Some(57_336), Some(57_336), None]);
    let sizes = [12, 13, 14, 15, 16, 18, 19].map(|update| size(2, 0, update));
    let rounded = Some(57_336);
    assert_eq!(sizes, [Some(101_810), None, Some(53_391), None, rounded, rounded, None]);
    assert_eq!((size(1, 4, 0), size(2, 1, 0)), (None, None));
}

#[test]
fn handoff_version_after_2_makes_the_pages_unknown() {
    let with = |hv| {
        after(|world| {
            world.facts.handoff =
                Some(HandoffRange { module_hv: hv, min_update_hv: 0, no_downgrade: true });
            (world.sigstruct.min_update_hv, world.sigstruct.module_hv) = (U16::new(0), U16::new(3));
            world.sigstruct.num_handoff_pages = U16::new(12);
            world.facts.handoff_data = Some(57_336);
        })
    };
    assert_eq!(with(2), refused(Refusal::HandoffPages { found: 13, wanted: 14 }));
    assert_eq!(with(3), unknown(Unknown::HandoffData));
}
