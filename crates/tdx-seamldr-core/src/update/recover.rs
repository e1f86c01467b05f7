//! What is done about a failure: pure functions of what failed.

use super::failure::{Call, FailureCause};
use super::stage::Stage;
use crate::abi::{SeamldrStatus, TdxStatus};
use crate::backend::Trap;

/// At most 16 rounds: the first one, and those that deal with failures. This bounds the time with
/// interrupts off.
pub(super) const MAX_ROUNDS: u32 = 16;

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It may go away by itself: the same again.
    Transient,
    /// P-SEAMLDR does not take this image, and still has the old module.
    ImageRefused,
    /// P-SEAMLDR does not take this call (EBADCALL): because of the image if it closed the
    /// session, otherwise because of the LP.
    CallRefused,
    /// P-SEAMLDR does not take the image because of the handoff data, which is too long for the
    /// module that is in place.
    HandoffRefused,
    /// The module that was put in place does not come up, or does not take the handoff data.
    ModuleFailed,
    /// Nothing helps.
    Final,
}

/// Sorts a failure in a stage.
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
        // An LP that is not in VMX operation stays so, and SEAMLDR.INSTALL needs every LP to reach
        // P-SEAMLDR. Before the shutdown that ends the update. After it, other LPs may do
        // without the call.
        FailureCause::Trap(_, Trap::GeneralProtection | Trap::UndefinedOpcode)
        | FailureCause::Trap(Call::Seamldr(_), _)
            if stage <= Stage::Shutdown =>
        {
            Class::Final
        }
        FailureCause::Trap(..) => Class::Transient,
        // It does not tell what has happened.
        FailureCause::Tdx(_, status) if !status.is_failure() => Class::Transient,
        FailureCause::Tdx(_, status) => match status.code() {
            TdxStatus::RND_NO_ENTROPY | TdxStatus::SYS_BUSY | TdxStatus::OPERAND_BUSY => {
                Class::Transient
            }
            // Believed when it comes twice: the TDs would be paused already.
            TdxStatus::SYS_SHUTDOWN if stage <= Stage::Shutdown => Class::Transient,
            _ if stage <= Stage::Shutdown => Class::Final,
            _ => Class::ModuleFailed,
        },
    }
}

/// In the second byte of [`Candidates::word`]: bits 6:4 are the image that is in place. There are 8
/// images at most.
const IS_IN_PLACE: u8 = 1 << 7;

/// The images that there are, and what became of them so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// How many there are: the update's own, and its fallbacks.
    pub(super) count: u8,
    /// The one that is at it.
    pub(super) current: u8,
    /// A bit for each that P-SEAMLDR has refused, or whose module has failed twice.
    pub(super) ruled_out: u8,
    /// A bit for each whose module has failed.
    pub(super) failed: u8,
    /// The one whose module is in place.
    pub(super) in_place: Option<u8>,
}

impl Candidates {
    /// The one to go on with after the current one's failure, with what is known then; `None` if
    /// none is left.
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
        // Those that have not been tried yet come first, then those that get a second chance.
        let untried = left & !self.failed;
        let next = if untried != 0 { untried } else { left };
        self.current = u8::try_from(next.trailing_zeros()).ok().filter(|_| next != 0)?;
        Some(self)
    }

    /// P-SEAMLDR has put the module of the current one in place.
    pub(super) const fn installed(self) -> Self {
        Self { in_place: Some(self.current), ..self }
    }

    /// The one to go back to when no other is left.
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
    fn an_image_that_is_refused_makes_room_for_the_next() {
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
    fn what_passes_by_itself_changes_nothing() {
        let only = Candidates { count: 1, ..Candidates::default() };
        assert_eq!(only.after(Class::Transient), Some(only));
        assert_eq!(only.after(Class::Final), None);
        assert_eq!(only.after(Class::ImageRefused), None);
        assert_eq!(only.after(Class::ModuleFailed).map(|next| next.current), Some(0));
    }

    #[test]
    fn rdx_decides_and_entropy_passes() {
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
    fn no_refusal_before_the_shutdown_passes_by_itself() {
        for status in [SeamldrStatus::ENOENTROPY, SeamldrStatus::EBADPARAM] {
            let info = FailureCause::Seamldr { leaf: SeamldrLeaf::Info, status, rdx: 0 };
            assert_eq!(classify(Stage::Shutdown, info), Class::Final);
        }
        let unclear = FailureCause::Tdx(TdxLeaf::SYS_UPDATE, TdxStatus::KEY_CONFIGURED);
        assert_eq!(classify(Stage::RunUpdate, unclear), Class::Transient);
    }

    #[test]
    fn that_the_module_was_shut_down_already_is_asked_twice() {
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
    fn every_image_is_tried_before_one_is_tried_again() {
        let mut candidates = Candidates { count: 3, ..Candidates::default() };
        for current in [1, 2, 0, 1, 2] {
            candidates = candidates.after(Class::ModuleFailed).unwrap();
            assert_eq!(candidates.current, current);
        }
        assert_eq!((candidates.failed, candidates.ruled_out), (0b111, 0b011));
        assert_eq!(candidates.after(Class::ModuleFailed), None);
        // One that was refused after it had failed is not tried again, and the other one is.
        let second =
            Candidates { count: 2, ..Candidates::default() }.after(Class::ModuleFailed).unwrap();
        let first = second.after(Class::ModuleFailed).unwrap();
        assert_eq!((first.current, first.after(Class::ImageRefused).unwrap().current), (0, 1));
    }

    #[test]
    fn the_image_that_is_in_place_is_what_is_left_in_the_end() {
        let first = Candidates { count: 2, ..Candidates::default() };
        assert_eq!(first.back(), None, "nothing is in place");
        let second = first.installed().after(Class::ModuleFailed).unwrap();
        assert_eq!((second.current, second.in_place), (1, Some(0)));
        let first = second.after(Class::ImageRefused).unwrap();
        assert_eq!((first.current, first.after(Class::ImageRefused)), (0, None));
        let back = first.back().unwrap();
        assert_eq!(back.current, 0);
        assert_eq!(back.after(Class::Transient), Some(back));
        assert_eq!(back.after(Class::ModuleFailed), None, "once");
        assert_eq!(second.back().unwrap().current, 0, "whichever was refused");
        let refused_last = Candidates { ruled_out: 1, ..second };
        assert_eq!(
            refused_last.back().unwrap().after(Class::ModuleFailed),
            None,
            "that one is not tried again"
        );
        for in_place in [None, Some(0), Some(7)] {
            let candidates =
                Candidates { count: 8, current: 7, ruled_out: 3, failed: 0x80, in_place };
            assert_eq!(Candidates::from_word(candidates.word()), candidates);
        }
    }
}
