//! Numbers from C that stand for an enumeration or a `bool`, with their checks.

use crate::status::Failure;

/// An `enum` of C as a parameter or a field. C can pass any number.
pub(crate) trait Enumeration: Copy + Sized + 'static {
    /// Name in C.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];

    /// Returns the number in C.
    fn number_of(self) -> u32;

    /// Returns the value of a number.
    fn of_number(number: u32) -> Result<Self, Failure> {
        Self::ALL.iter().copied().find(|value| value.number_of() == number).ok_or_else(|| {
            let known: Vec<_> =
                Self::ALL.iter().map(|value| value.number_of().to_string()).collect();
            Failure::argument(format!(
                "{number} is not a {}; the values are {}",
                Self::NAME,
                known.join(", ")
            ))
        })
    }
}

/// Declares the values of an `enum` of C, and gives their numbers to callers in Rust.
macro_rules! enumeration {
    ($type:ident, $name:literal, [$($variant:ident),* $(,)?]) => {
        impl $type {
            /// Returns the number in C.
            #[must_use]
            #[allow(clippy::as_conversions)] // the discriminant of an enum of C
            pub const fn number(self) -> u32 {
                self as u32
            }
        }

        impl crate::number::Enumeration for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn number_of(self) -> u32 {
                self.number()
            }
        }
    };
}
pub(crate) use enumeration;

/// A `bool` from C, which may be any byte.
pub type TdxSimBool = u8;

/// Returns the value of a `bool`.
pub(crate) fn flag(value: TdxSimBool, name: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::argument(format!("{name} is {other}, but should be 0 or 1"))),
    }
}
