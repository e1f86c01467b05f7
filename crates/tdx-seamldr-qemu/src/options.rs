//! The options of the plugin: `-plugin libtdx_seamldr_qemu.so,image=FILE,...`.

use std::path::PathBuf;

use tdx_seamldr_mock::model::{LoaderProfile, MAX_LPS};
use tdx_seamldr_mock::Fault;

use crate::fault::{fault, FaultText};
use crate::processor::{Processor, PROCESSORS};

/// The image that the BIOS has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootImage {
    /// A small one, signed with the test key.
    Test,
    /// A file.
    File(PathBuf),
}

/// What the options ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `image`.
    pub image: BootImage,
    /// `processor`; otherwise the first that the image lists.
    pub processor: Option<Processor>,
    /// `seamldr`: a generation of P-SEAMLDR; otherwise that of the image's line.
    pub seamldr: Option<LoaderProfile>,
    /// `remaining-updates`.
    pub remaining_updates: u32,
    /// `sockets`.
    pub sockets: u32,
    /// `extra-lps`: LPs that firmware counts and the guest does not have.
    pub extra_lps: u32,
    /// `tds`: TDs that run.
    pub tds: u32,
    /// `tds-in-build`.
    pub tds_in_build: u32,
    /// `tds-in-migration`: TDs with a step of migration that was interrupted.
    pub tds_in_migration: u32,
    /// `erratum`: a return from P-SEAMLDR clears the current VMCS.
    pub erratum: bool,
    /// `fault`, any number of times.
    pub faults: Vec<Fault>,
    /// `trace`: a file for a line about each SEAMCALL.
    pub trace: Option<PathBuf>,
    /// `control`: a socket to ask and to set faults.
    pub control: Option<PathBuf>,
}

/// Why options are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// An option does not exist.
    #[error("there is no option {0:?}; the options are {names}", names = names())]
    Unknown(String),
    /// An option has a wrong value.
    #[error("option {name}={value}: {expected}")]
    Value {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// An option was given before.
    #[error("option {0} is given twice")]
    Twice(&'static str),
    /// The image is missing.
    #[error(
        "option image is missing: give image=FILE, the TDX module that the BIOS has loaded, or \
         image=test"
    )]
    NoImage,
    /// LPs beyond the CPUs of the guest are possible on one socket.
    #[error(
        "option extra-lps={0}: LPs that the guest does not have are possible with sockets=1 only"
    )]
    ExtraLps(u32),
}

type Set = fn(&mut Options, &str) -> Result<(), String>;

/// Reads a number in a range.
fn number(value: &str, most: u32) -> Result<u32, String> {
    value
        .parse()
        .ok()
        .filter(|number| *number <= most)
        .ok_or_else(|| format!("a number from 0 to {most} is allowed"))
}

fn named<T: Copy>(value: &str, all: &[(&'static str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(name, _)| *name == value).map(|(_, found)| *found);
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        format!("one of {} is allowed", names.join(", "))
    })
}

fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err("the name of a file is missing".to_owned());
    }
    Ok(value.into())
}

/// The most TDs of each kind.
const MOST_TDS: u32 = 30;

/// Each option: its name, whether it can be given more than once, and what it does.
const OPTIONS: [(&str, bool, Set); 13] = [
    ("image", false, |options, value| {
        options.image =
            if value == "test" { BootImage::Test } else { BootImage::File(path(value)?) };
        Ok(())
    }),
    ("processor", false, |options, value| {
        let all = PROCESSORS.map(|processor| (processor.name, processor));
        named(value, &all).map(|processor| options.processor = Some(processor))
    }),
    ("seamldr", false, |options, value| {
        named(value, &LoaderProfile::ALL).map(|profile| options.seamldr = Some(profile))
    }),
    ("remaining-updates", false, |options, value| {
        number(value, 10_000).map(|number| options.remaining_updates = number)
    }),
    ("sockets", false, |options, value| {
        let sockets = number(value, 8).ok().filter(|sockets| *sockets != 0);
        options.sockets = sockets.ok_or_else(|| "a number from 1 to 8 is allowed".to_owned())?;
        Ok(())
    }),
    ("extra-lps", false, |options, value| {
        number(value, u32::try_from(MAX_LPS).unwrap_or(0)).map(|number| options.extra_lps = number)
    }),
    ("tds", false, |options, value| number(value, MOST_TDS).map(|number| options.tds = number)),
    ("tds-in-build", false, |options, value| {
        number(value, MOST_TDS).map(|number| options.tds_in_build = number)
    }),
    ("tds-in-migration", false, |options, value| {
        number(value, MOST_TDS).map(|number| options.tds_in_migration = number)
    }),
    ("erratum", false, |options, value| {
        named(value, &[("on", true), ("off", false)]).map(|erratum| options.erratum = erratum)
    }),
    ("fault", true, |options, value| {
        let text = FaultText::parse(value).map_err(|error| error.to_string())?;
        options.faults.push(fault(&text).map_err(|error| error.to_string())?);
        Ok(())
    }),
    ("trace", false, |options, value| path(value).map(|path| options.trace = Some(path))),
    ("control", false, |options, value| path(value).map(|path| options.control = Some(path))),
];

fn names() -> String {
    OPTIONS.map(|(name, ..)| name).join(", ")
}

impl Options {
    /// Reads the arguments that QEMU hands to the plugin, each `NAME=VALUE`.
    ///
    /// # Errors
    ///
    /// An option is wrong, given twice or missing. The error names the first one.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut options = Self {
            image: BootImage::Test,
            processor: None,
            seamldr: None,
            remaining_updates: 63,
            sockets: 1,
            extra_lps: 0,
            tds: 0,
            tds_in_build: 0,
            tds_in_migration: 0,
            erratum: false,
            faults: Vec::new(),
            trace: None,
            control: None,
        };
        let mut given = Vec::new();
        for argument in arguments {
            let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
            let Some((name, many, set)) = OPTIONS.iter().find(|(known, ..)| *known == name) else {
                return Err(OptionError::Unknown(name.to_owned()));
            };
            if given.contains(name) && !many {
                return Err(OptionError::Twice(name));
            }
            given.push(name);
            set(&mut options, value).map_err(|expected| OptionError::Value {
                name,
                value: value.to_owned(),
                expected,
            })?;
        }
        if !given.contains(&"image") {
            return Err(OptionError::NoImage);
        }
        if options.extra_lps != 0 && options.sockets != 1 {
            return Err(OptionError::ExtraLps(options.extra_lps));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tdx_seamldr_mock::Answer;

    #[test]
    fn all_options_arrive_where_they_belong() {
        let options = Options::parse([
            "image=/images/1.5.05",
            "processor=emerald-rapids",
            "seamldr=newer",
            "remaining-updates=2",
            "extra-lps=4",
            "tds=3",
            "tds-in-build=1",
            "tds-in-migration=2",
            "erratum=on",
            "fault=leaf=SEAMLDR.INSTALL:lp=2:status=EBADHASH:rdx=1",
            "fault=status=VMFAILINVALID",
            "trace=/tmp/trace",
            "control=/tmp/control",
        ]);
        let options = options.unwrap();
        assert_eq!(options.image, BootImage::File("/images/1.5.05".into()));
        assert_eq!(options.processor, Some(PROCESSORS[1]));
        assert_eq!(options.seamldr, Some(LoaderProfile::NEWER));
        assert_eq!((options.remaining_updates, options.extra_lps, options.sockets), (2, 4, 1));
        assert_eq!((options.tds, options.tds_in_build, options.tds_in_migration), (3, 1, 2));
        assert!(options.erratum);
        assert_eq!(options.faults.len(), 2);
        assert_eq!(options.faults[0].answer, Answer::Return { rax: 0x8000_0000_0002_0001, rdx: 1 });
        assert_eq!(
            (options.trace, options.control),
            (Some("/tmp/trace".into()), Some("/tmp/control".into()))
        );
    }

    #[test]
    fn without_options_there_are_defaults_but_for_the_image() {
        assert_eq!(Options::parse([]), Err(OptionError::NoImage));
        let options = Options::parse(["image=test"]).unwrap();
        assert_eq!(
            (options.image, options.remaining_updates, options.sockets),
            (BootImage::Test, 63, 1)
        );
    }

    #[test]
    fn a_wrong_option_is_named_with_its_value_and_with_what_is_allowed() {
        for (arguments, words) in [
            (&["imag=x"][..], &["\"imag\"", "the options are image, processor"][..]),
            (&["image=x", "image=y"], &["image is given twice"]),
            (&["image="], &["image=", "the name of a file is missing"]),
            (&["image=test", "tds=31"], &["tds=31", "0 to 30"]),
            (&["image=test", "tds=many"], &["tds=many", "0 to 30"]),
            (&["image=test", "sockets=0"], &["sockets=0", "1 to 8"]),
            (&["image=test", "sockets=9"], &["sockets=9", "1 to 8"]),
            (
                &["image=test", "processor=xeon"],
                &["processor=xeon", "sapphire-rapids", "sierra-forest"],
            ),
            (&["image=test", "seamldr=3"], &["seamldr=3", "1.5.00, newer, 2.0.00"]),
            (&["image=test", "erratum=1"], &["erratum=1", "on, off"]),
            (&["image=test", "fault=lp=1"], &["fault=lp=1", "status"]),
            (&["image=test", "sockets=2", "extra-lps=1"], &["extra-lps=1", "sockets=1"]),
            (&["image=test", "trace"], &["trace=", "missing"]),
        ] {
            let message = Options::parse(arguments.iter().copied()).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_read_or_refused_in_words(
            arguments in proptest::collection::vec(".{0,40}", 0..4)
        ) {
            if let Err(error) = Options::parse(arguments.iter().map(String::as_str)) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
