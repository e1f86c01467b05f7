//! A guest of QEMU with the plugin: starts it, runs commands over its serial line, and asks the
//! plugin over its socket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};

use super::{Kernel, PLACE};
use crate::debian::Debian;
use crate::qemu;

/// The time limit for a boot to the first program. The debug kernel takes longest.
const BOOT: Duration = Duration::from_secs(300);
/// The time limit of a command in the guest.
const COMMAND: Duration = Duration::from_secs(300);

/// The machine to start.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The name, if several machines run at the same time. It begins the names of the machine's
    /// files.
    pub(super) name: &'static str,
    pub(super) kernel: Kernel,
    pub(super) cpus: u32,
    /// QEMU's option `-cpu`.
    pub(super) processor: String,
    /// Options of the plugin. Without them QEMU has no plugin.
    pub(super) plugin: Option<Vec<String>>,
    /// QEMU's option `-m`.
    pub(super) memory: &'static str,
    /// The initramfs, if not the kernel's usual one.
    pub(super) initramfs: Option<String>,
    /// More words for the kernel's command line.
    pub(super) append: String,
    /// Two CPUs form a core.
    pub(super) smt: bool,
    /// A reset of the machine does not end QEMU.
    pub(super) reboots: bool,
    /// More options of QEMU. They come last, so they override the others.
    pub(super) qemu: Vec<String>,
}

impl Machine {
    /// Returns the machine of most scenarios.
    pub(super) fn new(kernel: Kernel, cpus: u32, processor: &str, plugin: Vec<String>) -> Self {
        Self {
            name: "",
            kernel,
            cpus,
            processor: processor.to_owned(),
            plugin: Some(plugin),
            memory: "1024",
            initramfs: None,
            append: String::new(),
            smt: false,
            reboots: false,
            qemu: Vec::new(),
        }
    }

    /// Returns the path of the plugin's socket, in the root.
    pub(super) fn control(&self) -> String {
        format!("{PLACE}/{}control", self.name)
    }

    /// Returns the path of the plugin's trace, in the root.
    fn trace(&self) -> String {
        format!("{PLACE}/{}trace", self.name)
    }

    /// Returns the command that starts the machine. With `agent`, the guest takes commands.
    pub(super) fn command(&self, debian: &Debian, agent: bool) -> Command {
        let mut machine =
            qemu::machine_of(debian.program("qemu-system-x86_64"), self.cpus, &self.processor);
        let agent = if agent { "agent" } else { "" };
        let initramfs = self.initramfs.clone().unwrap_or_else(|| self.kernel.initramfs());
        machine
            .args(["-machine", "q35", "-m", self.memory, "-kernel", &self.kernel.image()])
            .args(["-initrd", &initramfs, "-append"])
            .arg(format!("console=ttyS0 quiet panic=-1 nokaslr {agent} {}", self.append));
        if self.smt {
            machine.args([
                "-smp",
                &format!("{},sockets=1,cores={},threads=2", self.cpus, self.cpus / 2),
            ]);
        }
        if self.reboots {
            machine.args(["-action", "reboot=reset"]);
        }
        if let Some(options) = &self.plugin {
            let mut plugin = format!("/{PLACE}/libtdx_seamldr_qemu.so");
            for option in options {
                plugin.push(',');
                plugin.push_str(option);
            }
            plugin.push_str(&format!(",control=/{},trace=/{}", self.control(), self.trace()));
            machine.args(["-plugin", &plugin]);
        }
        machine.args(&self.qemu);
        machine
    }

    /// Starts the machine, and waits until QEMU ends by itself. Returns QEMU's status and its
    /// standard error.
    ///
    /// # Errors
    ///
    /// QEMU still runs after the time limit of a boot.
    pub(super) fn ends(&self, debian: &Debian) -> Result<(ExitStatus, String)> {
        let mut child = self
            .command(debian, true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut errors = child.stderr.take().context("standard error")?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > BOOT {
                child.kill()?;
                child.wait()?;
                bail!("QEMU still runs after {} s; it should have ended", BOOT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        errors.read_to_string(&mut said)?;
        Ok((status, said))
    }
}

/// The result of a command in the guest.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) status: i32,
    pub(super) text: String,
}

/// A running guest. Dropping it kills QEMU.
pub(super) struct Guest {
    child: Child,
    input: ChildStdin,
    output: Arc<Mutex<Vec<u8>>>,
    /// The number of output bytes that were read already.
    seen: usize,
    /// The number of commands so far.
    commands: u32,
    pub(super) control: PathBuf,
    trace: PathBuf,
    /// The time from the start of QEMU to the first program.
    pub(super) booted_in: Duration,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // QEMU may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    pub(super) fn start(debian: &Debian, machine: &Machine) -> Result<Self> {
        let start = Instant::now();
        let mut child = machine
            .command(debian, true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let input = child.stdin.take().context("the serial line")?;
        let mut serial = child.stdout.take().context("the serial line")?;
        let output = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let output = Arc::clone(&output);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = serial.read(&mut bytes) {
                    let read = bytes.get(..count).unwrap_or_default();
                    output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
                }
            }
        });
        let (control, trace) = (debian.path(machine.control()), debian.path(machine.trace()));
        let booted_in = Duration::ZERO;
        let mut guest =
            Self { child, input, output, seen: 0, commands: 0, control, trace, booted_in };
        guest.answer(BOOT).context("the kernel did not come up")?;
        guest.booted_in = start.elapsed();
        Ok(guest)
    }

    /// Runs a command in the guest's shell.
    pub(super) fn shell(&mut self, command: &str) -> Result<Said> {
        self.commands = self.commands.saturating_add(1);
        writeln!(self.input, "{command}").context("QEMU has ended")?;
        self.answer(COMMAND).with_context(|| format!("in the guest: {command}"))
    }

    /// Runs a command. Returns its output. Fails if the command fails.
    pub(super) fn succeeds(&mut self, command: &str) -> Result<String> {
        let said = self.shell(command)?;
        ensure!(said.status == 0, "in the guest: {command}: status {}, {}", said.status, said.text);
        Ok(said.text)
    }

    /// Runs a command that starts another kernel, and waits for the first program of that kernel.
    pub(super) fn restart(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}").context("QEMU has ended")?;
        self.commands = 0;
        self.answer(BOOT).map(drop).context("the kernel did not come up again")
    }

    /// Waits for the mark after the last command.
    fn answer(&mut self, limit: Duration) -> Result<Said> {
        let start = Instant::now();
        let mark = format!("@@{} ", self.commands);
        loop {
            let ended = self.child.try_wait()?;
            let text = {
                let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
                String::from_utf8_lossy(output.get(self.seen..).unwrap_or_default())
                    .replace('\r', "")
            };
            if let Some((said, rest)) = text.split_once(&mark) {
                if let Some((status, _)) = rest.split_once('\n') {
                    self.seen = self.output.lock().unwrap_or_else(PoisonError::into_inner).len();
                    return Ok(Said {
                        status: status.trim().parse()?,
                        text: said.trim().to_owned(),
                    });
                }
            }
            if let Some(status) = ended {
                bail!("QEMU ended with {status}:\n{text}");
            }
            ensure!(
                start.elapsed() < limit,
                "the guest did not print {mark:?} within {} s:\n{text}",
                limit.as_secs()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a request to the plugin.
    fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.control).context("the plugin's socket")?;
        writeln!(stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(answer.get("ok") == Some(&Value::Bool(true)), "{request}: {answer}");
        Ok(answer)
    }

    /// Makes the plugin change the platform.
    pub(super) fn change(&self, change: &Value) -> Result<()> {
        self.ask(&json!({ "command": "change", "change": change })).map(drop)
    }

    /// Returns the plugin's state of the platform.
    pub(super) fn state(&self) -> Result<Value> {
        let answer = self.ask(&json!({ "command": "state" }))?;
        answer.get("state").cloned().context("a state")
    }

    /// Returns the trace so far.
    pub(super) fn trace(&self) -> Result<String> {
        fs::read_to_string(&self.trace).with_context(|| self.trace.display().to_string())
    }
}
