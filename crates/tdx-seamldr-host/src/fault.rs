//! Faults of the simulated platform as people write them: in options, and in JSON.

use serde::{Deserialize, Serialize};
use tdx_seamldr_core::abi::TdxStatus;
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::{Answer, Fault};

use crate::explain::{Leaf, NotALeaf, NotAWord, Word};

/// A number in JSON or in text, or a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NumberOrName {
    /// A number.
    Number(u64),
    /// A name, or a number with `0x`.
    Name(String),
}

impl NumberOrName {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

/// A fault as text. Without a part it means: any LP, any leaf, the first call, once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultText {
    /// A leaf of P-SEAMLDR or the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf: Option<NumberOrName>,
    /// The LP that makes the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lp: Option<u32>,
    /// The number of matching calls that pass before the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// The number of matching calls that fail then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The answer in RAX, or the trap: VMFAILINVALID, GP or UD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<NumberOrName>,
    /// The answer in RDX. Used only with a status that is not a trap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdx: Option<u64>,
    /// The call returns after this number of other calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<u32>,
}

/// Why a text is not a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// A part is not `NAME=VALUE`, or has an unknown name.
    #[error(
        "{0:?} is no part of a fault: leaf, lp, after, times, status, rdx and delay are, as in \
         leaf=SEAMLDR.INSTALL:lp=2:status=EBADHASH:rdx=1"
    )]
    Part(String),
    /// The value of a part is not a number, or is too large.
    #[error("{name}={value}: expected a decimal number of 32 bits (rdx: 64 bits)")]
    Number {
        /// The part.
        name: String,
        /// The value.
        value: String,
    },
    /// The leaf is neither a known name nor a number.
    #[error(transparent)]
    Leaf(#[from] NotALeaf),
    /// The status is neither a known name nor a number.
    #[error(transparent)]
    Status(#[from] NotAWord),
    /// The status is a Linux error number.
    #[error("status={0} is an error number of Linux; firmware returns none")]
    Errno(String),
    /// The fault has neither a status nor a delay, or it has both.
    #[error("a fault has either a status or a delay")]
    Answer,
    /// The fault sets RDX, but no status that firmware returns.
    #[error("rdx goes only with a status that firmware returns, not with a trap or a delay")]
    Rdx,
    /// The fault strikes no call.
    #[error("times=0: the fault strikes no call")]
    Never,
}

/// Returns the RAX of calls to a leaf. A fault compares all of RAX.
fn rax_of(leaf: Leaf) -> u64 {
    match leaf {
        Leaf::Seamldr(leaf) => leaf.rax(),
        Leaf::Tdx(leaf) => leaf.rax(0),
        Leaf::UnknownSeamldr(rax) => rax,
    }
}

impl FaultText {
    /// Reads parts `NAME=VALUE` with colons between them.
    ///
    /// # Errors
    ///
    /// A part has an unknown name or a wrong value.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        let mut fault = Self::default();
        for part in text.split(':') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| FaultError::Part(part.to_owned()))?;
            let wrong = || FaultError::Number { name: name.to_owned(), value: value.to_owned() };
            let number = || value.parse().map(Some).map_err(|_| wrong());
            let named = Some(NumberOrName::Name(value.to_owned()));
            match name {
                "leaf" => fault.leaf = named,
                "status" => fault.status = named,
                "lp" => fault.lp = number()?,
                "after" => fault.after = number()?,
                "times" => fault.times = number()?,
                "delay" => fault.delay = number()?,
                "rdx" => fault.rdx = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(FaultError::Part(part.to_owned())),
            }
        }
        Ok(fault)
    }

    /// Returns the fault for the model.
    ///
    /// # Errors
    ///
    /// A leaf or status is unknown, the answer is missing or ambiguous, RDX comes without a
    /// returned status, or `times` is 0.
    pub fn fault(&self) -> Result<Fault, FaultError> {
        let leaf = self.leaf.as_ref().map(|leaf| Leaf::parse(&leaf.text())).transpose()?;
        let answer = match (&self.status, self.delay) {
            (Some(status), None) => self.answer(&status.text())?,
            (None, Some(_)) if self.rdx.is_some() => return Err(FaultError::Rdx),
            (None, Some(calls)) => Answer::Delay(calls),
            _ => return Err(FaultError::Answer),
        };
        let times = self.times.unwrap_or(1);
        if times == 0 {
            return Err(FaultError::Never);
        }
        let after = self.after.unwrap_or(0);
        Ok(Fault { lp: self.lp, rax: leaf.map(rax_of), after, times, answer })
    }

    fn answer(&self, status: &str) -> Result<Answer, FaultError> {
        // The shortest names that people give to the traps.
        let status = match status.to_ascii_uppercase().as_str() {
            "UD" => Trap::UndefinedOpcode.status().0,
            "GP" => Trap::GeneralProtection.status().0,
            _ => match Word::parse(status)? {
                Word::Status(status) => status,
                Word::Errno(_) => return Err(FaultError::Errno(status.to_owned())),
            },
        };
        match Trap::from_status(TdxStatus(status)) {
            Some(_) if self.rdx.is_some() => Err(FaultError::Rdx),
            Some(trap) => Ok(Answer::Trap(trap)),
            None => Ok(Answer::Return { rax: status, rdx: self.rdx.unwrap_or(0) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Result<Fault, FaultError> {
        FaultText::parse(text)?.fault()
    }

    #[test]
    fn parts_that_are_missing_mean_any() {
        let expected = Fault { lp: None, rax: None, after: 0, times: 1, answer: Answer::Delay(3) };
        assert_eq!(fault("delay=3"), Ok(expected));
    }

    #[test]
    fn text_and_json_say_the_same() {
        let text = fault("leaf=TDH.SYS.LP.INIT:lp=1:after=2:times=3:status=SYS_BUSY");
        let expected = Answer::Return { rax: 0x8000_0202_0000_0000, rdx: 0 };
        assert_eq!(
            text,
            Ok(Fault { lp: Some(1), rax: Some(35), after: 2, times: 3, answer: expected })
        );
        let json = r#"{"leaf":35,"lp":1,"after":2,"times":3,"status":9223374244467965952}"#;
        assert_eq!(serde_json::from_str::<FaultText>(json).unwrap().fault(), text);
        let json = r#"{"leaf":"0x8000000000000001","status":"0x8000000000020000"}"#;
        let install = serde_json::from_str::<FaultText>(json).unwrap().fault();
        assert_eq!(install, fault("leaf=seamldr.install:status=EBADSIG"));
        assert!(serde_json::from_str::<FaultText>(r#"{"leef":1}"#).is_err());
    }

    #[test]
    fn traps_are_named_like_statuses() {
        assert_eq!(
            fault("status=vmfailinvalid").unwrap().answer,
            Answer::Trap(Trap::VmFailInvalid)
        );
        assert_eq!(fault("status=ud").unwrap().answer, Answer::Trap(Trap::UndefinedOpcode));
        let trap = Answer::Trap(Trap::GeneralProtection);
        for text in ["status=gp", "status=0x8000FF000000000D"] {
            assert_eq!(fault(text).unwrap().answer, trap);
        }
    }

    #[test]
    fn a_fault_that_cannot_be_says_why() {
        for (text, words) in [
            ("", "no part of a fault"),
            ("lp", "no part of a fault"),
            ("cpu=1", "no part of a fault"),
            ("lp=x:delay=1", "lp=x"),
            ("lp=1", "either a status or a delay"),
            ("status=EBADSIG:delay=1", "either a status or a delay"),
            ("status=EBADSIG:times=0", "strikes no call"),
            ("delay=1:rdx=1", "rdx goes only with a status"),
            ("status=UD:rdx=1", "rdx goes only with a status"),
            ("status=EIO", "error number of Linux"),
            ("status=EBAD", "EBADSIG"),
            ("leaf=SEAMLDR.UPDATE:delay=1", "is not a leaf"),
        ] {
            let message = fault(text).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
