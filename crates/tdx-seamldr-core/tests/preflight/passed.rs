//! Tests of the values that a passed preflight gives to the update, and of the parameters that it
//! builds.

use tdx_seamldr_core::abi::{SeamldrParamsBuffer, Svn, TdxFeatures0};
use tdx_seamldr_core::preflight::{preflight_image, PassedUpdate, Purpose, Unknown, Unknowns};
use tdx_seamldr_core::update::{Update, UpdateError};
use tdx_seamldr_core::{
    BuildError, Host, LpBits, MachineId, ModuleState, Part, Patience, PhysAddr,
};
use tdx_seamldr_core::{NotShared, SeamcallBackend, SeamcallRegs, SharedInfo, SharedMemory, Trap};
use zerocopy::little_endian::U16;

use crate::world::{World, MODULE};

/// The values that the update reads from the passed value.
fn passed<R>(
    change: impl FnOnce(&mut World),
    look: impl FnOnce(&World, &PassedUpdate<'_>) -> R,
) -> R {
    let world = World::after(change);
    let file = world.file();
    let passed = world.check(&file).0.unwrap();
    assert_eq!(passed.image().sigstruct(), &world.sigstruct);
    look(&world, &passed)
}

#[test]
fn passed_update_carries_the_facts() {
    passed(
        |world| world.facts.remaining_updates = Some(7),
        |world, passed| {
            assert_eq!((passed.num_lps(), passed.remaining_updates()), (Some(8), Some(7)));
            assert_eq!(passed.running_svn(), Some(Svn { major: 1, minor: 5 }));
            assert_eq!(passed.running_mrseam(), world.facts.running_mrseam.as_ref());
        },
    );
    passed(
        |world| {
            let facts = &mut world.facts;
            (facts.num_lps, facts.remaining_updates) = (None, None);
            (facts.running_svn, facts.running_mrseam, facts.handoff) = (None, None, None);
            world.policy.allow_unknowns = Unknowns::OF_PLATFORM;
        },
        |_, passed| {
            assert_eq!((passed.num_lps(), passed.remaining_updates()), (None, None));
            assert_eq!((passed.running_svn(), passed.running_mrseam()), (None, None));
            assert_eq!(passed.handoff_version(), None);
        },
    );
}

#[test]
fn passed_update_has_the_highest_handoff_version_of_both_modules() {
    let version = |module_hv| {
        passed(
            |world| world.sigstruct.module_hv = U16::new(module_hv),
            |_, passed| passed.handoff_version(),
        )
    };
    assert_eq!((version(3), version(2), version(1)), (Some(2), Some(2), Some(1)));
}

#[test]
fn passed_update_avoids_sensitive_operations_unless_the_policy_allows_damage() {
    let avoids = |allow_damage, features0| {
        passed(
            |world| {
                world.facts.features0 = features0;
                world.facts.sensitive_operations = Some(0);
                world.policy.allow_damage = allow_damage;
                world.policy.allow_unknowns = Unknowns::NONE.with(Unknown::Features);
            },
            |_, passed| passed.avoids_sensitive_operations(),
        )
    };
    let counts = Some(TdxFeatures0::TD_PRESERVING | TdxFeatures0::UPDATE_COMPATIBILITY);
    assert!(avoids(false, counts) && !avoids(true, counts));
    assert!(!avoids(false, Some(TdxFeatures0::TD_PRESERVING)), "the module does not know the flag");
    assert!(!avoids(false, None), "the features are unknown");
}

/// A host of 8 LPs. The physical address of each byte is its virtual address plus an offset.
struct Offset {
    by: u64,
    lps: u32,
}

// SAFETY: touches no memory.
unsafe impl SeamcallBackend for Offset {
    unsafe fn seamcall(&self, _: &mut SeamcallRegs) -> Result<(), Trap> {
        Err(Trap::VmFailInvalid)
    }
}

// SAFETY: no code reads or writes these addresses.
unsafe impl Host for Offset {
    fn current_lp(&self) -> u32 {
        0
    }

    fn num_lps(&self) -> u32 {
        self.lps
    }

    fn relax(&self) -> Patience {
        Patience::GiveUp
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        Some(PhysAddr((address.addr() as u64 & 0xffff_ffff) + self.by))
    }

    fn machine(&self) -> MachineId {
        MachineId(1)
    }
}

/// Returns why this host cannot make an update.
fn update_error(passed: &PassedUpdate<'_>, host: &Offset) -> Option<UpdateError> {
    let (info, state) = (SharedInfo::new(), ModuleState::<[LpBits; 1]>::new());
    let mut params = SeamldrParamsBuffer::zeroed();
    Update::new(passed, &mut params, &info, host, &state).err()
}

/// A machine on which P-SEAMLDR reads addresses below 1 TiB, except the SEAM range in the first 16
/// GiB.
const MEMORY: SharedMemory = SharedMemory {
    address_bits: 46,
    keyid_bits: 6,
    first_private_keyid: 0x20,
    seam_range_base: 0,
    seam_range_size: 16 << 30,
};

/// Offsets of [`Offset`]: one to addresses that P-SEAMLDR reads, and one for each rule that refuses
/// an address.
const PLACES: [(u64, Option<NotShared>); 4] = [
    (16 << 30, None),
    (0, Some(NotShared::InSeamRange)),
    (1 << 45, Some(NotShared::PrivateKeyId)),
    (1 << 46, Some(NotShared::AboveMaxAddress)),
];

#[test]
fn update_rejects_parameters_that_p_seamldr_does_not_read() {
    for (by, expected) in PLACES {
        let host = Offset { by, lps: 8 };
        let (error, address) = passed(
            |world| world.facts.shared_memory = Some(MEMORY),
            |_, passed| {
                let sigstruct = std::ptr::from_ref(passed.image().sigstruct());
                (update_error(passed, &host), host.phys_addr(sigstruct.cast()).unwrap())
            },
        );
        let refused = expected.map(|reason| {
            UpdateError::Build(BuildError::NotShared(Part::Sigstruct, address, reason))
        });
        assert_eq!(error, refused);
    }
}

#[test]
fn prepared_image_rejects_parameters_that_p_seamldr_does_not_read() {
    for (by, expected) in PLACES {
        let world = World::after(|world| world.facts.shared_memory = Some(MEMORY));
        let (file, host) = (world.file(), Offset { by, lps: 8 });
        let image = file.image();
        let passed = preflight_image(
            &image,
            &world.facts,
            Purpose::Load,
            &world.crypto,
            world.policy,
            &mut |_| (),
        )
        .unwrap();
        assert_eq!(passed.image().module().len(), MODULE);
        let mut params = SeamldrParamsBuffer::zeroed();
        match (passed.prepare(&mut params, &host), expected) {
            (Ok(prepared), None) => assert_eq!(prepared.request().machine(), MachineId(1)),
            (Err(BuildError::NotShared(Part::Sigstruct, _, found)), Some(reason)) => {
                assert_eq!(found, reason)
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn addresses_are_not_checked_if_the_shared_memory_is_unknown() {
    let host = Offset { by: 1 << 60, lps: 8 };
    assert_eq!(passed(|_| (), |_, passed| update_error(passed, &host)), None);
}

#[test]
fn update_rejects_another_number_of_lps_than_preflight_counted() {
    for lps in [7, 9] {
        let error = passed(|_| (), |_, passed| update_error(passed, &Offset { by: 0, lps }));
        assert_eq!(error, Some(UpdateError::LpsChanged { found: lps, wanted: 8 }));
    }
}
