//! The control socket: a Unix socket that takes requests and answers, one JSON object a line each.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tdx_seamldr_host::text::hex;
use tdx_seamldr_mock::model::{ModuleState, TdPhase};
use tdx_seamldr_mock::Truth;

use crate::change::Change;
use crate::firmware::Firmware;
use crate::report;

/// The length of the longest request, in bytes.
const MAX_REQUEST: u64 = 4096;

/// A request.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// Asks for the state of the platform.
    State,
    /// Asks for the last SEAMCALLs.
    Trace {
        /// At most this many.
        last: Option<usize>,
    },
    /// Changes the platform.
    Change {
        /// How.
        change: Change,
    },
}

/// The module in the SEAM range.
#[derive(Debug, Serialize)]
struct Module {
    version: String,
    state: &'static str,
    callable: bool,
}

#[derive(Debug, Serialize)]
struct Handoff {
    valid: bool,
    hv: u16,
    size: u32,
}

#[derive(Debug, Serialize)]
struct Td {
    number: u16,
    phase: &'static str,
    alive: bool,
}

#[derive(Debug, Serialize)]
struct Counters {
    seamcalls: u64,
    busy: u64,
    resets: u64,
    internal_errors: u64,
}

/// The state of the platform, which the guest may not know.
#[derive(Debug, Serialize)]
struct State {
    module: Option<Module>,
    svn: String,
    mrseam: String,
    dead: bool,
    remaining_updates: u32,
    handoff: Handoff,
    /// The x2APIC IDs of the LPs in an INSTALL session that has not ended.
    session: Vec<u32>,
    tds_alive: usize,
    tds: Vec<Td>,
    counters: Counters,
}

/// An answer. `error` is there if the request was refused.
#[derive(Debug, Default, Serialize)]
struct Answer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Vec<String>>,
}

const fn phase_name(phase: TdPhase) -> &'static str {
    match phase {
        TdPhase::Build => "build",
        TdPhase::Running => "running",
        TdPhase::InterruptedMigration => "interrupted-migration",
    }
}

fn state_name(state: ModuleState) -> &'static str {
    ModuleState::ALL.iter().find(|(known, _)| *known == state).map_or("?", |(_, name)| name)
}

fn state(firmware: &Firmware) -> State {
    let simulated = firmware.simulated();
    let (model, tds) = (&simulated.model, &simulated.tds);
    let truth = Truth::of(model, tds);
    let header = model.handoff_header();
    let counters = &firmware.counters;
    State {
        module: truth.module.map(|module| Module {
            version: module.version.to_string(),
            state: state_name(module.state),
            callable: module.callable,
        }),
        svn: truth.svn.to_string(),
        mrseam: hex(&truth.mrseam),
        dead: model.is_dead(),
        remaining_updates: truth.remaining_updates,
        handoff: Handoff {
            valid: truth.handoff_valid,
            hv: header.hv.get(),
            size: header.size.get(),
        },
        session: model.loader().session().collect(),
        tds_alive: truth.tds_alive,
        tds: model
            .tds()
            .map(|(id, td)| Td {
                number: id.number(),
                phase: phase_name(td.phase()),
                alive: tds.is_alive(model, id),
            })
            .collect(),
        counters: Counters {
            seamcalls: counters.seamcalls.load(Ordering::Relaxed),
            busy: counters.busy.load(Ordering::Relaxed),
            resets: counters.resets.load(Ordering::Relaxed),
            internal_errors: report::panics(),
        },
    }
}

fn perform(firmware: &Firmware, line: &str) -> Result<Answer, String> {
    let request = serde_json::from_str(line).map_err(|error| {
        format!(
            "no request: {error}; the commands are state, trace and change, as in \
             {{\"command\":\"state\"}}"
        )
    })?;
    let done = Answer { ok: true, ..Answer::default() };
    Ok(match request {
        Request::State => Answer { state: Some(state(firmware)), ..done },
        Request::Trace { last } => {
            let trace = firmware.trace();
            let lines = trace.last(last.unwrap_or(usize::MAX)).map(ToString::to_string).collect();
            Answer { trace: Some(lines), ..done }
        }
        Request::Change { change } => {
            change.apply(&mut firmware.simulated().model)?;
            done
        }
    })
}

/// Answers one request.
pub fn answer(firmware: &Firmware, line: &str) -> String {
    let answer = perform(firmware, line);
    written(&answer.unwrap_or_else(|error| Answer { error: Some(error), ..Answer::default() }))
}

fn written(answer: &Answer) -> String {
    // This cannot fail: the answer has only strings, numbers and lists of them.
    serde_json::to_string(answer)
        .unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}"))
}

/// Binds the socket. Replaces a socket on which no process listens any more.
///
/// # Errors
///
/// The socket cannot be bound, or something else has its name.
pub fn listen(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt as _;
    let is_left = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_left && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Answers every connection in a thread of its own, until QEMU ends.
pub fn serve(firmware: &'static Firmware, listener: UnixListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A closed connection needs no answer.
                let _ = converse(firmware, stream);
            });
        }
    });
}

fn converse(firmware: &Firmware, mut stream: UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        // Bytes: a long request may be cut inside a character.
        let mut line = Vec::new();
        if reader.by_ref().take(MAX_REQUEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let is_cut = !line.ends_with(b"\n") && u64::try_from(line.len()) == Ok(MAX_REQUEST);
        if is_cut {
            let error = Some(format!("the request is longer than {MAX_REQUEST} bytes"));
            return writeln!(stream, "{}", written(&Answer { error, ..Answer::default() }));
        }
        let line = String::from_utf8_lossy(&line);
        let answered = report::guarded(|| answer(firmware, line.trim()));
        writeln!(stream, "{answered}")?;
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
