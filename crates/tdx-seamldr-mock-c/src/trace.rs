//! The trace of SEAMCALLs: told to a callback, or kept for later.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};

use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{AnswerName, LeafName};
use tdx_seamldr_mock::TraceEntry;

use crate::number::Enumeration;
use crate::platform::Sim;
use crate::pointer::Growing;
use crate::registry::{in_callback, with};
use crate::status::{guarded, Failure};
use crate::{pointer, TdxSim, TdxSimRegs, TdxSimStatus, TdxSimTrap, TdxSimTrapNumber};

/// The most calls that a platform keeps.
pub const TDX_SIM_TRACE_LIMIT: u32 = 1_000_000;

/// A SEAMCALL that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimCall {
    /// sizeof(tdx_sim_call), set by the caller.
    pub size: u32,
    /// On which LP.
    pub lp: u32,
    /// The number of the call on this platform, in the order in which calls ended, from 1. A gap
    /// shows calls that were not kept.
    pub number: u64,
    /// Whether the instruction itself failed. If so, `output` is as `input`.
    pub trap: TdxSimTrapNumber,
    /// 0.
    pub reserved: u32,
    /// The registers before the call.
    pub input: TdxSimRegs,
    /// The registers after the call.
    pub output: TdxSimRegs,
}

// SAFETY: `repr(C)`, integers only, the first of them the size.
unsafe impl Growing for TdxSimCall {
    const NAME: &'static str = "tdx_sim_call";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl TdxSimCall {
    fn entry(&self) -> Result<TraceEntry, Failure> {
        let output = match TdxSimTrap::of_number(self.trap)?.trap() {
            Some(trap) => Err(trap),
            None => Ok(self.output.into()),
        };
        Ok(TraceEntry { lp: self.lp, input: self.input.into(), output })
    }
}

/// Called for each SEAMCALL when it has ended. `call` is there until the function returns;
/// `call->size` is the size that the library knows.
#[allow(improper_ctypes_definitions)] // the platform behind it is not C's business
pub type TdxSimTraceCallback =
    Option<unsafe extern "C" fn(context: *mut c_void, call: *const TdxSimCall)>;

/// Who is told about calls, and which calls are kept.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    callback: TdxSimTraceCallback,
    /// The pointer that the callback gets, whose provenance was exposed.
    context: usize,
    /// So many calls are kept.
    limit: usize,
    kept: VecDeque<TdxSimCall>,
    /// Calls that have ended.
    ended: u64,
}

impl Sim {
    /// A call has ended.
    pub(crate) fn record(
        &mut self,
        lp: u32,
        input: &SeamcallRegs,
        output: Result<SeamcallRegs, Trap>,
    ) {
        let trace = &mut self.trace;
        trace.ended = trace.ended.wrapping_add(1);
        if trace.limit == 0 && trace.callback.is_none() {
            return;
        }
        let call = TdxSimCall {
            size: u32::try_from(size_of::<TdxSimCall>()).unwrap_or(0),
            lp,
            number: trace.ended,
            trap: TdxSimTrap::from(output.err()).number(),
            reserved: 0,
            input: (*input).into(),
            output: output.unwrap_or(*input).into(),
        };
        if trace.limit != 0 {
            if trace.kept.len() >= trace.limit {
                trace.kept.pop_front();
            }
            trace.kept.push_back(call);
        }
        if let Some(callback) = trace.callback {
            let context = std::ptr::with_exposed_provenance_mut(trace.context);
            // SAFETY: whoever set the callback guarantees that it may be called with this context
            // until it is replaced.
            in_callback(|| unsafe { callback(context, &call) });
        }
    }
}

/// From now on `callback` is called with `context` for each SEAMCALL of this platform, in the
/// thread that makes it, when it has ended. NULL: no more.
///
/// The callback must return, and must not wait for another thread that uses the same platform.
/// Functions that take a platform return REENTRANT there.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// Until it is replaced, or the platform is freed, `callback` may be called with `context` from
/// each thread that makes SEAMCALLs on this platform.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_set_trace_callback(
    sim: *mut TdxSim,
    callback: TdxSimTraceCallback,
    context: *mut c_void,
) -> TdxSimStatus {
    guarded(|| {
        with(sim, |sim| {
            (sim.trace.callback, sim.trace.context) = (callback, context.expose_provenance());
            Ok(())
        })
    })
}

/// From now on the platform keeps its last calls, `limit` of them, for tdx_sim_next_call(). 0:
/// none. Those that it has kept are forgotten.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `limit` is more than TDX_SIM_TRACE_LIMIT.
#[no_mangle]
pub extern "C" fn tdx_sim_keep_calls(sim: *mut TdxSim, limit: u32) -> TdxSimStatus {
    guarded(|| {
        if limit > TDX_SIM_TRACE_LIMIT {
            let text = format!("limit is {limit}, but should be at most {TDX_SIM_TRACE_LIMIT}");
            return Err(Failure::argument(text));
        }
        with(sim, |sim| {
            sim.trace.kept = VecDeque::new();
            sim.trace.limit = usize::try_from(limit).unwrap_or(0);
            Ok(())
        })
    })
}

/// Takes the oldest call out of those that the platform has kept since tdx_sim_keep_calls().
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; NO_CALL: there is none.
///
/// # Safety
///
/// `call` leads to a tdx_sim_call with its `size` set that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_next_call(
    sim: *mut TdxSim,
    call: *mut TdxSimCall,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::sized(call) }?;
        let next =
            with(sim, |sim| sim.trace.kept.pop_front().ok_or_else(|| TdxSimStatus::NoCall.into()))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(call, &next) }
    })
}

/// Writes a call as one line of text: LP, leaf, RCX and RDX, what was answered. The text ends with
/// a NUL, and is cut off if `text_size` is too small.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `call->trap` is no tdx_sim_trap;
/// BUFFER_TOO_SMALL: `text_size` is 0.
///
/// # Safety
///
/// `call` leads to a tdx_sim_call that may be read, `text` to `text_size` characters that may be
/// written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_call_text(
    call: *const TdxSimCall,
    text: *mut c_char,
    text_size: usize,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let line = unsafe { pointer::read_sized(call) }?.entry()?.to_string();
        // SAFETY: this function's contract.
        unsafe { give_text(&line, text, text_size) }
    })
}

/// Writes the name of what a SEAMCALL has answered, e.g. "EBADSIG" or "SYS_BUSY". An answer without
/// a name is written as a number. `leaf` is RAX at the call, `answer` is RAX after it. The text
/// ends with a NUL, and is cut off if `text_size` is too small.
///
/// Errors: NULL; BUFFER_TOO_SMALL: `text_size` is 0.
///
/// # Safety
///
/// `text` leads to `text_size` characters that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_answer_text(
    leaf: u64,
    answer: u64,
    text: *mut c_char,
    text_size: usize,
) -> TdxSimStatus {
    guarded(|| {
        let name = AnswerName { leaf: LeafName(leaf), rax: answer }.to_string();
        // SAFETY: this function's contract.
        unsafe { give_text(&name, text, text_size) }
    })
}

/// Writes a text, if there is room for one.
///
/// # Safety
///
/// `text` leads to `text_size` characters that may be written.
unsafe fn give_text(line: &str, text: *mut c_char, text_size: usize) -> Result<(), Failure> {
    pointer::checked(text)?;
    if text_size == 0 {
        return Err(TdxSimStatus::BufferTooSmall.into());
    }
    // SAFETY: this function's contract.
    unsafe { pointer::write_text(line, text, text_size) };
    Ok(())
}
