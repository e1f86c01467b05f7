//! `Debug` without a panic. libcore's code for derived `Debug` of more than five fields, and for
//! strings, contains assertions.

use core::fmt;

/// A string that `Debug` prints without quotes.
pub(crate) struct Text(pub(crate) &'static str);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Implements `Debug` as the derive does. The caller names all fields; strings come in a second
/// list.
macro_rules! debug_fields {
    ($type:ident $(<$life:lifetime>)?, $($field:ident),+ $(; $($text:ident),+)?) => {
        impl $(<$life>)? core::fmt::Debug for $type $(<$life>)? {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let Self { $($field,)+ $($($text,)+)? } = self;
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($field), $field))+
                    $($(.field(stringify!($text), &$crate::debug::Text($text)))+)?
                    .finish()
            }
        }
    };
}

pub(crate) use debug_fields;

#[cfg(test)]
mod tests {
    struct Example<'a> {
        number: &'a u8,
        name: &'static str,
    }

    debug_fields! { Example<'a>, number; name }

    #[test]
    fn debug_prints_all_fields_and_strings_without_quotes() {
        let example = Example { number: &7, name: "seven" };
        assert_eq!(format!("{example:?}"), "Example { number: 7, name: seven }");
    }
}
