//! Decodes the input of `update_ops` into a script.

use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf};
use tdx_seamldr_core::preflight::{Policy, Unknowns};

use crate::fuzz::images::{File, NEW, OLD};
use crate::fuzz::numbers::Numbers;

/// The calls of an update and of the checks before it.
pub(in crate::fuzz) const CALLS: [u64; 12] = [
    SeamldrLeaf::Install as u64,
    SeamldrLeaf::Info as u64,
    SeamldrLeaf::SeamInfo as u64,
    TdxLeaf::SYS_SHUTDOWN.0 as u64,
    TdxLeaf::SYS_INIT.0 as u64,
    TdxLeaf::SYS_LP_INIT.0 as u64,
    TdxLeaf::SYS_UPDATE.0 as u64,
    TdxLeaf::SYS_UPDATE.0 as u64 | 1 << 16,
    TdxLeaf::SYS_RD.0 as u64,
    TdxLeaf::SYS_TDMR_INIT.0 as u64,
    TdxLeaf::SYS_CONFIG.0 as u64,
    u64::MAX,
];

/// Size of one trouble in an input, in bytes.
pub(in crate::fuzz) const TROUBLE: usize = 16;
/// The most troubles of one input.
const MAX_TROUBLES: usize = 12;
/// Number of bytes before the troubles.
pub(in crate::fuzz) const HEAD: usize = 16;

/// A decoded input.
pub(super) struct Script<'a> {
    pub(super) lps: u32,
    pub(super) sockets: u32,
    pub(super) asks_first: bool,
    pub(super) policy: Policy,
    pub(super) detect_compat_damage: bool,
    /// Whether P-SEAMLDR can install only one more module.
    pub(super) one_update_left: bool,
    pub(super) old: &'static File,
    pub(super) new: &'static File,
    pub(super) fallbacks: Vec<&'static File>,
    pub(super) version: Version,
    pub(super) after: Vec<(After, &'static File)>,
    pub(super) troubles: Vec<Numbers<'a>>,
    pub(super) order: &'a [u8],
}

/// The version of the handoff data.
#[derive(Clone, Copy)]
pub(super) enum Version {
    Negotiated,
    Highest,
    Given(u16),
}

/// The step after an update.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// Ends all faults and follows the outcome's next step.
    Follow,
    /// Follows the outcome's next step with the same troubles.
    FollowInTrouble,
    Resume,
    Finish,
    Load,
    Update,
}

impl<'a> Script<'a> {
    pub(super) fn read(input: &'a [u8]) -> Self {
        let mut numbers = Numbers(input);
        let flags = numbers.u8();
        let lps = u32::from(flags & 7) + 1;
        let mut script = Self {
            lps,
            sockets: if flags & 8 != 0 && lps > 1 { 2 } else { 1 },
            asks_first: flags & 16 == 0,
            policy: Policy {
                allow_same_module: flags & 32 != 0,
                allow_unknowns: if flags & 64 != 0 {
                    Unknowns::OF_PLATFORM
                } else {
                    Unknowns::NONE
                },
                allow_damage: flags & 64 != 0,
            },
            detect_compat_damage: flags & 128 != 0,
            one_update_left: false,
            old: &OLD[usize::from(numbers.u8()) % OLD.len()],
            new: &NEW[usize::from(numbers.u8()) % NEW.len()],
            fallbacks: Vec::new(),
            version: Version::Negotiated,
            after: Vec::new(),
            troubles: Vec::new(),
            order: &[],
        };
        let count = numbers.u8() % 4;
        for number in 0..3 {
            let index = usize::from(numbers.u8()) % (NEW.len() + 1);
            // Usually the fallback is the module that ran before.
            let fallback = index.checked_sub(1).map_or(script.old, |index| &NEW[index]);
            if number < count {
                script.fallbacks.push(fallback);
            }
        }
        let (choice, given) = (numbers.u8(), numbers.u8());
        script.version = match choice % 4 {
            0 | 1 => Version::Negotiated,
            2 => Version::Highest,
            _ => Version::Given(given.into()),
        };
        let count = numbers.u8() % 5;
        for number in 0..4 {
            let byte = numbers.u8();
            let after = [
                After::Follow,
                After::FollowInTrouble,
                After::Resume,
                After::Finish,
                After::Load,
                After::Update,
            ][usize::from(byte % 6)];
            let file = &NEW[usize::from(byte / 6) % NEW.len()];
            if number < count {
                script.after.push((after, file));
            }
        }
        script.one_update_left = numbers.u8() & 3 == 3;
        let count = usize::from(numbers.u8()).min(MAX_TROUBLES);
        script.troubles.extend((0..count).map(|_| Numbers(numbers.bytes(TROUBLE))));
        script.order = numbers.bytes(256);
        script
    }
}
