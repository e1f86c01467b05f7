//! `tdx-seamldr simulate`: a whole update on the simulated platform.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tdx_seamldr_core::abi::SeamSigstruct;
use tdx_seamldr_core::preflight::{preflight, Policy};
use tdx_seamldr_core::update::{Outcome, Stage, Update};
use tdx_seamldr_core::INTEL_PRODUCTION_SIGNER;
use tdx_seamldr_core::{Sha384Digest, SharedInfo, TdxImage};
use tdx_seamldr_host::text::hex;
use tdx_seamldr_host::Releases;
use tdx_seamldr_mock::model::{Config, LoaderProfile};
use tdx_seamldr_mock::{run_on_threads, PageBuf, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::{verify, RustCrypto, Signer};

use crate::drawing::{Drawing, Run};
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::output::{print, print_json};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The module that runs first; without images, a small one signed with a test key
    #[arg(long, value_name = "IMAGE", requires = "to")]
    from: Option<PathBuf>,
    /// The module to update to
    #[arg(long, value_name = "IMAGE", requires = "from")]
    to: Option<PathBuf>,
    /// Logical processors
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    lps: u32,
    /// Sockets
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    sockets: u32,
    /// TDs that run meanwhile
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=64))]
    tds: u16,
    /// Install the module that runs already once more
    #[arg(long)]
    allow_same_module: bool,
    /// Show every SEAMCALL
    #[arg(long)]
    trace: bool,
    /// Draw the run into this file, whose name ends in .svg or .html
    #[arg(long, value_name = "FILE", value_parser = Drawing::parse)]
    draw: Option<Drawing>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl crate::command::Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        run(self, out)
    }

    fn json(&self) -> bool {
        self.json
    }

    /// Checks that there is a platform with this number of LPs and sockets.
    fn check(&self) -> Result<(), String> {
        Config::new(self.lps, self.sockets, 0, TEST_SIGNER, LoaderProfile::V1_5_00)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// A module, as `simulate` shows it.
#[derive(Clone, Serialize)]
struct Module {
    svn: String,
    seamhash: String,
}

impl Module {
    fn of(sigstruct: &SeamSigstruct) -> Self {
        Self { svn: sigstruct.svn().to_string(), seamhash: hex(&sigstruct.seamhash) }
    }
}

/// One finding of parsing or preflight.
#[derive(Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

/// How many LPs finished a stage.
#[derive(Serialize)]
struct StageReport {
    stage: String,
    finished: u32,
}

/// What stopped an update that had begun.
#[derive(Serialize)]
struct FailureReport {
    stage: String,
    lp: u32,
    message: String,
}

/// What `simulate` prints at the end.
#[derive(Serialize)]
struct Report {
    outcome: &'static str,
    message: String,
    from: Module,
    to: Option<Module>,
    version: Option<String>,
    lps: u32,
    sockets: u32,
    cpu: String,
    tds_before: usize,
    tds_alive: usize,
    seamcalls: usize,
    remaining_updates: u32,
    reasons: Vec<Reason>,
    notes: Vec<String>,
    stages: Vec<StageReport>,
    failure: Option<FailureReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trace: Vec<String>,
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Error> {
    let (from, to) = match (&arguments.from, &arguments.to) {
        (Some(from), Some(to)) => (file::read(from)?, file::read(to)?),
        _ => (
            TestImage::default().build(),
            TestImage { svn_minor: 6, date: 0x20240501, ..TestImage::default() }.build(),
        ),
    };
    let from_path = arguments.from.as_deref().unwrap_or(Path::new("the image to boot from"));
    let simulation = Simulation::boot(arguments, &file::parse(from_path, &from)?, out)?;
    simulation.say(&simulation.introduction())?;
    let (report, exit) = match TdxImage::parse(to.as_bytes()) {
        Ok(image) => simulation.update(&image)?,
        Err(error) => {
            let reason = Reason { code: error.code(), message: error.to_string() };
            simulation.refused(None, vec![reason])?
        }
    };
    if let Some(drawing) = &arguments.draw {
        drawing.write(&Run {
            id: "run",
            calls: &simulation.platform.trace(),
            before: simulation.calls_before.get(),
            lps: usize::try_from(arguments.lps).unwrap_or(usize::MAX),
            tds: (report.tds_before, report.tds_alive),
            message: &report.message,
        })?;
    }
    let out = simulation.out.into_inner();
    if arguments.json {
        print_json(out, "simulate", &report)?;
    } else {
        print(out, &report.conclusion())?;
    }
    Ok(exit)
}

/// Says if Intel's table wants a newer running module before this update. P-SEAMLDR has no such
/// rule.
fn below_minimum(from: &Sha384Digest, to: &Sha384Digest) -> Option<String> {
    let releases = Releases::built_in();
    let (from, to) = (releases.by_mrseam(from)?, releases.by_mrseam(to)?);
    let minimum = to.min_module.filter(|minimum| from.version < *minimum)?;
    Some(format!(
        "Intel's table wants {minimum} or newer to run before {}; P-SEAMLDR's own rules do not \
         ask for it",
        to.version
    ))
}

/// A platform that has booted, with its TDs.
struct Simulation<'a> {
    arguments: &'a Arguments,
    platform: SimPlatform,
    fms: u32,
    from: Module,
    from_hash: Sha384Digest,
    notes: RefCell<Vec<String>>,
    /// How many calls there were when the update began.
    calls_before: Cell<usize>,
    out: RefCell<&'a mut dyn Write>,
}

impl<'a> Simulation<'a> {
    /// Boots a platform that fits the image: its processors are in the image's list, its P-SEAMLDR
    /// is of the image's line and trusts Intel, or the test key if that one signed the image.
    fn boot(
        arguments: &'a Arguments,
        from: &TdxImage<'_>,
        out: &'a mut dyn Write,
    ) -> Result<Self, Error> {
        let sigstruct = from.sigstruct();
        let signer = match verify(from).signer {
            Signer::Unknown(TEST_SIGNER) => TEST_SIGNER,
            Signer::IntelProduction | Signer::Unknown(_) => INTEL_PRODUCTION_SIGNER,
        };
        let platform = SimPlatform::builder()
            .lps(arguments.lps)
            .sockets(arguments.sockets)
            .fitting(from)
            .signer(signer)
            .boot(from)?;
        for _ in 0..arguments.tds {
            platform.create_td()?;
        }
        let [fms, ..] = platform.with_model(|model| model.config().socket_fms);
        let (from, from_hash, notes) =
            (Module::of(sigstruct), sigstruct.seamhash, RefCell::default());
        let (calls_before, out) = (Cell::new(usize::MAX), RefCell::new(out));
        Ok(Self { arguments, platform, fms, from, from_hash, notes, calls_before, out })
    }

    fn introduction(&self) -> String {
        let (lps, sockets) = (self.arguments.lps, self.arguments.sockets);
        let truth = self.platform.truth();
        let (loader, version) = self.platform.with_model(|model| {
            let profile = model.config().profile;
            let loader = format!("{}.{}.00", profile.major, profile.minor);
            (
                loader,
                model
                    .module()
                    .map_or_else(String::new, |module| module.build().version.to_string()),
            )
        });
        let remaining = truth.remaining_updates;
        let s = if sockets == 1 { "" } else { "s" };
        format!(
            "platform   {lps} LPs, {sockets} socket{s} of {:#010x}, P-SEAMLDR {loader}, \
             {remaining} updates remain\nmodule     {version}, SVN {}, {} TDs",
            self.fms, self.from.svn, truth.tds
        )
    }

    /// Says something to a person.
    fn say(&self, text: &str) -> Result<(), Error> {
        if self.arguments.json {
            Ok(())
        } else {
            print(*self.out.borrow_mut(), text)
        }
    }

    fn update(&self, image: &TdxImage<'_>) -> Result<(Report, Exit), Error> {
        let to = Module::of(image.sigstruct());
        self.say(&format!(
            "image      {}, SVN {}, {} pages",
            image.format(),
            to.svn,
            image.module_pages()
        ))?;
        if let Some(note) = below_minimum(&self.from_hash, &image.sigstruct().seamhash) {
            self.say(&format!("note       {note}"))?;
            self.notes.borrow_mut().push(note);
        }
        let facts = self.platform.facts()?;
        let policy =
            Policy { allow_same_module: self.arguments.allow_same_module, ..Policy::default() };
        let mut reasons = Vec::new();
        let Ok(passed) = preflight(image, &facts, &RustCrypto, policy, &mut |finding| {
            reasons.push(Reason { code: finding.code(), message: finding.to_string() });
        }) else {
            return self.refused(Some(to), reasons);
        };
        self.say("preflight  passed")?;

        let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
        let (host, state) = (self.platform.lp(0), self.platform.module_state());
        let update = match Update::new(&passed, params.as_params(), &info, &host, state) {
            Ok(update) => update,
            Err(error) => {
                let reason = Reason { code: "cannot-install", message: error.to_string() };
                return self.refused(Some(to), vec![reason]);
            }
        };
        self.calls_before.set(self.platform.num_calls());
        let outcome = self.run(&update);
        self.ended(Some(to), &outcome)
    }

    /// Runs the update on all CPUs of this machine. On a terminal, a bar for each stage moves
    /// meanwhile.
    fn run(&self, update: &Update<'_>) -> Outcome {
        if self.arguments.json || !std::io::stdout().is_terminal() {
            return run_on_threads(&self.platform, update);
        }
        std::thread::scope(|threads| {
            let platform = &self.platform;
            let update_thread = threads.spawn(|| run_on_threads(platform, update));
            let bar = ProgressBar::new(self.arguments.lps.into());
            if let Ok(style) = ProgressStyle::with_template("{msg:<10} {bar:40} {pos}/{len} LPs") {
                bar.set_style(style);
            }
            while !update_thread.is_finished() {
                let (stage, acks) = update.progress();
                bar.set_message(stage.to_string());
                bar.set_position(acks.into());
                std::thread::sleep(Duration::from_millis(1));
            }
            bar.finish_and_clear();
        });
        update.outcome()
    }

    fn refused(&self, to: Option<Module>, reasons: Vec<Reason>) -> Result<(Report, Exit), Error> {
        for reason in &reasons {
            self.say(&format!("refused    {}", reason.message))?;
        }
        Ok((Report { reasons, ..self.standing(to) }, Exit::Refused))
    }

    fn ended(&self, to: Option<Module>, outcome: &Outcome) -> Result<(Report, Exit), Error> {
        let stages = Stage::ALL.into_iter().filter(|stage| *stage != Stage::Done);
        let stages: Vec<_> = stages
            .map(|stage| StageReport {
                stage: stage.to_string(),
                finished: outcome.finished(stage),
            })
            .collect();
        for stage in &stages {
            self.say(&format!(
                "stage      {:<10} {}/{} LPs",
                stage.stage, stage.finished, outcome.lps
            ))?;
        }
        let report = Report {
            outcome: outcome.code(),
            message: outcome.to_string(),
            stages,
            failure: outcome.failure.map(|failure| FailureReport {
                stage: failure.stage.to_string(),
                lp: failure.lp,
                message: failure.cause.to_string(),
            }),
            ..self.standing(to)
        };
        Ok((report, Exit::of_outcome(outcome)))
    }

    /// How things stand, as for an update that was refused for no reason yet.
    fn standing(&self, to: Option<Module>) -> Report {
        let truth = self.platform.truth();
        Report {
            outcome: "refused",
            message: "not updated; this update shut nothing down, and the TDs are as before"
                .to_owned(),
            from: self.from.clone(),
            to,
            version: truth.module.map(|module| module.version.to_string()),
            lps: self.arguments.lps,
            sockets: self.arguments.sockets,
            cpu: format!("{:#010x}", self.fms),
            tds_before: truth.tds,
            tds_alive: truth.tds_alive,
            seamcalls: self.platform.num_calls(),
            remaining_updates: truth.remaining_updates,
            reasons: Vec::new(),
            notes: self.notes.borrow().clone(),
            stages: Vec::new(),
            failure: None,
            trace: self.trace(),
        }
    }

    fn trace(&self) -> Vec<String> {
        if self.arguments.trace {
            self.platform.trace().iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        }
    }
}

impl Report {
    fn conclusion(&self) -> String {
        let mut lines = self.trace.clone();
        lines.push(self.message.clone());
        lines.push(format!(
            "{} of {} TDs alive, {} SEAMCALLs, {} updates remain",
            self.tds_alive, self.tds_before, self.seamcalls, self.remaining_updates
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_host::parse_version;

    #[test]
    fn note_names_intels_minimum_where_p_seamldr_would_take_less() {
        let releases = Releases::built_in();
        let hash = |text| releases.by_version(parse_version(text).unwrap()).unwrap().mrseam;
        let note = below_minimum(&hash("2.0.02"), &hash("2.0.08")).unwrap();
        assert!(note.contains("2.0.04") && note.contains("P-SEAMLDR"), "{note}");
        assert_eq!(below_minimum(&hash("2.0.04"), &hash("2.0.08")), None);
        assert_eq!(below_minimum(&[7; 48], &hash("2.0.08")), None);
    }
}
