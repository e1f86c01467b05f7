//! How long `status` and `plan` take. Ignored: it prints figures, and they mean something in a
//! release build only.
//!
//! `cargo test --release -p tdx-seamldr-cli --test host speed -- --ignored --nocapture`

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::{Catalogue, Releases};

use crate::support::{binaries, Tree};

/// Runs of each, of which the shortest counts.
const RUNS: usize = 20;

fn best(mut run: impl FnMut()) -> Duration {
    let time = |run: &mut dyn FnMut()| {
        let begin = Instant::now();
        run();
        begin.elapsed()
    };
    (0..RUNS).map(|_| time(&mut run)).min().unwrap()
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
#[ignore = "prints figures, which mean something in a release build only"]
fn status_and_plan_with_two_sockets_and_512_lps() {
    let folder = binaries();
    let tree = Tree::new(
        &HostTree::linux_7_2().module("1.5.05").sockets(&[(0x806f8, 256), (0x806f8, 256)]),
    );
    let images = folder.to_str().unwrap();
    let run = |arguments: &[&str]| {
        best(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"));
            let command =
                command.args(arguments).arg("--root").arg(tree.root()).stdout(Stdio::null());
            assert!(command.status().unwrap().success());
        })
    };
    let nothing = run(&["history"]);
    let status = run(&["status"]);
    let plan = run(&["plan", "--image-dir", images, "--no-td-launches"]);
    let verification = best(|| {
        let mut catalogue = Catalogue::new(Releases::built_in());
        catalogue.add_folder(&folder);
        assert_eq!(catalogue.images().len(), 5);
    });
    println!("best of {RUNS}: a process that does next to nothing {nothing:?}, status {status:?}");
    println!("plan {plan:?}, of which reading and verifying the images {verification:?}");
    println!("plan without verification {:?}", plan.saturating_sub(verification));
}
