//! Random calls, compared with a second model that predicts each answer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod calls;
mod opinion;
mod pair;
mod world;

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tdx_seamldr_core::abi::{Scenario, SeamldrStatus as S, TdxLeaf, TdxStatus as T};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{LoaderProfile, ModuleState as State};

use calls::{action, Action};
use pair::Pair;
use world::params_of;

/// Runs these actions on both models. One image is ready at the start.
fn run(profile: LoaderProfile, first: usize, actions: &[Action]) -> Pair {
    let mut pair = Pair::new(profile);
    // The first entry needs a random number; RDRAND succeeds here.
    pair.act(&Action::Install(vec![0, 1, 2], params_of(first, Scenario::Load)));
    pair.act(&Action::BringUp { updates: false });
    assert!(pair.opinion.module.as_ref().is_some_and(|module| module.state == State::Ready));
    actions.iter().for_each(|action| pair.act(action));
    pair
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn both_models_give_the_same_answer_to_every_call(
        profile in prop::sample::select(LoaderProfile::ALL.to_vec()),
        first in prop::sample::select(vec![0, 13]),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        run(profile.1, first, &actions);
    }
}

#[test]
fn both_models_agree_on_the_size_of_handoff_data_of_version_0() {
    // Images with and without counts, with as much data as their pages hold and as the newest
    // modules accept.
    for (image, pages) in [(1, 14), (1, 25), (13, 14), (13, 25)] {
        for size in [pages * 4096 - 8, pages * 4096 - 7] {
            let actions = [
                Action::Call(
                    2,
                    SeamcallRegs { rax: TdxLeaf::SYS_SHUTDOWN.rax(0), ..SeamcallRegs::default() },
                ),
                Action::Install(vec![0, 1, 2], params_of(image, Scenario::Update)),
                Action::HandoffSize(size),
                Action::BringUp { updates: true },
            ];
            run(LoaderProfile::V1_5_00, 0, &actions);
        }
    }
}

/// Without this coverage, the agreement of the models would mean little.
#[test]
fn random_calls_reach_every_possible_answer() {
    let mut runner = TestRunner::deterministic();
    let mut seen = HashSet::new();
    for number in 0..300 {
        let (_, profile) = LoaderProfile::ALL[number % 4];
        let actions = prop::collection::vec(action(), 80).new_tree(&mut runner).unwrap().current();
        seen.extend(run(profile, [0, 13][number / 4 % 2], &actions).seen);
    }
    let seamldr = S::TABLE.iter().map(|row| row.status).filter(|status| *status != S::EUNSPECERR);
    let missing: Vec<S> = seamldr.filter(|status| !seen.contains(&(true, Ok(status.0)))).collect();
    assert_eq!(missing, []);
    let module = [
        T::SUCCESS,
        T::OPERAND_INVALID,
        T::SYS_BUSY,
        T::RND_NO_ENTROPY,
        T::SYS_INIT_NOT_PENDING,
        T::SYS_LP_INIT_NOT_DONE,
        T::SYS_LP_INIT_DONE,
        T::SYS_NOT_READY,
        T::SYS_SHUTDOWN,
        T::SYS_KEY_CONFIG_NOT_PENDING,
        T::SYS_STATE_INCORRECT,
        T::SYS_INVALID_HANDOFF,
        T::SYS_INCOMPATIBLE_SIGSTRUCT,
        T::SYS_LP_INIT_NOT_PENDING,
        T::SYS_CONFIG_NOT_PENDING,
        T::UPDATE_COMPATIBILITY_SENSITIVE,
        T::KEY_CONFIGURED,
        T::INCONSISTENT_MSR,
    ];
    let missing: Vec<T> =
        module.into_iter().filter(|status| !seen.contains(&(false, Ok(status.0)))).collect();
    assert_eq!(missing, []);
    for trap in Trap::ALL {
        assert!(
            seen.contains(&(false, Err(trap))) && seen.contains(&(true, Err(trap))),
            "{trap:?}"
        );
    }
}
