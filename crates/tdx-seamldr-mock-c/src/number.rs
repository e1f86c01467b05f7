//! Numbers of C that stand for something: looked up, never believed.

use crate::status::Failure;

/// An `enum` of C, as a parameter or a field: any number can be in it.
pub(crate) trait Enumeration: Copy + Sized + 'static {
    /// Its name in C.
    const NAME: &'static str;
    /// All of its values.
    const ALL: &'static [Self];

    /// The number that C sees.
    fn number_of(self) -> u32;

    /// The value with a number.
    fn of_number(number: u32) -> Result<Self, Failure> {
        Self::ALL.iter().copied().find(|value| value.number_of() == number).ok_or_else(|| {
            let known: Vec<_> =
                Self::ALL.iter().map(|value| value.number_of().to_string()).collect();
            Failure::argument(format!(
                "{number} is no {}; there are {}",
                Self::NAME,
                known.join(", ")
            ))
        })
    }
}

/// Says what an `enum` of C has, and gives its numbers to callers in Rust.
macro_rules! enumeration {
    ($type:ident, $name:literal, [$($variant:ident),* $(,)?]) => {
        impl $type {
            /// The number that C sees.
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

/// A `bool` of C, which may be any byte.
pub type TdxSimBool = u8;

/// What a `bool` of C says.
pub(crate) fn flag(value: TdxSimBool, name: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::argument(format!("{name} is {other}, but should be 0 or 1"))),
    }
}
