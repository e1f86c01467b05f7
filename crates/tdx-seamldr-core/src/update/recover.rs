//! The decision after a failure, as pure functions: repeat, take another image, or end the update.

use super::failure::{Call, FailureCause};
use super::stage::Stage;
use crate::abi::{SeamldrStatus, TdxStatus};
use crate::backend::Trap;

/// At most 16 rounds: the first one, and those that deal with failures. This bounds the time with
/// interrupts off.
pub(super) const MAX_ROUNDS: u32 = 16;

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The failure may be temporary: the update repeats the stage.
    Transient,
    /// P-SEAMLDR refused this image and kept the old module.
    ImageRefused,
    /// P-SEAMLDR refused this call (EBADCALL). The cause is the image if P-SEAMLDR closed the
    /// session, otherwise the LP.
    CallRefused,
    /// P-SEAMLDR refused the image because the handoff data is too long for the module in place.
    HandoffRefused,
    /// The new module did not initialise, or did not take the handoff data.
    ModuleFailed,
    /// No other try can help.
    Final,
}

/// Returns the class of a failure in this stage.
pub(super) fn classify(stage: Stage, cause: FailureCause) -> Class {
    match cause {
        FailureCause::GaveUp
        | FailureCause::UnknownLp
        | FailureCause::StillReady
        | FailureCause::LpsMissing
        | FailureCause::LpsChanged { .. }
        | FailureCause::ModuleChanged
        | FailureCause::NoRemainingUpdates
        | FailureCause::OtherMachine => Class::Final,
        FailureCause::Seamldr { rdx: 1.., .. } => Class::Final,
        // SEAMLDR.INFO, before the shutdown.
        FailureCause::Seamldr { .. } if stage <= Stage::Shutdown => Class::Final,
        FailureCause::Seamldr { status, .. } => match status {
            SeamldrStatus::ENOENTROPY | SeamldrStatus::EUNSPECERR | SeamldrStatus::EINTERRUPT => {
                Class::Transient
            }
            SeamldrStatus::EBADHANDOFF => Class::HandoffRefused,
            SeamldrStatus::EBADCALL => Class::CallRefused,
            _ => Class::ImageRefused,
        },
        // An LP that is not in VMX operation stays so, and every LP must call SEAMLDR.INSTALL.
        // Before the shutdown this ends the update. After the shutdown, other LPs may not need this
        // LP's call.
        FailureCause::Trap(_, Trap::GeneralProtection | Trap::UndefinedOpcode)
        | FailureCause::Trap(Call::Seamldr(_), _)
            if stage <= Stage::Shutdown =>
        {
            Class::Final
        }
        FailureCause::Trap(..) => Class::Transient,
        // The status does not tell whether the call succeeded.
        FailureCause::Tdx(_, status) if !status.is_failure() => Class::Transient,
        FailureCause::Tdx(_, status) => match status.code() {
            TdxStatus::RND_NO_ENTROPY | TdxStatus::SYS_BUSY | TdxStatus::OPERAND_BUSY => {
                Class::Transient
            }
            // The update asks again before it believes that the TDs are paused.
            TdxStatus::SYS_SHUTDOWN if stage <= Stage::Shutdown => Class::Transient,
            _ if stage <= Stage::Shutdown => Class::Final,
            _ => Class::ModuleFailed,
        },
    }
}

/// A flag in the second byte of [`Candidates::word`]: bits 6:4 hold the image in place, one of at
/// most 8.
const IS_IN_PLACE: u8 = 1 << 7;

/// The images of an update, and what the update knows of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// The number of images: the update's own and its fallbacks.
    pub(super) count: u8,
    /// The image that this round installs.
    pub(super) current: u8,
    /// A bit for each image that P-SEAMLDR refused, or whose module failed twice.
    pub(super) ruled_out: u8,
    /// A bit for each image whose module failed.
    pub(super) failed: u8,
    /// The image whose module is in place.
    pub(super) in_place: Option<u8>,
}

impl Candidates {
    /// Returns the candidates after a failure of the current image, with the next image as the
    /// current one. `None` if no image is left.
    pub(super) fn after(mut self, class: Class) -> Option<Self> {
        let bit = 1u8.checked_shl(self.current.into()).unwrap_or(0);
        match class {
            Class::Transient => return Some(self),
            Class::Final => return None,
            Class::ImageRefused | Class::CallRefused | Class::HandoffRefused => {
                self.ruled_out |= bit
            }
            Class::ModuleFailed => {
                self.ruled_out |= self.failed & bit;
                self.failed |= bit;
            }
        }
        let all = u8::MAX.checked_shr(u8::BITS.saturating_sub(self.count.into())).unwrap_or(0);
        let left = all & !self.ruled_out;
        // Images that the update has not tried come first. Then each failed module gets a second
        // try.
        let untried = left & !self.failed;
        let next = if untried != 0 { untried } else { left };
        self.current = u8::try_from(next.trailing_zeros()).ok().filter(|_| next != 0)?;
        Some(self)
    }

    /// Returns the candidates after P-SEAMLDR installed the current image.
    pub(super) const fn installed(self) -> Self {
        Self { in_place: Some(self.current), ..self }
    }

    /// Returns the candidates with the image in place as the current and only one.
    pub(super) fn back(self) -> Option<Self> {
        self.in_place.map(|current| Self { current, ruled_out: u8::MAX, ..self })
    }

    pub(super) const fn word(self) -> u32 {
        let in_place = match self.in_place {
            Some(image) => IS_IN_PLACE | image << 4,
            None => 0,
        };
        u32::from_le_bytes([self.count, self.current | in_place, self.ruled_out, self.failed])
    }

    pub(super) const fn from_word(word: u32) -> Self {
        let [count, images, ruled_out, failed] = word.to_le_bytes();
        let in_place = if images & IS_IN_PLACE != 0 { Some(images >> 4 & 7) } else { None };
        Self { count, current: images & 7, ruled_out, failed, in_place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{SeamldrLeaf, TdxLeaf};

    #[test]
    fn refused_image_is_followed_by_the_next_image() {
        let first = Candidates { count: 3, ..Candidates::default() };
        let second = first.after(Class::ImageRefused).unwrap();
        assert_eq!((second.current, second.ruled_out), (1, 1));
        let third = second.after(Class::ModuleFailed).unwrap();
        assert_eq!(third.current, 2);
        let again = third.after(Class::ImageRefused).unwrap();
        assert_eq!(again.current, 1, "a module that failed gets a second chance");
        assert_eq!(again.after(Class::ModuleFailed), None);
        assert_eq!(Candidates::from_word(third.word()), third);
    }

    #[test]
    fn temporary_failure_repeats_the_same_image() {
        let only = Candidates { count: 1, ..Candidates::default() };
        assert_eq!(only.after(Class::Transient), Some(only));
        assert_eq!(only.after(Class::Final), None);
        assert_eq!(only.after(Class::ImageRefused), None);
        assert_eq!(only.after(Class::ModuleFailed).map(|next| next.current), Some(0));
    }

    #[test]
    fn install_failure_is_final_with_rdx_1_and_temporary_without_entropy() {
        let install =
            |status, rdx| FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx };
        let class = |cause| classify(Stage::CpuInstall, cause);
        assert_eq!(class(install(SeamldrStatus::ENOENTROPY, 0)), Class::Transient);
        assert_eq!(class(install(SeamldrStatus::ENOENTROPY, 1)), Class::Final);
        assert_eq!(class(install(SeamldrStatus::EBADSIG, 0)), Class::ImageRefused);
        assert_eq!(class(install(SeamldrStatus(0x8000000000000099), 0)), Class::ImageRefused);
        let busy = FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY);
        assert_eq!(classify(Stage::Shutdown, busy), Class::Transient);
        let refused = FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::OPERAND_INVALID);
        assert_eq!(classify(Stage::Shutdown, refused), Class::Final);
        let failed = FailureCause::Tdx(TdxLeaf::SYS_INIT, TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT);
        assert_eq!(classify(Stage::CpuInit, failed), Class::ModuleFailed);
    }

    #[test]
    fn refusal_of_seamldr_info_before_the_shutdown_is_final() {
        for status in [SeamldrStatus::ENOENTROPY, SeamldrStatus::EBADPARAM] {
            let info = FailureCause::Seamldr { leaf: SeamldrLeaf::Info, status, rdx: 0 };
            assert_eq!(classify(Stage::Shutdown, info), Class::Final);
        }
        let unclear = FailureCause::Tdx(TdxLeaf::SYS_UPDATE, TdxStatus::KEY_CONFIGURED);
        assert_eq!(classify(Stage::RunUpdate, unclear), Class::Transient);
    }

    #[test]
    fn sys_shutdown_before_the_shutdown_is_temporary_and_afterwards_a_module_failure() {
        let shut_down = FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_SHUTDOWN);
        assert_eq!(classify(Stage::Shutdown, shut_down), Class::Transient);
        assert_eq!(classify(Stage::CpuInit, shut_down), Class::ModuleFailed);
        for cause in [FailureCause::GaveUp, FailureCause::UnknownLp, FailureCause::StillReady] {
            assert_eq!(classify(Stage::Start, cause), Class::Final);
        }
        for (leaf, before, after) in [
            (Call::Seamldr(SeamldrLeaf::Info), Class::Final, Class::Transient),
            (Call::Tdx(TdxLeaf::SYS_SHUTDOWN), Class::Transient, Class::Transient),
        ] {
            let trap = FailureCause::Trap(leaf, Trap::VmFailInvalid);
            assert_eq!(
                (classify(Stage::Shutdown, trap), classify(Stage::CpuInstall, trap)),
                (before, after)
            );
        }
        for status in [SeamldrStatus::EUNSPECERR, SeamldrStatus::EINTERRUPT] {
            let cause = FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx: 0 };
            assert_eq!(classify(Stage::CpuInstall, cause), Class::Transient);
        }
        let busy = FailureCause::Tdx(TdxLeaf::SYS_INIT, TdxStatus(TdxStatus::OPERAND_BUSY.0 | 1));
        assert_eq!(classify(Stage::CpuInit, busy), Class::Transient);
    }

    #[test]
    fn every_image_is_tried_before_an_image_is_tried_again() {
        let mut candidates = Candidates { count: 3, ..Candidates::default() };
        for current in [1, 2, 0, 1, 2] {
            candidates = candidates.after(Class::ModuleFailed).unwrap();
            assert_eq!(candidates.current, current);
        }
        assert_eq!((candidates.failed, candidates.ruled_out), (0b111, 0b011));
        assert_eq!(candidates.after(Class::ModuleFailed), None);
        // An image that fails and is then refused is not tried again. The other image is.
        let second =
            Candidates { count: 2, ..Candidates::default() }.after(Class::ModuleFailed).unwrap();
        let first = second.after(Class::ModuleFailed).unwrap();
        assert_eq!((first.current, first.after(Class::ImageRefused).unwrap().current), (0, 1));
    }

    #[test]
    fn image_in_place_is_tried_after_all_other_images() {
        let first = Candidates { count: 2, ..Candidates::default() };
        assert_eq!(first.back(), None, "no module is in place");
        let second = first.installed().after(Class::ModuleFailed).unwrap();
        assert_eq!((second.current, second.in_place), (1, Some(0)));
        let first = second.after(Class::ImageRefused).unwrap();
        assert_eq!((first.current, first.after(Class::ImageRefused)), (0, None));
        let back = first.back().unwrap();
        assert_eq!(back.current, 0);
        assert_eq!(back.after(Class::Transient), Some(back));
        assert_eq!(back.after(Class::ModuleFailed), None, "once");
        assert_eq!(second.back().unwrap().current, 0, "whichever image was refused");
        let refused_last = Candidates { ruled_out: 1, ..second };
        assert_eq!(
            refused_last.back().unwrap().after(Class::ModuleFailed),
            None,
            "the refused image is not tried again"
        );
        for in_place in [None, Some(0), Some(7)] {
            let candidates =
                Candidates { count: 8, current: 7, ruled_out: 3, failed: 0x80, in_place };
            assert_eq!(Candidates::from_word(candidates.word()), candidates);
        }
    }
}
