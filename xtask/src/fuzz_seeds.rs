//! `cargo xtask fuzz-seeds`: writes the first inputs of fuzzing and its earlier findings to
//! `fuzz/corpus`, in a folder for each target.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tdx_seamldr_mock::released_images;
use tdx_seamldr_worlds::fuzz::seeds::{findings, seeds};

/// The folder with the inputs of all targets.
pub(crate) fn corpus() -> PathBuf {
    crate::root().join("fuzz/corpus")
}

pub(crate) fn run() -> Result<()> {
    let crates = crate::root().join("crates");
    let released = released_images()?.unwrap_or_default();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let seeds = seeds(&crates.join("tdx-seamldr-mock/vectors"), &released)?;
    let findings = findings(&crates.join("tdx-seamldr-worlds/tests/findings"))?;
    for seed in seeds.into_iter().chain(findings) {
        let folder = corpus().join(seed.target);
        let path = folder.join(&seed.name);
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, &seed.bytes))
            .with_context(|| path.display().to_string())?;
        let count = counts.entry(seed.target).or_default();
        *count = count.saturating_add(1);
    }
    counts.iter().for_each(|(target, count)| println!("{target}: {count} inputs"));
    Ok(())
}
