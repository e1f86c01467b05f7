//! Warnings: what the operator should know before an update that may begin.

use tdx_seamldr_core::TdxVersion;

use super::running::Running;
use super::{Plan, Step};
use crate::catalogue::{Catalogue, Image, VersionSource};
use crate::host::{Host, Interface};
use crate::releases::{Platform, Release};

/// The first handoff version of modules that lose their opt-ins in an update by Linux.
const FIRST_WITH_OPT_INS: u16 = 1;

pub(super) fn warnings(
    host: &Host,
    catalogue: &Catalogue,
    plan: &Plan,
    running: Option<&Running<'_>>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(running) = running.filter(|running| !running.is_known()) {
        warnings.push(format!(
            "the running module {} is not in the table of releases: a BIOS may bring a module \
             that Intel never published. The rules on its SVN, hash and handoff versions cannot \
             be checked",
            running.version
        ));
    }
    for path in &host.staged {
        warnings.push(format!(
            "{path} is staged for the next boot; it is not the running module, and some firmware \
             ignores it"
        ));
    }
    if !plan.steps.is_empty() {
        warnings.push(
            "after the update only a reboot leads back: P-SEAMLDR refuses an older SVN; the \
             module in the BIOS runs again after the next boot"
                .into(),
        );
    }
    let newest = plan.steps.last().and_then(|step| catalogue.images().get(step.image)?.version());
    if let Some(newest) = newest.or(running.map(|running| running.version)) {
        let newer = newer_releases(host, catalogue, newest);
        if !newer.is_empty() {
            warnings.push(format!(
                "the table has newer releases for this host, but the image folders hold no image \
                 of them: {}",
                newer.join(", ")
            ));
        }
    }
    let mut before = running.copied();
    for step in &plan.steps {
        let Some(image) = catalogue.images().get(step.image) else { continue };
        let after = image.version().map(|version| Running::of_image(image, version, catalogue));
        of_minimums(&mut warnings, catalogue, step, image);
        of_step(&mut warnings, host, step, image, before.as_ref(), after.as_ref());
        before = after;
    }
    warnings
}

/// Returns newer releases of the same line for all processors of the host without an image in the
/// catalogue.
fn newer_releases(host: &Host, catalogue: &Catalogue, newest: TdxVersion) -> Vec<String> {
    let platforms: Option<Vec<_>> =
        host.signatures().into_iter().map(Platform::of_processor).collect();
    let Some(platforms) = platforms.filter(|platforms| !platforms.is_empty()) else {
        return Vec::new();
    };
    let is_successor = |release: &&Release| {
        let version = release.version;
        (version.major, version.minor) == (newest.major, newest.minor)
            && version > newest
            && platforms.iter().all(|platform| release.platforms.contains(platform))
            && catalogue.image_of(version).is_none()
    };
    let releases = catalogue.releases().all().iter();
    releases.filter(is_successor).map(|release| release.version.to_string()).collect()
}

/// Adds a warning for each minimum that no source names.
fn of_minimums(warnings: &mut Vec<String>, catalogue: &Catalogue, step: &Step, image: &Image) {
    let name = step.to.clone().unwrap_or_else(|| step.file.display().to_string());
    let minimums = image.version().map(|version| catalogue.minimums(version)).unwrap_or_default();
    if minimums.module.is_none() {
        warnings.push(format!("no source names the oldest running module for {name}"));
    }
    if minimums.seamldr.is_empty() {
        warnings.push(format!("no source names the oldest P-SEAMLDR for {name}"));
    }
}

fn of_step(
    warnings: &mut Vec<String>,
    host: &Host,
    step: &Step,
    image: &Image,
    before: Option<&Running<'_>>,
    after: Option<&Running<'_>>,
) {
    let name = step.to.as_deref().unwrap_or("the image");
    match image.version_source() {
        Some(VersionSource::Hash) => {}
        _ => warnings.push(format!(
            "the table of releases does not have the hash of {}: {name} is what the file's name \
             says",
            step.file.display()
        )),
    }
    let context = |module: Option<&Running<'_>>| module.and_then(Running::crypto_context);
    match (context(before), context(after)) {
        (Some(old), Some(new)) if old != new => warnings.push(format!(
            "{} and {name} keep the crypto contexts of TDs in different forms ({old} and {new}): \
             the update will break a TD in build or in migration",
            step.from
        )),
        _ => {}
    }
    let svn_of = |module: Option<&Running<'_>>| module.and_then(Running::svn);
    if let (Some(old), Some(new), Some(was), Some(is)) = (
        before.map(|module| module.version),
        after.map(|module| module.version),
        svn_of(before),
        svn_of(after),
    ) {
        if new < old && was == is {
            warnings.push(format!("{new} is an older version than {old} with the same SVN {is}"));
        }
    }
    let has_opt_ins =
        image.parse().is_ok_and(|image| image.sigstruct().module_hv.get() >= FIRST_WITH_OPT_INS);
    if has_opt_ins && host.interface == Ok(Interface::Flat) {
        warnings.push(format!(
            "Linux updates to {name} without its opt-ins: update compatibility is off afterwards, \
             and td_id in quotes is 0 even if the host had enabled it"
        ));
    }
}
