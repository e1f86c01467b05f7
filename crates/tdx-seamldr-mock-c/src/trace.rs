//! The trace of SEAMCALLs: passed to a callback, or stored.

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

/// The most calls that a platform stores.
pub const TDX_SIM_TRACE_LIMIT: u32 = 1_000_000;

/// A SEAMCALL that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimCall {
    /// sizeof(tdx_sim_call), set by the caller.
    pub size: u32,
    /// The LP.
    pub lp: u32,
    /// Number of the call on this platform, from 1, in the order in which calls ended. A gap shows
    /// calls that were not stored.
    pub number: u64,
    /// Whether the instruction itself failed. If so, `output` equals `input`.
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

/// Called after each SEAMCALL. `call` is valid until the function returns; `call->size` is the
/// library's size.
#[allow(improper_ctypes_definitions)] // the platform behind it is not C's business
pub type TdxSimTraceCallback =
    Option<unsafe extern "C" fn(context: *mut c_void, call: *const TdxSimCall)>;

/// The callback, and the stored calls.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    callback: TdxSimTraceCallback,
    /// The context pointer of the callback, with exposed provenance.
    context: usize,
    /// The most calls to store.
    limit: usize,
    kept: VecDeque<TdxSimCall>,
    /// Number of calls that have ended.
    ended: u64,
}

impl Sim {
    /// Records a call that has ended.
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
            // SAFETY: the owner of the callback guarantees that it can be called with this context
            // until it is replaced.
            in_callback(|| unsafe { callback(context, &call) });
        }
    }
}

/// Sets a callback that is called with `context` after each SEAMCALL of this platform, in the
/// thread that makes the call. NULL removes the callback.
///
/// The callback has to return, and must not wait for another thread that uses the same platform.
/// Functions that take a platform return REENTRANT inside it.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// Until the callback is replaced or the platform is freed, each thread that makes SEAMCALLs on
/// this platform may call it with `context`.
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

/// Stores the last `limit` calls for tdx_sim_next_call(). 0: none. Discards the calls that are
/// stored.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `limit` is above TDX_SIM_TRACE_LIMIT.
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

/// Removes the oldest stored call and returns it. See tdx_sim_keep_calls().
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; NO_CALL: no call is stored.
///
/// # Safety
///
/// `call` points to a writable tdx_sim_call whose `size` is set.
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

/// Writes a call as one line of text: LP, leaf, RCX and RDX, result. The text ends with a NUL, and
/// is cut if `text_size` is too small.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `call->trap` is not a tdx_sim_trap;
/// BUFFER_TOO_SMALL: `text_size` is 0.
///
/// # Safety
///
/// `call` points to a readable tdx_sim_call, `text` to `text_size` writable characters.
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

/// Writes the name of the status that a SEAMCALL returned, e.g. "EBADSIG" or "SYS_BUSY". A status
/// without a name is written as a number. `leaf` is RAX before the call, `answer` is RAX after it.
/// The text ends with a NUL, and is cut if `text_size` is too small.
///
/// Errors: NULL; BUFFER_TOO_SMALL: `text_size` is 0.
///
/// # Safety
///
/// `text` points to `text_size` writable characters.
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

/// Writes a text, unless the size is 0.
///
/// # Safety
///
/// `text` points to `text_size` writable characters.
unsafe fn give_text(line: &str, text: *mut c_char, text_size: usize) -> Result<(), Failure> {
    pointer::checked(text)?;
    if text_size == 0 {
        return Err(TdxSimStatus::BufferTooSmall.into());
    }
    // SAFETY: this function's contract.
    unsafe { pointer::write_text(line, text, text_size) };
    Ok(())
}
