//! `/proc/cpuinfo`: the processor of each socket.

use std::collections::BTreeMap;

use crate::host::Socket;

/// LPs that a file may have.
const MAX_LPS: u32 = 8192;

/// What `/proc/cpuinfo` says of the processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpuinfo {
    /// The processors, in the order of the sockets' numbers.
    pub sockets: Vec<Socket>,
    /// Whether all sockets have the flag `tdx_host_platform`. None: the file has no flags.
    pub tdx_flag: Option<bool>,
    /// Whether a socket has the bug `seamret_invd_vmcs`. None: the file has no bugs.
    pub erratum: Option<bool>,
}

/// A text that is no `/proc/cpuinfo` of x86.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuinfoError {
    /// The text has no LP.
    #[error("has no LP: expected lines that begin with \"processor\"")]
    NoLp,
    /// More LPs than a machine has.
    #[error("has more than {MAX_LPS} LPs")]
    TooManyLps,
    /// A value is no number.
    #[error("{name} of LP {lp} is {value:?}, expected a number below 2^32")]
    NotANumber {
        /// What the line gives.
        name: &'static str,
        /// The LP that it belongs to.
        lp: u32,
        /// The value, at most 40 characters of it.
        value: String,
    },
    /// An LP lacks a line.
    #[error("LP {lp} has no line {name:?}: expected an x86 processor")]
    Missing {
        /// What the line gives.
        name: &'static str,
        /// The LP.
        lp: u32,
    },
    /// LPs do not ascend.
    #[error("LP {next} follows LP {previous}: expected ascending numbers without repeats")]
    NotAscending {
        /// The LP before.
        previous: u32,
        /// The LP.
        next: u32,
    },
    /// LPs of a socket are different processors.
    #[error(
        "socket {socket} has two processors: LP {first_lp} with family, model and stepping {first:?}, \
         LP {lp} with {other:?}"
    )]
    Mixed {
        /// The socket.
        socket: u32,
        /// The first LP of the socket.
        first_lp: u32,
        /// Its family, model and stepping.
        first: [u32; 3],
        /// The LP that differs.
        lp: u32,
        /// Its family, model and stepping.
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

/// What is known so far.
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
    /// Reads the text. LPs without a physical id belong to socket 0, as in virtual machines. If the LPs of a socket
    /// run different microcode, the lowest counts. Flags and bugs are those of each socket's first LP.
    ///
    /// # Errors
    ///
    /// The text does not describe x86 processors, or the LPs of a socket are not alike.
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
                let has = |words: &str, wanted| words.split_ascii_whitespace().any(|word| word == wanted);
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
    let digits =
        value.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match digits.map(|digits| u32::from_str_radix(digits, 16)) {
        Some(Ok(number)) => Ok(number),
        _ => Err(not_a_number(name, lp, value)),
    }
}

fn not_a_number(name: &'static str, lp: u32, value: &str) -> CpuinfoError {
    CpuinfoError::NotANumber { name, lp, value: value.chars().take(40).collect() }
}
