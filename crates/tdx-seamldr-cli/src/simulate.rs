//! `tdx-seamldr simulate`: a whole update on the simulated platform.

mod options;
mod report;

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, PassedUpdate, Policy, PreparedImage, Purpose,
};
use tdx_seamldr_core::update::{Outcome, Stage, Update};
use tdx_seamldr_core::{Sha384Digest, SharedInfo, TdxImage, INTEL_PRODUCTION_SIGNER};
use tdx_seamldr_host::Releases;
use tdx_seamldr_mock::model::{Config, LoaderProfile, TdId, TdPhase};
use tdx_seamldr_mock::{run_on_threads, FaultId, PageBuf, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::{verify, RustCrypto, Signer};

use crate::drawing::{Drawing, Run};
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::output::{counted, print, print_json};
use options::NamedFault;
use report::{FailureReport, Module, Reason, Report, StageReport};

/// How often an LP polls the other LPs before it gives up. Set only with faults, which can keep an
/// LP away.
const PATIENCE: u32 = 1_000_000;

#[derive(clap::Args)]
#[command(after_help = options::EXAMPLES)]
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
    /// TDs in build: the update can damage their measurement
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=64))]
    tds_in_build: u16,
    /// This LP is offline; can be given more than once
    #[arg(long, value_name = "LP")]
    offline: Vec<u32>,
    /// Updates that remain before the update
    #[arg(long, value_name = "N", default_value_t = 63)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    remaining: u32,
    /// The processors: CPUID.1:EAX in hexadecimal, or a name; otherwise the
    /// first in the list of the image that runs
    #[arg(long, value_name = "FMS|NAME", value_parser = options::cpu)]
    cpu: Option<u32>,
    /// The generation of P-SEAMLDR: 1.0, 1.5.00, newer or 2.0.00; otherwise
    /// that of the line of the image that runs
    #[arg(long, value_name = "GENERATION", value_parser = options::seamldr)]
    seamldr: Option<LoaderProfile>,
    /// A call of the update that fails, see below; can be given more than once
    #[arg(long = "fault", value_name = "SPEC", value_parser = options::fault)]
    faults: Vec<NamedFault>,
    /// Do not fall back on the module that ran before
    #[arg(long)]
    no_fallback: bool,
    /// Update although TDs in build get a wrong measurement
    #[arg(long)]
    allow_damage: bool,
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

    /// Checks that the options describe a possible platform.
    fn check(&self) -> Result<(), String> {
        self.check_together()?;
        Config::new(self.lps, self.sockets, 0, TEST_SIGNER, LoaderProfile::V1_5_00)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// The small images that are used if none is given. With `cpu`, the first one runs on it.
fn test_images(cpu: Option<u32>) -> [PageBuf; 2] {
    let old = TestImage::default();
    let new = TestImage { svn_minor: 6, date: 0x20240501, ..TestImage::default() };
    let cpus = cpu.into_iter().chain(old.cpus.iter().copied()).collect();
    [TestImage { cpus, ..old }.build(), new.build()]
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Error> {
    let [from, to] = match (&arguments.from, &arguments.to) {
        (Some(from), Some(to)) => [file::read(from)?, file::read(to)?],
        _ => test_images(arguments.cpu),
    };
    let from_path = arguments.from.as_deref().unwrap_or(Path::new("the image to boot from"));
    let from = file::parse(from_path, &from)?;
    let simulation = Simulation::boot(arguments, &from, out)?;
    simulation.say(&simulation.introduction())?;
    let (report, exit) = match TdxImage::parse(to.as_bytes()) {
        Ok(image) => simulation.update(&image, &from)?,
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

/// Returns a note if Intel's table requires a newer running module. P-SEAMLDR has no such rule.
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
    tds: Vec<TdId>,
    fms: u32,
    from: Module,
    from_hash: Sha384Digest,
    notes: RefCell<Vec<String>>,
    /// The number of calls before the update began.
    calls_before: Cell<usize>,
    out: RefCell<&'a mut dyn Write>,
}

impl<'a> Simulation<'a> {
    /// Boots a platform that fits the image: a processor of its list, and P-SEAMLDR of its line.
    /// P-SEAMLDR trusts Intel, or the test key if that key signed the image.
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
        let mut builder = SimPlatform::builder()
            .lps(arguments.lps)
            .sockets(arguments.sockets)
            .fitting(from)
            .signer(signer)
            // The module at boot is in the count.
            .seamdb_size(arguments.remaining.saturating_add(1));
        if let Some(cpu) = arguments.cpu {
            builder = builder.fms(cpu);
        }
        if let Some(profile) = arguments.seamldr {
            builder = builder.profile(profile);
        }
        if !arguments.faults.is_empty() {
            builder = builder.patience(PATIENCE);
        }
        for lp in &arguments.offline {
            builder = builder.offline(*lp);
        }
        let platform = builder.boot(from)?;
        let running = (0..arguments.tds).map(|_| TdPhase::Running);
        let in_build = (0..arguments.tds_in_build).map(|_| TdPhase::Build);
        let tds = running.chain(in_build).map(|phase| platform.create_td_in(phase));
        let tds = tds.collect::<Result<_, _>>()?;
        let [fms, ..] = platform.with_model(|model| model.config().socket_fms);
        let (from, from_hash, notes) =
            (Module::of(sigstruct), sigstruct.seamhash, RefCell::default());
        let (calls_before, out) = (Cell::new(usize::MAX), RefCell::new(out));
        Ok(Self { arguments, platform, tds, fms, from, from_hash, notes, calls_before, out })
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
        format!(
            "platform   {}, {} of {:#010x}, P-SEAMLDR {loader}, {} left\nmodule     {version}, \
             SVN {}, {}",
            counted(lps, "LP"),
            counted(sockets, "socket"),
            self.fms,
            counted(remaining, "update"),
            self.from.svn,
            self.tds_in_words()
        )
    }

    fn tds_in_words(&self) -> String {
        let running = counted(self.arguments.tds, "TD");
        match self.arguments.tds_in_build {
            0 => running,
            in_build => format!("{running}, {} in build", counted(in_build, "TD")),
        }
    }

    /// Prints lines, unless the report is a JSON object.
    fn say(&self, text: &str) -> Result<(), Error> {
        if self.arguments.json {
            Ok(())
        } else {
            print(*self.out.borrow_mut(), text)
        }
    }

    /// Adds a note to the report.
    fn note(&self, note: String) -> Result<(), Error> {
        self.say(&format!("note       {note}"))?;
        self.notes.borrow_mut().push(note);
        Ok(())
    }

    fn policy(&self) -> Policy {
        Policy {
            allow_same_module: self.arguments.allow_same_module,
            allow_damage: self.arguments.allow_damage,
            ..Policy::default()
        }
    }

    fn update(&self, image: &TdxImage<'_>, old: &TdxImage<'_>) -> Result<(Report, Exit), Error> {
        let to = Module::of(image.sigstruct());
        let release =
            to.release.as_ref().map_or_else(String::new, |version| format!("{version}, "));
        self.say(&format!(
            "image      {release}{}, SVN {}, {} pages",
            image.format(),
            to.svn,
            image.module_pages()
        ))?;
        if let Some(note) = below_minimum(&self.from_hash, &image.sigstruct().seamhash) {
            self.note(note)?;
        }
        let facts = self.platform.facts()?;
        let mut reasons = Vec::new();
        let Ok(passed) = preflight(image, &facts, &RustCrypto, self.policy(), &mut |finding| {
            reasons.push(finding.into());
        }) else {
            return self.refused(Some(to), reasons);
        };
        self.say("preflight  passed")?;

        let (mut params, mut fallback_params) = (PageBuf::zeroed(1), PageBuf::zeroed(1));
        let fallback = self.fallback(old, &facts, &passed, &mut fallback_params)?;
        let info = SharedInfo::new();
        let (host, state) = (self.platform.lp(0), self.platform.module_state());
        let update = Update::new(&passed, params.as_params(), &info, &host, state)
            .and_then(|update| update.with_fallbacks(fallback.as_slice()));
        let update = match update {
            Ok(update) => update,
            Err(error) => {
                let reason = Reason { code: "cannot-install", message: error.to_string() };
                return self.refused(Some(to), vec![reason]);
            }
        };
        let faults = &self.arguments.faults;
        let planned: Vec<FaultId> =
            faults.iter().map(|named| self.platform.inject(named.fault)).collect();
        self.calls_before.set(self.platform.num_calls());
        let outcome = self.run(&update);
        let unfired = self.platform.unfired_faults();
        for (id, named) in planned.iter().zip(faults) {
            if unfired.iter().any(|(other, _)| other == id) {
                self.note(format!("the fault {} struck no call", named.text))?;
            }
        }
        self.ended(Some(to), &outcome)
    }

    /// Prepares the module that runs, to fall back on it. `None`, with a note, if its image does
    /// not pass preflight.
    fn fallback<'b>(
        &self,
        old: &TdxImage<'b>,
        facts: &Facts,
        passed: &PassedUpdate<'_>,
        params: &'b mut PageBuf,
    ) -> Result<Option<PreparedImage<'b>>, Error> {
        if self.arguments.no_fallback {
            return Ok(None);
        }
        let purpose = Purpose::TakeOver { handoff_version: passed.handoff_version() };
        let mut reasons = Vec::new();
        let old =
            preflight_image(old, facts, purpose, &RustCrypto, self.policy(), &mut |finding| {
                reasons.push(finding.to_string());
            });
        let host = self.platform.lp(0);
        let prepared = old.map_err(|_| reasons.join("; ")).and_then(|old| {
            old.prepare(params.as_params(), &host).map_err(|error| error.to_string())
        });
        match prepared {
            Ok(prepared) => Ok(Some(prepared)),
            Err(reason) => {
                self.note(format!("the update cannot fall back on the old module: {reason}"))?;
                Ok(None)
            }
        }
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
            rounds: outcome.rounds,
            failure: FailureReport::of(outcome),
            ..self.standing(to)
        };
        Ok((report, Exit::of_outcome(outcome)))
    }

    /// Returns the report on the platform as it is now: outcome `refused`, without reasons.
    fn standing(&self, to: Option<Module>) -> Report {
        let truth = self.platform.truth();
        let is_damaged = |td: &&TdId| self.platform.td_measurement_is_right(**td) == Some(false);
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
            tds_damaged: self.tds.iter().filter(is_damaged).count(),
            seamcalls: self.platform.num_calls(),
            remaining_updates: truth.remaining_updates,
            rounds: 0,
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
