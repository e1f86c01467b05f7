//! `tdx-seamldr list`: lists the public releases and the images in the image folders.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_host::text::hex;
use tdx_seamldr_host::{Catalogue, Host, Release};

use super::options::{CatalogueOptions, HostOptions};
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file::shown;
use crate::output::{print, print_json};
use crate::page::Page;

/// Arguments of `list`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    catalogue: CatalogueOptions,
}

/// The JSON object of `list`.
#[derive(Serialize)]
struct Report {
    running: Option<String>,
    releases: Vec<ReleaseLine>,
    images: Vec<ImageLine>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct ReleaseLine {
    version: String,
    svn: String,
    platforms: Vec<&'static str>,
    image_is_public: bool,
    min_module: Option<String>,
    min_seamldr: Vec<String>,
    mrseam: String,
    files: Vec<String>,
}

#[derive(Serialize)]
struct ImageLine {
    file: String,
    version: Option<String>,
    genuine: bool,
    format: &'static str,
    mrseam: String,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.host.root();
        let config = self.host.config(&root)?;
        let catalogue = self.catalogue.catalogue(&root, &config)?;
        let running = Host::read(&root).module.ok().map(|found| found.value.to_string());
        let report = Report {
            running,
            releases: catalogue
                .releases()
                .all()
                .iter()
                .map(|release| line(release, &catalogue))
                .collect(),
            images: catalogue
                .images()
                .iter()
                .map(|image| ImageLine {
                    file: shown(image.path()),
                    version: image.version().map(|version| version.to_string()),
                    genuine: image.is_genuine(),
                    format: image.format().name(),
                    mrseam: hex(image.mrseam()),
                })
                .collect(),
            problems: catalogue.problems().iter().map(ToString::to_string).collect(),
        };
        if self.host.json {
            print_json(out, "list", &report)?;
        } else {
            print(out, &text(&report))?;
        }
        Ok(Exit::Done)
    }

    fn json(&self) -> bool {
        self.host.json
    }
}

fn line(release: &Release, catalogue: &Catalogue) -> ReleaseLine {
    let minimums = catalogue.minimums(release.version);
    let of_release = catalogue
        .images()
        .iter()
        .filter(|image| *image.mrseam() == release.mrseam && image.is_genuine());
    ReleaseLine {
        version: release.version.to_string(),
        svn: release.svn.to_string(),
        platforms: release.platforms.iter().map(|platform| platform.code()).collect(),
        image_is_public: release.image,
        min_module: minimums.module.map(|version| version.to_string()),
        min_seamldr: minimums.oldest_seamldr().iter().map(ToString::to_string).collect(),
        mrseam: hex(&release.mrseam),
        files: of_release.map(|image| shown(image.path())).collect(),
    }
}

fn text(report: &Report) -> String {
    let mut page = Page::default();
    page.line(format_args!(
        "{:<9} {:<6} {:<12} {:<7}  {}",
        "VERSION", "SVN", "PLATFORMS", "IMAGE", "MRSEAM"
    ));
    for release in &report.releases {
        let image = match (release.files.is_empty(), release.image_is_public) {
            (false, _) => "here",
            (true, true) => "public",
            (true, false) => "-",
        };
        let mark = if report.running.as_ref() == Some(&release.version) { " <- runs" } else { "" };
        let platforms = release.platforms.join(" ");
        let mrseam = release.mrseam.get(..16).unwrap_or_default();
        page.line(format_args!(
            "{:<9} {:<6} {platforms:<12} {image:<7}  {mrseam}...{mark}",
            release.version, release.svn
        ));
    }
    page.gap();
    if report.images.is_empty() {
        page.line(
            "The image folders hold no image. --image-dir or image-dir in the configuration name \
             folders.",
        );
    }
    for image in &report.images {
        let genuine = if image.genuine { "genuine" } else { "NOT GENUINE" };
        let version = image.version.as_deref().unwrap_or("unknown version");
        page.item(format_args!("{}: {version}, {}, {genuine}", image.file, image.format));
    }
    for problem in &report.problems {
        page.item(format_args!("ignored: {problem}"));
    }
    page.into_text()
}
