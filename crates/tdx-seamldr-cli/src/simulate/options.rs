//! The options of `simulate` that are more than numbers, and which of them go together.

use tdx_seamldr_host::fault::FaultText;
use tdx_seamldr_host::Platform;
use tdx_seamldr_mock::model::{LoaderProfile, MAX_FAULTS, MAX_TDS};
use tdx_seamldr_mock::Fault;

/// The end of the help.
pub(super) const EXAMPLES: &str = "\
A fault has parts with colons between them:
  leaf=NAME       a SEAMCALL leaf, as a name or a number; otherwise any
  lp=N            on this LP only
  after=N         N such calls pass before
  times=N         N such calls go wrong; otherwise 1
  status=WORD     what the call returns: a name, a number, VMFAILINVALID, GP, UD
  rdx=N           what it returns in RDX; 1 says that P-SEAMLDR destroyed the
                  old module
  delay=N         in place of status: the call returns after N other calls
Faults strike the calls of the update, not those of preflight.

Examples:
  An LP is offline, or no update remains: preflight refuses.
    tdx-seamldr simulate --offline 3
    tdx-seamldr simulate --remaining 0
  The processor is not in the list of the new image.
    tdx-seamldr simulate --cpu granite-rapids
  A call fails once; the update tries again.
    tdx-seamldr simulate --fault leaf=SEAMLDR.INSTALL:status=ENOENTROPY
  P-SEAMLDR refuses the new image; the old module comes back.
    tdx-seamldr simulate --fault leaf=SEAMLDR.INSTALL:status=EBADHASH
  P-SEAMLDR destroys the old module: no software can keep the TDs.
    tdx-seamldr simulate --fault leaf=SEAMLDR.INSTALL:status=EUNSPECERR:rdx=1

Exit status:
  0  updated
  1  refused: nothing was touched
  2  wrong usage
  3  failed: the TDs run, under the module that ran before
  4  failed: the TDs are paused or lost, or their fate is unknown";

/// A planned fault with its text.
#[derive(Clone, Debug)]
pub(super) struct NamedFault {
    pub(super) text: String,
    pub(super) fault: Fault,
}

/// Reads a fault.
pub(super) fn fault(text: &str) -> Result<NamedFault, String> {
    let fault = FaultText::parse(text).and_then(|parsed| parsed.fault());
    let fault = fault.map_err(|error| error.to_string())?;
    Ok(NamedFault { text: text.to_owned(), fault })
}

/// Reads a processor: CPUID.1:EAX in hexadecimal, or the code or name of a platform.
pub(super) fn cpu(text: &str) -> Result<u32, String> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16)
            .map_err(|_| "expected CPUID.1:EAX as 0x and up to 8 hexadecimal digits".to_owned());
    }
    let name = text.replace(['-', '_'], " ");
    let is_named = |platform: &Platform| {
        name.eq_ignore_ascii_case(platform.name()) || name.eq_ignore_ascii_case(platform.code())
    };
    let found = Platform::ALL.into_iter().find(is_named);
    found.map(Platform::processor).ok_or_else(|| {
        let names = Platform::ALL.map(|one| one.name().to_ascii_lowercase().replace(' ', "-"));
        format!("expected CPUID.1:EAX such as 0x806f8, or one of {}", names.join(", "))
    })
}

/// Reads a generation of P-SEAMLDR.
pub(super) fn seamldr(text: &str) -> Result<LoaderProfile, String> {
    let found = LoaderProfile::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, profile)| *profile).ok_or_else(|| {
        let names = LoaderProfile::ALL.map(|(name, _)| name);
        format!("expected one of {}", names.join(", "))
    })
}

impl super::Arguments {
    /// Checks that the LPs of the options exist, and that there is room for the TDs.
    pub(super) fn check_together(&self) -> Result<(), String> {
        let last = self.lps.saturating_sub(1);
        let lps = self.offline.iter().copied();
        let of_faults = self.faults.iter().filter_map(|named| named.fault.lp);
        if let Some(lp) = lps.chain(of_faults).find(|lp| *lp > last) {
            return Err(format!("there is no LP {lp}: the LPs are 0 to {last} (--lps)"));
        }
        if (0..=last).all(|lp| self.offline.contains(&lp)) {
            return Err("all LPs are offline; at least one should be online".to_owned());
        }
        let faults = self.faults.len();
        if faults > MAX_FAULTS {
            return Err(format!(
                "there are {faults} faults, but at most {MAX_FAULTS} are possible"
            ));
        }
        let tds = usize::from(self.tds).saturating_add(self.tds_in_build.into());
        if tds > MAX_TDS {
            return Err(format!("there are {tds} TDs in all, but at most {MAX_TDS} are possible"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_a_number_a_name_or_a_code() {
        for text in ["0xa06d1", "granite-rapids", "Granite Rapids", "GNR", "gnr"] {
            assert_eq!(cpu(text), Ok(0xa06d1), "{text}");
        }
        for text in ["", "0x", "806f8", "0x806f8806f", "skylake"] {
            let message = cpu(text).unwrap_err();
            assert!(message.starts_with("expected CPUID.1:EAX"), "{text}: {message}");
        }
    }

    #[test]
    fn a_generation_has_the_name_that_the_simulation_gives_it() {
        assert_eq!(seamldr("newer"), Ok(LoaderProfile::NEWER));
        assert_eq!(seamldr("3.0").unwrap_err(), "expected one of 1.0, 1.5.00, newer, 2.0.00");
    }
}
