//! Faults that QEMU's guest can get.

use tdx_seamldr_core::Trap;
pub use tdx_seamldr_host::fault::{FaultText, NumberOrName};
use tdx_seamldr_mock::{Answer, Fault};

/// Why a fault is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The text is not a fault.
    #[error(transparent)]
    Text(#[from] tdx_seamldr_host::fault::FaultError),
    /// #GP cannot be raised.
    #[error("QEMU cannot raise #GP at SEAMCALL for a plugin; status=UD raises #UD")]
    GeneralProtection,
}

/// Returns the fault for the model.
///
/// # Errors
///
/// The text is not a fault, or the plugin cannot cause the fault in QEMU.
pub fn fault(text: &FaultText) -> Result<Fault, FaultError> {
    match text.fault()? {
        Fault { answer: Answer::Trap(Trap::GeneralProtection), .. } => {
            Err(FaultError::GeneralProtection)
        }
        fault => Ok(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_protection_is_refused_and_undefined_opcode_is_not() {
        let fault = |text| fault(&FaultText::parse(text).unwrap());
        assert_eq!(fault("status=gp"), Err(FaultError::GeneralProtection));
        assert_eq!(fault("status=0x8000FF000000000D"), Err(FaultError::GeneralProtection));
        assert!(fault("status=ud").is_ok());
    }
}
