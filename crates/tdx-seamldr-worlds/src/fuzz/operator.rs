//! Reads any bytes as each file that an operator provides: Intel's `mapping_file.json`, a table of
//! releases, a configuration, the record of updates, and an unknown file. Each reader returns an
//! error with a description, or consistent data.

use tdx_seamldr_host::config::Config;
use tdx_seamldr_host::examine::{examine, Verdict};
use tdx_seamldr_host::mapping::parse_mapping;
use tdx_seamldr_host::record::History;
use tdx_seamldr_host::{parse_version, Releases};

/// Takes a file for each reader.
pub fn operator_files(input: &[u8]) {
    let history = History::parse(input);
    assert!(history.attempts().len() <= history.records.len());
    let found = examine(input, &Releases::built_in());
    // Inputs are not signed with Intel's key, and the seeds contain no image of Intel's.
    assert_ne!(found.verdict, Verdict::Genuine);
    assert!(!found.to_string().is_empty());
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(version) = parse_version(text) {
        assert_eq!(parse_version(&version.to_string()), Ok(version));
    }
    for mapped in parse_mapping(text).unwrap_or_default() {
        assert!(!mapped.min_seamldr.is_empty());
    }
    if let Ok(releases) = Releases::parse(text) {
        for release in releases.all() {
            assert_eq!(releases.by_version(release.version), Some(release));
            assert_eq!(releases.by_mrseam(&release.mrseam), Some(release));
        }
    }
    if let Err(problem) = Config::parse(text) {
        assert!(!problem.is_empty());
    }
}
