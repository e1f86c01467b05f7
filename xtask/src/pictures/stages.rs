//! CPUs against stages, with the point of no return: an update of four LPs on the simulated
//! platform.

use anyhow::{ensure, Result};
use tdx_seamldr_cli::drawing::{draw as draw_run, Run};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_mock::SimPlatform;
use tdx_seamldr_worlds::world::{boot, drive, new_image, old_image, update_by, Ours};

const LPS: u32 = 4;

pub(super) fn draw() -> Result<String> {
    let (old, new) = (old_image().build(), new_image().build());
    let platform = boot(SimPlatform::builder().lps(LPS), &old)?;
    let mut before = 0;
    let end = update_by(&platform, &new, &old, Policy::default(), |update| {
        before = platform.num_calls();
        drive(&platform, update, None)
    })?;
    let Ours::Ran(outcome) = end else { anyhow::bail!("the update ended so: {end:?}") };
    ensure!(outcome.is_updated(), "{outcome}");
    let (mut calls, truth) = (platform.trace(), platform.truth());
    // Addresses differ from run to run, the picture must not.
    for call in &mut calls {
        call.input.rcx = 0;
    }
    Ok(draw_run(&Run {
        id: "stages",
        calls: calls.get(before..).unwrap_or_default(),
        before: 0,
        lps: usize::try_from(LPS)?,
        tds: (truth.tds, truth.tds_alive),
        message: &outcome.to_string(),
    }))
}
