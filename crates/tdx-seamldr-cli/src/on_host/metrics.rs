//! `tdx-seamldr metrics`: the state of this host, for Prometheus.

use std::io::Write;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use prometheus::{GaugeVec, Opts, Registry, TextEncoder};
use tdx_seamldr_host::record::{Attempt, Event, History, Journal};
use tdx_seamldr_host::text::hex;
use tdx_seamldr_host::{Catalogue, Host, Plan};

use super::options::{CatalogueOptions, HostOptions, RequestOptions};
use super::status::{readable, updatable};
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::output::{print, print_json};

/// Arguments of `metrics`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write the metrics to this file, as a whole or not at all; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    catalogue: CatalogueOptions,
    #[command(flatten)]
    request: RequestOptions,
}

/// What `metrics` prints with `--json`.
#[derive(serde::Serialize)]
struct Report {
    /// The metrics in Prometheus' text format.
    text: String,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.host.root();
        let config = self.host.config(&root)?;
        let mut catalogue = self.catalogue.catalogue(&root, &config)?;
        let request = self.request.request(&config, &mut catalogue, None)?;
        let host = Host::read(&root);
        let plan = Plan::new(&host, &catalogue, &request);
        let (history, problem) = readable(Journal::new(&root, &self.host.state(&config)?).read());
        if let Some(problem) = problem {
            // The host's own state is worth having without the record.
            let _ = writeln!(complaints, "tdx-seamldr: warning: {problem}");
        }
        let text = text(&host, &catalogue, &plan, &history)?;
        let written = self.output.as_deref().filter(|path| !file::is_stdout(path));
        if let Some(output) = written {
            file::write(output, text.as_bytes())?;
        }
        if self.host.json {
            print_json(out, "metrics", &Report { text })?;
        } else if written.is_none() {
            print(out, text.trim_end())?;
        }
        Ok(Exit::Done)
    }

    fn json(&self) -> bool {
        self.host.json
    }
}

/// Gauges that are registered as they are set.
struct Gauges(Registry);

impl Gauges {
    /// Sets a gauge. A gauge that is not set does not appear.
    fn set(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Result<(), prometheus::Error> {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        let gauge = GaugeVec::new(Opts::new(name, help), &names)?;
        gauge.get_metric_with_label_values(&values)?.set(value);
        self.0.register(Box::new(gauge))
    }
}

/// Returns the metrics in Prometheus' text format. A value that the host does not tell is left out.
fn text(
    host: &Host,
    catalogue: &Catalogue,
    plan: &Plan,
    history: &History,
) -> Result<String, prometheus::Error> {
    let gauges = Gauges(Registry::new());
    let number = |is: bool| f64::from(u8::from(is));
    let version = host.module.as_ref().ok().map(|found| found.value);
    if let Some(version) = version {
        let release = catalogue.releases().by_version(version);
        let svn = release.map(|release| release.svn.to_string()).unwrap_or_default();
        let mrseam = release.map(|release| hex(&release.mrseam)).unwrap_or_default();
        gauges.set(
            "tdx_module_info",
            "The running TDX module. SVN and MRSEAM are those of the table of releases.",
            &[("version", &version.to_string()), ("svn", &svn), ("mrseam", &mrseam)],
            1.0,
        )?;
    }
    gauges.set(
        "tdx_module_running",
        "1 if a TDX module runs, 0 if none runs or the host does not tell.",
        &[],
        number(version.is_some()),
    )?;
    if let Ok(seamldr) = &host.seamldr {
        gauges.set(
            "tdx_seamldr_info",
            "P-SEAMLDR, the loader of the TDX module.",
            &[("version", &seamldr.value.to_string())],
            1.0,
        )?;
    }
    if let Ok(remaining) = &host.remaining_updates {
        gauges.set(
            "tdx_module_remaining_updates",
            "Updates of the TDX module that remain until a reboot.",
            &[],
            f64::from(remaining.value),
        )?;
    }
    if let (Some(is_updatable), _) = updatable(host) {
        gauges.set(
            "tdx_module_updatable",
            "1 if the TDX module can be replaced now, as far as the host alone decides.",
            &[],
            number(is_updatable),
        )?;
    }
    let is_available = plan
        .candidates
        .iter()
        .any(|image| image.newer == Some(true) && image.genuine && image.reasons.is_empty());
    gauges.set(
        "tdx_module_update_available",
        "1 if an image at hand is newer than the running module and fits this host.",
        &[],
        number(is_available),
    )?;
    if let Some(attempt) = history.attempts().last() {
        last_attempt(&gauges, attempt)?;
    }
    TextEncoder::new().encode_to_string(&gauges.0.gather())
}

fn last_attempt(gauges: &Gauges, attempt: &Attempt<'_>) -> Result<(), prometheus::Error> {
    let (from, to) = match &attempt.began.event {
        Event::Began { from, to, .. } => (from.as_str(), to.as_deref().unwrap_or_default()),
        Event::Committing | Event::Ended { .. } => Default::default(),
    };
    let outcome = match attempt.ended.map(|record| &record.event) {
        Some(Event::Ended { outcome, .. }) => outcome,
        _ => "interrupted",
    };
    gauges.set(
        "tdx_module_last_attempt_info",
        "The last attempt to replace the TDX module.",
        &[("from", from), ("to", to), ("outcome", outcome)],
        1.0,
    )?;
    let since_1970 =
        attempt.began.system_time().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    if let Some(since_1970) = since_1970 {
        gauges.set(
            "tdx_module_last_attempt_timestamp_seconds",
            "When the last attempt to replace the TDX module began, in seconds since 1970.",
            &[],
            since_1970.as_secs_f64(),
        )?;
    }
    Ok(())
}
