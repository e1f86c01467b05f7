//! Intel's `mapping_file.json`: the oldest running module and the oldest P-SEAMLDR for each
//! release.

use serde::Deserialize;
use tdx_seamldr_core::abi::TdxFeatures0;
use tdx_seamldr_core::TdxVersion;

use crate::releases::{hex, version};

/// The file's entry for a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedRelease {
    /// The release.
    pub version: TdxVersion,
    /// The oldest running module that may be updated to the release.
    pub min_module: TdxVersion,
    /// The oldest P-SEAMLDR of each line that the release needs.
    pub min_seamldr: Vec<TdxVersion>,
    /// TDX_FEATURES0 of the release.
    pub features0: TdxFeatures0,
}

/// Why a `mapping_file.json` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The text is not JSON, or does not have the expected form.
    #[error("expected a JSON object with \"tdx_module_releases\": {0}")]
    Json(#[from] serde_json::Error),
    /// A release has a wrong value.
    #[error("release {number}: {problem}")]
    Release {
        /// The release's position in the list, from 1.
        number: usize,
        /// What was found and what was expected.
        problem: String,
    },
}

#[derive(Deserialize)]
struct File {
    tdx_module_releases: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    version: String,
    min_module_version_for_td_preserving: String,
    min_seamldr_versions: Vec<String>,
    tdx_feature0: String,
}

/// Reads the text of a `mapping_file.json`. Ignores all other members.
///
/// # Errors
///
/// The text is not JSON of this form, a value is wrong, or a release occurs twice.
pub fn parse_mapping(text: &str) -> Result<Vec<MappedRelease>, MappingError> {
    let file: File = serde_json::from_str(text)?;
    let mut releases: Vec<MappedRelease> = Vec::new();
    for (number, entry) in (1..).zip(&file.tdx_module_releases) {
        let wrong = |problem| MappingError::Release { number, problem };
        let release = entry.release().map_err(wrong)?;
        if releases.iter().any(|known| known.version == release.version) {
            return Err(wrong(format!("{} occurs twice", release.version)));
        }
        releases.push(release);
    }
    Ok(releases)
}

impl Entry {
    fn release(&self) -> Result<MappedRelease, String> {
        if self.min_seamldr_versions.is_empty() {
            return Err(
                "min_seamldr_versions is empty, but should have at least one version".into()
            );
        }
        Ok(MappedRelease {
            version: version(&self.version)?,
            min_module: version(&self.min_module_version_for_td_preserving)?,
            min_seamldr: self
                .min_seamldr_versions
                .iter()
                .map(|text| version(text))
                .collect::<Result<_, _>>()?,
            features0: TdxFeatures0::from_bits_retain(hex(&self.tdx_feature0)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"Header": {}, "tdx_module_releases": [{"version": "1.5.05",
        "min_module_version_for_td_preserving": "1.5.01", "min_seamldr_versions": ["1.5.00", "2.0.00"], "tdx_feature0": "0x61F0FBF"}]}"#;

    #[test]
    fn release_has_its_minimums_and_features() {
        let [release] = parse_mapping(GOOD).unwrap().try_into().unwrap();
        assert_eq!(release.version.to_string(), "1.5.05");
        assert_eq!(release.min_module.to_string(), "1.5.01");
        assert_eq!(release.min_seamldr.len(), 2);
        assert_eq!(release.features0.bits(), 0x61f_0fbf);
    }

    #[test]
    fn wrong_file_is_refused_with_its_fault() {
        let changes = [
            ("{\"Header\"", "[\"Header\"", "expected a JSON object"),
            ("tdx_module_releases", "releases", "missing field `tdx_module_releases`"),
            ("\"1.5.05\"", "\"1.5\"", "release 1: \"1.5\" is not a version"),
            ("\"1.5.05\"", "15", "invalid type"),
            ("[\"1.5.00\", \"2.0.00\"]", "[]", "min_seamldr_versions is empty"),
            ("0x61F0FBF", "61F0FBF", "expected hexadecimal digits after 0x"),
            ("0x61F0FBF", "0x11112222333344445", "is not a number"),
        ];
        for (from, to, message) in changes {
            let error = parse_mapping(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        let entry = GOOD.split_once('[').unwrap().1.strip_suffix("]}").unwrap();
        let error = parse_mapping(&GOOD.replace(entry, &format!("{entry},{entry}"))).unwrap_err();
        assert_eq!(error.to_string(), "release 2: 1.5.05 occurs twice");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,400}", at in 0..GOOD.len()) {
            let _ = parse_mapping(&text);
            let (head, tail) = GOOD.split_at(at);
            let _ = parse_mapping(&format!("{head}{text}{tail}"));
        }
    }
}
