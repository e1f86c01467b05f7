//! One error for a function that makes a whole update.

use core::fmt;

use crate::image::{ImageError, WriteError};
use crate::params::BuildError;
use crate::preflight::NotPassed;
use crate::seamldr::{InstallError, SeamldrError, VmcsErratum};
use crate::tdx_module::TdxError;
use crate::update::UpdateError;

/// Defines [`Error`], with `From` for each of its errors.
macro_rules! error {
    ($($(#[$doc:meta])* $variant:ident($error:ty)),* $(,)?) => {
        /// The error of any step of an update, so that one `?` takes them all. The text is that of
        /// the error inside.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* $variant($error)),*
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(error) => error.fmt(f)),*
                }
            }
        }

        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

error! {
    /// A file is no image.
    Image(ImageError),
    /// An image cannot be written.
    Write(WriteError),
    /// The CPU has the VMCS erratum.
    VmcsErratum(VmcsErratum),
    /// P-SEAMLDR did not answer or refused.
    Seamldr(SeamldrError),
    /// Preflight did not pass.
    NotPassed(NotPassed),
    /// P-SEAMLDR cannot read an image where it lies.
    Build(BuildError),
    /// There can be no such update.
    Update(UpdateError),
    /// SEAMLDR.INSTALL failed.
    Install(InstallError),
    /// The TDX module did not answer or refused.
    Tdx(TdxError),
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::SeamldrStatus;
    use std::string::ToString;

    #[test]
    fn one_question_mark_takes_every_error_and_keeps_its_text() {
        fn fails<E>(error: E) -> Result<(), Error>
        where
            Error: From<E>,
        {
            Err(error)?
        }
        fn text<E: Copy + fmt::Display>(error: E)
        where
            Error: From<E>,
        {
            assert_eq!(fails(error).unwrap_err().to_string(), error.to_string());
        }
        text(crate::TdxImage::parse(&[]).unwrap_err());
        text(WriteError::TooLong);
        text(VmcsErratum);
        text(SeamldrError::Status(SeamldrStatus::EBADPARAM));
        text(NotPassed { refusals: 2, unknowns: 1 });
        text(BuildError::SigstructTooLong(2));
        text(UpdateError::Lps(0));
        text(InstallError::OtherMachine);
        text(TdxError::Trap(crate::Trap::VmFailInvalid));
    }
}
