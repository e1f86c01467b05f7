//! `cargo xtask fuzz-seeds`: writes what fuzzing begins with to `fuzz/corpus`, a folder for each target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tdx_seamldr_mock::released_images;
use tdx_seamldr_trials::fuzz::seeds::seeds;

/// Where the inputs of all targets are.
pub(crate) fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

pub(crate) fn run() -> Result<()> {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/tdx-seamldr-mock/vectors");
    let released = released_images()?.unwrap_or_default();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in seeds(&recordings, &released)? {
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
