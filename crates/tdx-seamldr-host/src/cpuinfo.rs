//! `/proc/cpuinfo`: the processor of each socket.

use std::collections::BTreeMap;

use crate::host::Socket;

/// The most LPs in a file.
const MAX_LPS: u32 = 8192;

/// The facts of `/proc/cpuinfo` on the processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpuinfo {
    /// The processors, in the order of the sockets' numbers.
    pub sockets: Vec<Socket>,
    /// Whether all sockets have the flag `tdx_host_platform`. `None` if the file has no flags.
    pub tdx_flag: Option<bool>,
    /// Whether a socket has the bug `seamret_invd_vmcs`. `None` if the file has no bugs.
    pub erratum: Option<bool>,
}

/// A text that is not a `/proc/cpuinfo` of x86.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuinfoError {
    /// The text has no LP.
    #[error("has no LP: expected lines that begin with \"processor\"")]
    NoLp,
    /// The text has more LPs than any machine.
    #[error("has more than {MAX_LPS} LPs")]
    TooManyLps,
    /// A value is not a number.
    #[error("{name} of LP {lp} is {value:?}, expected a number below 2^32")]
    NotANumber {
        /// The name of the line.
        name: &'static str,
        /// The LP of the line.
        lp: u32,
        /// The value, cut to 40 characters.
        value: String,
    },
    /// An LP lacks a line.
    #[error("LP {lp} has no line {name:?}: expected an x86 processor")]
    Missing {
        /// The name of the line.
        name: &'static str,
        /// The LP.
        lp: u32,
    },
    /// The LPs are not in ascending order.
    #[error("LP {next} follows LP {previous}: expected ascending numbers without repeats")]
    NotAscending {
        /// The LP before.
        previous: u32,
        /// The LP.
        next: u32,
    },
    /// The LPs of a socket are different processors.
    #[error(
        "socket {socket} has two processors: LP {first_lp} with family, model and stepping \
         {first:?}, LP {lp} with {other:?}"
    )]
    Mixed {
        /// The socket.
        socket: u32,
        /// The first LP of the socket.
        first_lp: u32,
        /// Family, model and stepping of this LP.
        first: [u32; 3],
        /// The LP that differs.
        lp: u32,
        /// Family, model and stepping of this LP.
        other: [u32; 3],
    },
}

/// The lines of one LP.
#[derive(Default)]
struct Lp<'a> {
    number: u32,
    physical_id: Option<u32>,
    family: Option<u32>,
    model: Option<u32>,
    stepping: Option<u32>,
    microcode: Option<u32>,
    flags: Option<&'a str>,
    bugs: Option<&'a str>,
}

/// The facts from the lines so far.
#[derive(Default)]
struct Reader {
    /// The sockets by number, each with its first LP.
    sockets: BTreeMap<u32, (u32, Socket)>,
    lps: u32,
    previous: Option<u32>,
    tdx_flag: Option<bool>,
    erratum: Option<bool>,
}

impl Cpuinfo {
    /// Reads the text. LPs without a physical id belong to socket 0, as in virtual machines. The
    /// microcode of a socket is the lowest of its LPs. Flags and bugs come from each socket's first
    /// LP.
    ///
    /// # Errors
    ///
    /// The text does not describe x86 processors, or the LPs of a socket differ.
    pub fn parse(text: &str) -> Result<Self, CpuinfoError> {
        let mut reader = Reader::default();
        let mut lp: Option<Lp<'_>> = None;
        for line in text.split('\n') {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.trim_end() == "processor" {
                if let Some(finished) = lp.take() {
                    reader.add(&finished)?;
                }
                let previous = reader.previous.unwrap_or(0);
                lp = Some(Lp { number: decimal("processor", previous, value)?, ..Lp::default() });
            } else if let Some(lp) = &mut lp {
                lp.read(name.trim_end(), value)?;
            }
        }
        reader.add(&lp.ok_or(CpuinfoError::NoLp)?)?;
        Ok(Self {
            sockets: reader.sockets.into_values().map(|(_, socket)| socket).collect(),
            tdx_flag: reader.tdx_flag,
            erratum: reader.erratum,
        })
    }
}

impl<'a> Lp<'a> {
    fn read(&mut self, name: &str, value: &'a str) -> Result<(), CpuinfoError> {
        let lp = self.number;
        match name {
            "physical id" => self.physical_id = Some(decimal("physical id", lp, value)?),
            "cpu family" => self.family = Some(decimal("cpu family", lp, value)?),
            "model" => self.model = Some(decimal("model", lp, value)?),
            "stepping" => self.stepping = Some(decimal("stepping", lp, value)?),
            "microcode" => self.microcode = Some(hexadecimal("microcode", lp, value)?),
            "flags" => self.flags = Some(value),
            "bugs" => self.bugs = Some(value),
            _ => {}
        }
        Ok(())
    }
}

impl Reader {
    fn add(&mut self, lp: &Lp<'_>) -> Result<(), CpuinfoError> {
        let next = lp.number;
        if let Some(previous) = self.previous.filter(|previous| *previous >= next) {
            return Err(CpuinfoError::NotAscending { previous, next });
        }
        self.previous = Some(next);
        self.lps = self.lps.saturating_add(1);
        if self.lps > MAX_LPS {
            return Err(CpuinfoError::TooManyLps);
        }
        let need = |value: Option<u32>, name| value.ok_or(CpuinfoError::Missing { name, lp: next });
        let family = need(lp.family, "cpu family")?;
        let model = need(lp.model, "model")?;
        let stepping = need(lp.stepping, "stepping")?;
        let id = lp.physical_id.unwrap_or(0);
        match self.sockets.get_mut(&id) {
            Some((first_lp, socket)) => {
                let first = [socket.family, socket.model, socket.stepping];
                let other = [family, model, stepping];
                if first != other {
                    return Err(CpuinfoError::Mixed {
                        socket: id,
                        first_lp: *first_lp,
                        first,
                        lp: next,
                        other,
                    });
                }
                socket.microcode = [socket.microcode, lp.microcode].into_iter().flatten().min();
                socket.online_lps = socket.online_lps.saturating_add(1);
            }
            None => {
                let microcode = lp.microcode;
                let socket = Socket { id, family, model, stepping, microcode, online_lps: 1 };
                self.sockets.insert(id, (next, socket));
                let has =
                    |words: &str, wanted| words.split_ascii_whitespace().any(|word| word == wanted);
                if let Some(flags) = lp.flags {
                    let has_tdx = has(flags, "tdx_host_platform");
                    self.tdx_flag = Some(self.tdx_flag.unwrap_or(true) && has_tdx);
                }
                if let Some(bugs) = lp.bugs {
                    let has_erratum = has(bugs, "seamret_invd_vmcs");
                    self.erratum = Some(self.erratum.unwrap_or(false) || has_erratum);
                }
            }
        }
        Ok(())
    }
}

fn decimal(name: &'static str, lp: u32, value: &str) -> Result<u32, CpuinfoError> {
    match value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse()) {
        Some(Ok(number)) => Ok(number),
        _ => Err(not_a_number(name, lp, value)),
    }
}

fn hexadecimal(name: &'static str, lp: u32, value: &str) -> Result<u32, CpuinfoError> {
    let digits = value
        .strip_prefix("0x")
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match digits.map(|digits| u32::from_str_radix(digits, 16)) {
        Some(Ok(number)) => Ok(number),
        _ => Err(not_a_number(name, lp, value)),
    }
}

fn not_a_number(name: &'static str, lp: u32, value: &str) -> CpuinfoError {
    CpuinfoError::NotANumber { name, lp, value: value.chars().take(40).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of an LP with these lines after them.
    fn lp(number: u32, more: &str) -> String {
        format!("processor\t: {number}\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: 8\n{more}\n\n")
    }

    fn parse(lps: &[String]) -> Result<Cpuinfo, CpuinfoError> {
        Cpuinfo::parse(&lps.concat())
    }

    fn socket(id: u32, microcode: Option<u32>, online_lps: u32) -> Socket {
        Socket { id, family: 6, model: 143, stepping: 8, microcode, online_lps }
    }

    #[test]
    fn lps_are_counted_for_each_socket() {
        let lps = [lp(0, "physical id\t: 1"), lp(2, "physical id\t: 0"), lp(5, "physical id\t: 1")];
        assert_eq!(parse(&lps).unwrap().sockets, [socket(0, None, 1), socket(1, None, 2)]);
    }

    #[test]
    fn lp_without_physical_id_belongs_to_socket_0() {
        assert_eq!(parse(&[lp(0, ""), lp(1, "")]).unwrap().sockets, [socket(0, None, 2)]);
    }

    #[test]
    fn lowest_microcode_of_a_socket_counts() {
        let lps = [lp(0, "microcode\t: 0x2b000603"), lp(1, "microcode\t: 0x2b000590"), lp(2, "")];
        assert_eq!(parse(&lps).unwrap().sockets, [socket(0, Some(0x2b000590), 3)]);
    }

    #[test]
    fn flag_counts_on_all_sockets_and_bug_on_any() {
        let with = |id: u32, flags: &str, bugs: &str| {
            lp(id, &format!("physical id\t: {id}\nflags\t\t: {flags}\nbugs\t\t: {bugs}"))
        };
        let tdx = "fpu tdx_host_platform vmx";
        for (lps, tdx_flag, erratum) in [
            ([with(0, tdx, ""), with(1, tdx, "x")], true, false),
            ([with(0, tdx, ""), with(1, "fpu", "seamret_invd_vmcs")], false, true),
            ([with(0, "xtdx_host_platform", "seamret_invd_vmcs"), with(1, tdx, "")], false, true),
            ([with(0, tdx, "seamret_invd_vmcs2"), with(1, tdx, "")], true, false),
        ] {
            let cpuinfo = parse(&lps).unwrap();
            assert_eq!(
                (cpuinfo.tdx_flag, cpuinfo.erratum),
                (Some(tdx_flag), Some(erratum)),
                "{lps:?}"
            );
        }
        let cpuinfo = parse(&[lp(0, "vmx flags\t: tdx_host_platform")]).unwrap();
        assert_eq!((cpuinfo.tdx_flag, cpuinfo.erratum), (None, None));
    }

    #[test]
    fn different_lps_of_a_socket_are_named() {
        let other = lp(3, "").replace("stepping\t: 8", "stepping\t: 7");
        let (first, other) = ([6, 143, 8], parse(&[lp(1, ""), other]).unwrap_err());
        assert_eq!(
            other,
            CpuinfoError::Mixed { socket: 0, first_lp: 1, first, lp: 3, other: [6, 143, 7] }
        );
        assert!(other.to_string().contains("[6, 143, 8], LP 3 with [6, 143, 7]"), "{other}");
    }

    #[test]
    fn text_without_x86_processors_is_refused() {
        assert_eq!(Cpuinfo::parse(""), Err(CpuinfoError::NoLp));
        assert_eq!(Cpuinfo::parse("Features : fp asimd\n"), Err(CpuinfoError::NoLp));
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n";
        assert_eq!(Cpuinfo::parse(arm), Err(CpuinfoError::Missing { name: "cpu family", lp: 0 }));
    }

    #[test]
    fn value_that_is_not_a_number_is_named() {
        let wrong = |name, value: &str| {
            Err(CpuinfoError::NotANumber { name, lp: 4, value: value.chars().take(40).collect() })
        };
        assert_eq!(parse(&[lp(4, "physical id\t: -1")]), wrong("physical id", "-1"));
        assert_eq!(
            parse(&[lp(4, "physical id\t: 4294967296")]),
            wrong("physical id", "4294967296")
        );
        assert_eq!(parse(&[lp(4, "model\t: +1")]), wrong("model", "+1"));
        assert_eq!(parse(&[lp(4, "stepping\t:")]), wrong("stepping", ""));
        assert_eq!(parse(&[lp(4, "microcode\t: 43")]), wrong("microcode", "43"));
        assert_eq!(parse(&[lp(4, "microcode\t: 0x")]), wrong("microcode", "0x"));
        let long = "9".repeat(5000);
        assert_eq!(parse(&[lp(4, &format!("cpu family\t: {long}"))]), wrong("cpu family", &long));
    }

    #[test]
    fn lps_that_do_not_ascend_are_refused() {
        for (previous, next) in [(1, 1), (2, 0)] {
            let found = parse(&[lp(previous, ""), lp(next, "")]);
            assert_eq!(found, Err(CpuinfoError::NotAscending { previous, next }));
        }
    }

    #[test]
    fn more_lps_than_the_limit_are_refused() {
        let lps: Vec<String> = (0..=MAX_LPS).map(|number| lp(number, "")).collect();
        assert_eq!(parse(&lps), Err(CpuinfoError::TooManyLps));
        assert_eq!(parse(&lps[1..]).unwrap().sockets, [socket(0, None, MAX_LPS)]);
    }

    proptest! {
        #[test]
        fn sockets_keep_their_values(
            sockets in proptest::collection::btree_map(any::<u32>(), any::<[u32; 4]>(), 1..5),
        ) {
            let mut text = String::new();
            let mut expected = Vec::new();
            for (number, (id, [family, model, stepping,
                microcode])) in sockets.into_iter().enumerate() {
                text += &format!(
                    "processor: {number}\nphysical id: {id}\ncpu family: {family}\nmodel: {model}\n\
                     stepping: {stepping}\nmicrocode: {microcode:#x}\n\n",
                );
                expected.push(Socket { id, family, model, stepping, microcode: Some(microcode),
                    online_lps: 1 });
            }
            prop_assert_eq!(Cpuinfo::parse(&text).unwrap().sockets, expected);
        }

        #[test]
        fn any_lines_are_read_or_refused(
            text in "((processor|physical id|cpu family|model|stepping|microcode|flags)\t?:? ?[0-9x]{0,3}\n){0,12}",
        ) {
            if let Ok(cpuinfo) = Cpuinfo::parse(&text) {
                prop_assert!(!cpuinfo.sockets.is_empty());
            }
        }
    }
}
