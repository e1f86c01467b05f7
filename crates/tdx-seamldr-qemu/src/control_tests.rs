//! Tests of the control socket.

use super::*;
use crate::options::Options;
use crate::platform::Settings;
use crate::trace::Trace;
use serde_json::Value;
use tdx_seamldr_core::SeamcallRegs;

fn firmware() -> Firmware {
    let options = Options::parse(["image=test"]).unwrap();
    Firmware::new(Settings::new(options, 2, 2).unwrap(), Trace::default()).unwrap()
}

struct NoMemory;

impl tdx_seamldr_mock::model::PhysMemory for NoMemory {
    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

fn ask(firmware: &Firmware, request: &str) -> Value {
    serde_json::from_str(&answer(firmware, request)).unwrap()
}

fn call(firmware: &Firmware, lp: u32, rax: u64) -> u64 {
    let mut regs = SeamcallRegs { rax, ..SeamcallRegs::default() };
    firmware.seamcall(lp, &mut regs, &NoMemory).unwrap();
    regs.rax
}

#[test]
fn state_tells_module_session_and_counters() {
    let firmware = firmware();
    call(&firmware, 1, 0x8000_0000_0000_0001);
    let answer = ask(&firmware, r#"{"command":"state"}"#);
    assert_eq!(answer["ok"], true);
    let state = &answer["state"];
    assert_eq!(state["module"]["version"], "1.5.05");
    assert_eq!(state["module"]["state"], "SYSINIT_PENDING");
    assert_eq!(state["module"]["callable"], false, "a session has begun");
    assert_eq!(state["session"], serde_json::json!([1]));
    assert_eq!(state["svn"], "1.5");
    assert_eq!(state["remaining_updates"], 63);
    assert_eq!(state["counters"]["seamcalls"], 1);
    assert_eq!(state["tds"], serde_json::json!([]));
}

#[test]
fn faults_come_and_end_while_calls_are_made() {
    let firmware = firmware();
    let set = r#"{"command":"change","change":{"fault":{"leaf":"TDH.SYS.INIT","status":"SYS_BUSY","times":2}}}"#;
    assert_eq!(ask(&firmware, set)["ok"], true);
    assert_eq!(call(&firmware, 0, 33), 0x8000_0202_0000_0000);
    assert_eq!(ask(&firmware, r#"{"command":"change","change":"repair"}"#)["ok"], true);
    assert_eq!(call(&firmware, 0, 33), 0);
}

#[test]
fn the_last_calls_are_lines() {
    let firmware = firmware();
    call(&firmware, 0, 33);
    call(&firmware, 1, 35);
    let answer = ask(&firmware, r#"{"command":"trace","last":1}"#);
    let lines = answer["trace"].as_array().unwrap();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].as_str().unwrap().starts_with("LP    1  TDH.SYS.LP.INIT"));
}

#[test]
fn a_request_that_is_none_is_refused_with_the_commands() {
    let firmware = firmware();
    for (request, words) in [
        ("", "the commands are state"),
        ("{}", "the commands are state"),
        (r#"{"command":"stat"}"#, "the commands are state"),
        (r#"{"command":"change","change":{"fault":{}}}"#, "either a status or a delay"),
        (
            r#"{"command":"change","change":{"fault":{"lp":7,"delay":1}}}"#,
            "lp=7: the platform has 2 LPs",
        ),
    ] {
        let answer = ask(&firmware, request);
        assert_eq!(answer["ok"], false);
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
}

#[test]
fn the_socket_answers_line_by_line_and_replaces_one_that_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    drop(listen(&path).unwrap());
    let listener = listen(&path).unwrap();
    assert!(listen(&path).is_err(), "somebody listens there");
    serve(Box::leak(Box::new(firmware())), listener);
    let mut stream = UnixStream::connect(&path).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..2 {
        writeln!(stream, r#"{{"command":"change","change":"repair"}}"#).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "{\"ok\":true}\n");
    }
    // A request that is too long gets one answer, and the end of the connection.
    // The end of the longest request is inside a character.
    let long = format!(" {}", "\u{e9}".repeat(usize::try_from(MAX_REQUEST).unwrap()));
    // The plugin may close the connection before it has read all of it.
    let _ = writeln!(stream, "{long}");
    let answers: Vec<String> = reader.lines().map_while(Result::ok).collect();
    assert_eq!(answers, [r#"{"ok":false,"error":"the request is longer than 4096 bytes"}"#]);
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(listen(&folder.path().join("file")).is_err(), "a file is not replaced");
}
