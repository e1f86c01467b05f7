//! Reads versions such as "1.5.05".

use tdx_seamldr_core::TdxVersion;

/// A text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a version: expected three numbers from 0 to 65535, as in 1.5.05")]
pub struct NotAVersion {
    /// The text, cut to 40 characters.
    pub found: String,
}

/// Reads the version of a TDX module or a P-SEAMLDR: three decimal numbers, such as `1.5.05` or
/// `1.5.5`.
///
/// # Errors
///
/// The text is not a version.
pub fn parse_version(text: &str) -> Result<TdxVersion, NotAVersion> {
    let wrong = || NotAVersion { found: text.chars().take(40).collect() };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let mut numbers = text.split('.');
    let (Some(major), Some(minor), Some(update), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(wrong());
    };
    Ok(TdxVersion { major: number(major)?, minor: number(minor)?, update: number(update)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_decimal_numbers() {
        let version = |major, minor, update| Ok(TdxVersion { major, minor, update });
        assert_eq!(parse_version("1.5.05"), version(1, 5, 5));
        assert_eq!(parse_version("1.5.5"), version(1, 5, 5));
        assert_eq!(parse_version("65535.0.00"), version(65535, 0, 0));
        for wrong in [
            "",
            "1",
            "1.5",
            "1.5.",
            "1.5.5.5",
            "1.5.+5",
            "1.5.-5",
            "1.5. 5",
            "1.5.65536",
            "a.b.c",
            "1.5.0x5",
        ] {
            assert!(parse_version(wrong).is_err(), "{wrong}");
        }
        let long = "9".repeat(1000);
        assert_eq!(parse_version(&long).unwrap_err().found.len(), 40);
    }
}
