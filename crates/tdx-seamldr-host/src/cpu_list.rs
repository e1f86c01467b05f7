//! Sets of LPs in the kernel's form, such as `0-3,8`.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// One more than the highest LP number. Linux supports far fewer LPs.
const END: u32 = 1 << 20;

/// A set of LPs in the kernel's form: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList {
    /// Ranges (first and last LP), ascending and not adjacent.
    ranges: Vec<(u32, u32)>,
}

/// A text that is not a set of LPs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    /// A part of the text is neither a number nor a range.
    #[error("{part:?} is neither the number of an LP nor a range, as in 0-3,8")]
    NotARange {
        /// The part, cut to 40 characters.
        part: String,
    },
    /// A number is too high.
    #[error("LP {number} is above {}", END - 1)]
    TooHigh {
        /// The number.
        number: u32,
    },
    /// A range ends before it begins.
    #[error("the range {first}-{last} ends before it begins")]
    Reversed {
        /// The first number.
        first: u32,
        /// The last number.
        last: u32,
    },
    /// A range does not begin after the range before it.
    #[error("{next} follows {previous}: expected ascending numbers without repeats")]
    NotAscending {
        /// The last LP of the range before.
        previous: u32,
        /// The first LP of the range.
        next: u32,
    },
}

impl CpuList {
    /// Reads a list. An empty text is the empty set.
    ///
    /// # Errors
    ///
    /// The text does not have the kernel's form: ascending numbers and ranges below 2^20, separated
    /// by commas.
    pub fn parse(text: &str) -> Result<Self, CpuListError> {
        let mut list = Self::default();
        if text.is_empty() {
            return Ok(list);
        }
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first, part)?, number(last, part)?),
                None => (number(part, part)?, number(part, part)?),
            };
            if let Some(number) = [first, last].into_iter().find(|number| *number >= END) {
                return Err(CpuListError::TooHigh { number });
            }
            if first > last {
                return Err(CpuListError::Reversed { first, last });
            }
            if let Some((_, previous)) =
                list.ranges.last().filter(|(_, previous)| *previous >= first)
            {
                return Err(CpuListError::NotAscending { previous: *previous, next: first });
            }
            list.push(first, last);
        }
        Ok(list)
    }

    /// Appends a range that begins after all others.
    fn push(&mut self, first: u32, last: u32) {
        match self.ranges.last_mut() {
            Some((_, end)) if end.saturating_add(1) >= first => *end = last,
            _ => self.ranges.push((first, last)),
        }
    }

    /// Returns how many LPs the set has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.ranges
            .iter()
            .map(|(first, last)| last.saturating_sub(*first).saturating_add(1))
            .fold(0, u32::saturating_add)
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the lowest LP.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// Whether the set contains this LP.
    #[must_use]
    pub fn contains(&self, lp: u32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&lp))
    }

    /// Returns the LPs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Returns the LPs of this set that the other set does not have.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::default();
        let mut others = other.ranges.iter().peekable();
        for &(first, last) in &self.ranges {
            let mut next = first;
            while let Some((other_first, other_last)) = others.peek() {
                if *other_first > last {
                    break;
                }
                if *other_first > next {
                    left.push(next, other_first.saturating_sub(1));
                }
                next = next.max(other_last.saturating_add(1));
                if *other_last > last {
                    break;
                }
                others.next();
            }
            if next <= last {
                left.push(next, last);
            }
        }
        left
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(lps: I) -> Self {
        let mut lps: Vec<u32> = lps.into_iter().collect();
        lps.sort_unstable();
        let mut list = Self::default();
        for lp in lps {
            list.push(lp, lp);
        }
        list
    }
}

fn number(text: &str, part: &str) -> Result<u32, CpuListError> {
    let wrong = || CpuListError::NotARange { part: part.chars().take(40).collect() };
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| wrong()),
        false => Err(wrong()),
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_struct("CpuList", 2)?;
        list.serialize_field("list", &self.to_string())?;
        list.serialize_field("count", &self.len())?;
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn list_is_read_and_written_as_the_kernel_writes_it() {
        for (text, len) in [("", 0), ("0", 1), ("0-3,8", 5), ("1,3,5-7", 5), ("0-1048575", 1 << 20)]
        {
            let list = CpuList::parse(text).unwrap();
            assert_eq!((list.to_string().as_str(), list.len()), (text, len));
            assert_eq!(list.is_empty(), len == 0);
        }
    }

    #[test]
    fn adjacent_ranges_are_one() {
        assert_eq!(CpuList::parse("0-3,4,5-6").unwrap().to_string(), "0-6");
    }

    #[test]
    fn list_in_another_form_is_refused() {
        let not_a_range = |part: &str| CpuListError::NotARange { part: part.to_owned() };
        for (text, error) in [
            (",", not_a_range("")),
            ("0,", not_a_range("")),
            ("0-", not_a_range("0-")),
            ("-3", not_a_range("-3")),
            ("0-1-2", not_a_range("0-1-2")),
            ("+1", not_a_range("+1")),
            ("0 -1", not_a_range("0 -1")),
            ("0\n", not_a_range("0\n")),
            ("99999999999", not_a_range("99999999999")),
            ("1048576", CpuListError::TooHigh { number: 1 << 20 }),
            ("0-4294967295", CpuListError::TooHigh { number: u32::MAX }),
            ("3-2", CpuListError::Reversed { first: 3, last: 2 }),
            ("0-3,3", CpuListError::NotAscending { previous: 3, next: 3 }),
            ("8,1", CpuListError::NotAscending { previous: 8, next: 1 }),
        ] {
            assert_eq!(CpuList::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn difference_names_the_offline_lps() {
        let difference = |present: &str, online: &str| {
            CpuList::parse(present)
                .unwrap()
                .difference(&CpuList::parse(online).unwrap())
                .to_string()
        };
        assert_eq!(difference("0-7", "0-7"), "");
        assert_eq!(difference("0-7", "0,2,4,6"), "1,3,5,7");
        assert_eq!(difference("0-7", ""), "0-7");
        assert_eq!(difference("0-3,8-11", "2-9"), "0-1,10-11");
        assert_eq!(difference("", "0-7"), "");
    }

    proptest! {
        #[test]
        fn list_is_the_set_of_its_numbers(
            left: BTreeSet<u8>,
            right: BTreeSet<u8>,
        ) {
            let list = |set: &BTreeSet<u8>| set.iter().map(
                |lp| u32::from(*lp)).collect::<CpuList>();
            let (a, b) = (list(&left), list(&right));
            prop_assert_eq!(&CpuList::parse(&a.to_string()).unwrap(), &a);
            prop_assert_eq!(a.iter().collect::<Vec<_>>(), left.iter().map(
                |lp| u32::from(*lp)).collect::<Vec<_>>());
            prop_assert_eq!(a.difference(&b), list(&left.difference(&right).copied().collect()));
            prop_assert!((0..256).all(|lp| a.contains(lp)
                == left.contains(&u8::try_from(lp).unwrap())));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,\\- ]{0,24}") {
            if let Ok(list) = CpuList::parse(&text) {
                prop_assert_eq!(CpuList::parse(&list.to_string()), Ok(list));
            }
        }
    }
}
