//! The session of SEAMLDR.INSTALL: the call of each LP, and the check after the last call.

use super::failure::RawFailure;
use super::known::{Event, Kind, Session};
use super::lp::{Cpu, Failed, Work};
use super::rendezvous::Leg;
use super::stage::Stage;
use super::Update;
use crate::abi::{SeamldrStatus, TdxLeaf};
use crate::backend::Trap;
use crate::host::Host;
use crate::lock::Lock;
use crate::params::InstallRequest;
use crate::seamldr::InstallError;
use crate::tdx_module::{TdxError, TdxModule};

impl Update<'_> {
    /// Whether the session may contain LPs that called before this round. In the first round after
    /// its own shutdown, an update begins a new session.
    fn may_have_found_a_session(&self, leg: Leg) -> bool {
        leg.round != 0 || self.kind != Kind::Update
    }
}

impl<H: Host + ?Sized, L: Lock + ?Sized> Cpu<'_, H, L> {
    /// Calls SEAMLDR.INSTALL, unless this LP is in the session already or the session is complete.
    pub(super) fn install(&mut self, leg: Leg) -> Result<Work, Failed> {
        let (update, seamldr) = (self.update, self.seamldr);
        // An update without a request skips this stage.
        let Some(request) = update.current_request() else { return Ok(Work::Done) };
        seamldr.exclusively(|| self.install_with_lock_held(request, leg))
    }

    /// Does what [`install`](Self::install) does, with P-SEAMLDR's lock held. The lock keeps other
    /// LPs from opening or completing a session. No module can be called while a session is open.
    fn install_with_lock_held(
        &mut self,
        request: &InstallRequest<'_>,
        leg: Leg,
    ) -> Result<Work, Failed> {
        let (update, seamldr, lp) = (self.update, self.seamldr, self.seamldr.host().current_lp());
        let module = TdxModule::new(seamldr.host());
        let is_open = || module.is_out_of_reach();
        let known = update.known.load();
        if known.session == Session::Complete || update.state.is_in_session(lp) {
            return Ok(Work::Done);
        }
        // An LP records its failure before it releases the lock. So this LP opens no session for a
        // refused image.
        if update.rendezvous.load().failed() {
            return Ok(Work::Skipped);
        }
        self.has_claimed = update.rendezvous.claim();
        if !self.has_claimed {
            return Ok(Work::Over);
        }
        let error = match seamldr.install_with_lock_held(request) {
            Ok(()) => {
                update.state.join_session(lp);
                update.happened(Event::SessionOpen);
                if update.may_have_found_a_session(leg) && !is_open() {
                    update.module_answered();
                }
                return Ok(Work::Done);
            }
            Err(error) => error,
        };
        let failure = RawFailure::install(error);
        match error {
            // Other software opened the session with this LP, or the answer is wrong. The last LP
            // asks the module.
            InstallError::Refused { status: SeamldrStatus::EBADCALL, rdx: 0 } if is_open() => {
                update.record(lp, Stage::CpuInstall, &failure);
                update.happened(Event::SessionOpen);
                return Ok(Work::Done);
            }
            // This LP is not in the session. The session of the other LPs stays open, if P-SEAMLDR
            // works at all.
            InstallError::Trap(Trap::VmFailInvalid) if seamldr.is_silent_with_lock_held() => {
                return Err(self.fail(update.silenced(lp, &failure)));
            }
            InstallError::Trap(_) | InstallError::OtherMachine => return Err(self.fail(&failure)),
            InstallError::Refused { status, rdx: 0 }
                if is_open() && (known.has_old_module() || status == SeamldrStatus::EUNSPECERR) =>
            {
                return Err(self.fail(&failure));
            }
            InstallError::Refused { .. } => {}
        }
        // The session is over. Without an old module this is not certain. If the session is open,
        // P-SEAMLDR answers EBADCALL to its LPs when they call again.
        if error.is_recoverable() {
            update.happened(Event::Refused);
            if !known.has_old_module() {
                // After the open session a module may answer.
                update.happened(Event::Found(module.readiness()));
            }
        } else {
            update.happened(Event::Destroyed);
        }
        // An earlier EBADCALL only showed that its LP was in the session. With the lock held no LP
        // writes the record.
        update.latest.clear();
        Err(self.fail(&failure))
    }

    /// Calls TDH.SYS.INIT after every LP called SEAMLDR.INSTALL, to learn whether a new module is
    /// in place. Returns the stage that failed. `None` if none failed.
    pub(super) fn after_install(&self) -> Option<Stage> {
        let (update, lp) = (self.update, self.seamldr.host().current_lp());
        let module = TdxModule::new(self.seamldr.host());
        let result = module.init_once(update.state);
        let cut_off = match result {
            Err(TdxError::Trap(trap)) if module.is_out_of_reach() => {
                Some(trap != Trap::VmFailInvalid || self.is_silent())
            }
            _ => None,
        };
        match (cut_off, result) {
            // P-SEAMLDR answers and no module does. The session waits for more LPs, or for an LP
            // whose call was refused.
            (Some(false), _) => {
                if !update.latest.is_written() {
                    update.record(lp, Stage::CpuInstall, &RawFailure::LPS_MISSING);
                }
                Some(Stage::CpuInstall)
            }
            (None, Err(error)) => {
                update.module_answered();
                update.latest.clear();
                update.record(lp, Stage::CpuInit, &RawFailure::tdx(TdxLeaf::SYS_INIT, error));
                Some(Stage::CpuInit)
            }
            (None, Ok(true)) => {
                update.module_answered();
                update.latest.clear();
                None
            }
            // This LP reaches neither P-SEAMLDR nor a module, or another LP has claimed
            // TDH.SYS.INIT. The next stage repeats the call.
            (Some(true), _) | (None, Ok(false)) => {
                update.latest.clear();
                None
            }
        }
    }
}
