//! `Debug` without a panic. What is derived for structs of more than five fields, and for strings,
//! asserts something in libcore.

use core::fmt;

/// A string as it is, without quotes.
pub(crate) struct Text(pub(crate) &'static str);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Implements `Debug` as the derive does; all fields have to be named. Those that are strings come
/// in a list of their own.
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
    fn all_fields_are_shown_and_strings_have_no_quotes() {
        let example = Example { number: &7, name: "seven" };
        assert_eq!(format!("{example:?}"), "Example { number: 7, name: seven }");
    }
}
