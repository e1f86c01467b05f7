//! Chooses the image, and the steps to it.

use std::cmp::Reverse;
use std::collections::VecDeque;

use tdx_seamldr_core::preflight::Refusal;
use tdx_seamldr_core::TdxVersion;

use super::reason::{Question, Reason, Scope};
use super::rules::{judge, judge_host, Judged};
use super::running::Running;
use super::warnings::warnings;
use super::{Candidate, Plan, Request, Step, Target, Verdict};
use crate::catalogue::{Catalogue, Image};
use crate::fact::Reason as Absence;
use crate::host::Host;
use crate::text::hex;

/// The most updates in a plan.
const MAX_STEPS: usize = 8;

/// The input of a plan.
struct World<'c> {
    host: &'c Host,
    catalogue: &'c Catalogue,
    request: &'c Request,
    running: Option<Running<'c>>,
}

pub(super) fn plan(host: &Host, catalogue: &Catalogue, request: &Request) -> Plan {
    let version = host.module.as_ref().ok().map(|found| found.value);
    let running = version.map(|version| Running::of_version(version, catalogue));
    let world = World { host, catalogue, request, running };
    let judged: Vec<Judged> = catalogue
        .images()
        .iter()
        .map(|image| world.judge(world.running.as_ref(), image, 0))
        .collect();
    let mut plan = Plan {
        verdict: Verdict::Refused,
        running: version.map(|version| version.to_string()),
        running_is_known: world.running.is_some_and(|running| running.is_known()),
        steps: Vec::new(),
        reasons: before_preflight(host),
        questions: Vec::new(),
        warnings: Vec::new(),
        candidates: catalogue
            .images()
            .iter()
            .zip(&judged)
            .map(|(image, judged)| world.candidate(image, judged))
            .collect(),
    };
    match world.target(&judged) {
        Ok(None) => {
            // Reasons of an image or of the LPs do not matter if no update is due. If the host can
            // take no update now, another program may be replacing the module, and the plan cannot
            // say that nothing is due.
            plan.verdict =
                if plan.reasons.is_empty() { Verdict::NothingToDo } else { Verdict::Refused };
        }
        Ok(Some(target)) => world.add_steps(&mut plan, target, &judged),
        Err(reason) => plan.reasons.push(reason),
    }
    plan.warnings = warnings(host, catalogue, &plan, world.running.as_ref());
    plan
}

/// Returns the reasons against any update of a host, and what could not be checked.
pub(super) fn about_host(host: &Host) -> (Vec<Reason>, Vec<Question>) {
    let mut reasons = before_preflight(host);
    if host.interface.is_err() {
        // The facts for core's rules are absent for the same reason.
        return (reasons, Vec::new());
    }
    let judged = judge_host(host);
    for reason in judged.reasons {
        if !reasons.contains(&reason) {
            reasons.push(explain(host, reason));
        }
    }
    (reasons, judged.questions)
}

/// Returns the reasons against any update that preflight does not check.
fn before_preflight(host: &Host) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match (&host.interface, &host.module) {
        (Err(none), _) => reasons.push(Reason::new(Scope::Host, "no-interface", none.to_string())),
        (Ok(_), Ok(_)) => {}
        (Ok(_), Err(absent)) if absent.reason == Absence::NoDevice => {
            reasons.push(Refusal::NoModule.into())
        }
        (Ok(_), Err(absent)) => {
            let message = format!("the version of the running module is unknown: {absent}");
            reasons.push(
                Reason::new(Scope::Host, "unknown-version", message)
                    .advise("run the command as root"),
            );
        }
    }
    if let Ok(status) = &host.upload_status {
        if status.value != "idle" {
            let message = format!(
                "another upload to {} is running: its status is {:?}, but should be \"idle\"",
                status.source, status.value
            );
            // The status is "idle" until the last write of an upload.
            let advice = "wait until the status is idle, then check which version runs";
            reasons.push(Reason::new(Scope::Host, "upload-busy", message).advise(advice));
        }
    }
    reasons
}

/// Adds the host's details to a reason.
fn explain(host: &Host, reason: Reason) -> Reason {
    if reason.code != "lps-missing" {
        return reason;
    }
    let why = host.lps_explained();
    if why.is_empty() {
        return reason;
    }
    reason.advise(why.join("; "))
}

impl<'c> World<'c> {
    fn judge(&self, running: Option<&Running<'_>>, image: &Image, steps: u32) -> Judged {
        judge(self.host, self.catalogue, self.request, running, image, steps)
    }

    fn is_newer(&self, image: &Image) -> Option<bool> {
        Some(image.version()? > self.running?.version)
    }

    fn is_same_line(&self, image: &Image) -> bool {
        match (image.version(), self.running) {
            (Some(new), Some(running)) => {
                (new.major, new.minor) == (running.version.major, running.version.minor)
            }
            _ => false,
        }
    }

    fn candidate(&self, image: &Image, judged: &Judged) -> Candidate {
        Candidate {
            file: image.path().to_owned(),
            version: image.version().map(|version| version.to_string()),
            svn: svn(image),
            genuine: image.is_genuine(),
            newer: self.is_newer(image),
            reasons: judged.reasons.clone(),
            questions: judged.questions.clone(),
        }
    }

    /// Returns the index of the image that should run. `None` if no update is due.
    fn target(&self, judged: &[Judged]) -> Result<Option<usize>, Reason> {
        match self.request.target {
            Target::Image(place) => Ok(Some(place).filter(|place| !self.runs_already(*place))),
            Target::Version(version) => self.of_version(version, judged),
            Target::Newest => self.newest(judged),
        }
    }

    fn runs_already(&self, place: usize) -> bool {
        let image = self.catalogue.images().get(place);
        let hash = self.running.and_then(|running| running.mrseam());
        !self.request.allow_same_module
            && image.is_some_and(|image| image.is_genuine() && hash == Some(*image.mrseam()))
    }

    /// Finds the image of a version. Prefers a genuine image.
    fn of_version(&self, version: TdxVersion, judged: &[Judged]) -> Result<Option<usize>, Reason> {
        if !self.request.allow_same_module
            && self.running.is_some_and(|running| running.version == version)
        {
            return Ok(None);
        }
        let images = self.catalogue.images().iter().zip(judged).enumerate();
        let of_version = images.filter(|(_, (image, _))| image.version() == Some(version));
        let best = of_version
            .min_by_key(|(_, (image, judged))| (!image.is_genuine(), judged.reasons.len()));
        best.map(|(place, _)| Some(place)).ok_or_else(|| self.no_image(Some(version)))
    }

    /// Finds the newest image that fits, also after other updates. If no image fits, returns a
    /// newer image of the running module's line, whose reasons the plan shows.
    fn newest(&self, judged: &[Judged]) -> Result<Option<usize>, Reason> {
        if self.catalogue.images().is_empty() {
            return Err(self.no_image(None));
        }
        let newer = || {
            let images = self.catalogue.images().iter().zip(judged).enumerate();
            images.filter(|(_, (image, _))| self.is_newer(image) == Some(true))
        };
        let fitting = newer().filter(|(place, (_, judged))| {
            judged.fits() || judged.needs_a_step_between() && self.path_to(*place).is_some()
        });
        let newest = |(_, (image, _)): &(usize, (&Image, &Judged))| image.version();
        if let Some((place, _)) = fitting.max_by_key(newest) {
            return Ok(Some(place));
        }
        // An image for other processors is not a successor of a module that fits this host, even
        // with a higher number.
        let running_fits = self.running.is_some_and(|running| running.is_for(self.host));
        let refused = newer().filter(|(_, (image, judged))| {
            self.is_same_line(image) && !(running_fits && is_for_other_processors(judged))
        });
        Ok(refused.max_by_key(newest).map(|(place, _)| place))
    }

    /// Returns the reason for a missing image, with the table's data on the version.
    fn no_image(&self, version: Option<TdxVersion>) -> Reason {
        let Some(version) = version else {
            return Reason::new(
                Scope::File,
                "no-image",
                "the image folders hold no image of a TDX module",
            )
            .advise(
                "name a folder with Intel's images: --image-dir FOLDER, or image-dir in the \
                 configuration",
            );
        };
        let message = format!("the image folders hold no image of {version}");
        let known: Vec<_> = self
            .catalogue
            .images()
            .iter()
            .filter_map(Image::version)
            .map(|version| version.to_string())
            .collect();
        let advice = match self.catalogue.release(version) {
            None => format!(
                "the table of releases does not have this version; the image folders hold {}",
                listed(&known)
            ),
            Some(release) if release.image => "Intel publishes this image: download it, and add \
                                               its folder with --image-dir"
                .into(),
            Some(_) => "no image of this release is public: Intel ships the module and its \
                        SIGSTRUCT; join both with `tdx-seamldr pack`"
                .into(),
        };
        Reason::new(Scope::File, "no-image", message).advise(advice)
    }

    /// Adds the steps to the target to the plan, and the reasons against them.
    fn add_steps(&self, plan: &mut Plan, target: usize, judged: &[Judged]) {
        let needs_steps = judged.get(target).is_some_and(Judged::needs_a_step_between);
        let path = if needs_steps { self.path_to(target) } else { None };
        let path = path.unwrap_or_else(|| vec![target]);
        let mut running = self.running;
        for (steps, place) in (0..).zip(&path) {
            let Some(image) = self.catalogue.images().get(*place) else { continue };
            let judged = self.judge(running.as_ref(), image, steps);
            for reason in judged.reasons {
                if !plan.reasons.contains(&reason) {
                    plan.reasons.push(explain(self.host, reason));
                }
            }
            for question in judged.questions {
                if !plan.questions.contains(&question) {
                    plan.questions.push(question);
                }
            }
            plan.steps.push(step(*place, image, running.as_ref()));
            running =
                image.version().map(|version| Running::of_image(image, version, self.catalogue));
        }
        plan.verdict = if !plan.reasons.is_empty() {
            Verdict::Refused
        } else if plan.open_questions().next().is_some() {
            Verdict::Asks
        } else {
            Verdict::Ready
        };
    }

    /// Finds the shortest way to a target through images of its line, each newer than the one
    /// before. `None` if no way exists.
    fn path_to(&self, target: usize) -> Option<Vec<usize>> {
        let images = self.catalogue.images();
        let end = images.get(target)?.version()?;
        let mut queue = VecDeque::from([(self.running?, Vec::new())]);
        let mut seen = vec![self.running?.version];
        while let Some((running, path)) = queue.pop_front() {
            if path.len() >= MAX_STEPS {
                return None;
            }
            let mut next: Vec<_> = images
                .iter()
                .enumerate()
                .filter_map(|(place, image)| Some((place, image, image.version()?)))
                .filter(|(_, _, version)| {
                    *version > running.version && *version <= end && !seen.contains(version)
                })
                .collect();
            next.sort_by_key(|(_, _, version)| Reverse(*version));
            for (place, image, version) in next {
                let steps = u32::try_from(path.len()).unwrap_or(u32::MAX);
                if !self.judge(Some(&running), image, steps).fits() {
                    continue;
                }
                let mut longer = path.clone();
                longer.push(place);
                if place == target {
                    return Some(longer);
                }
                seen.push(version);
                queue.push_back((Running::of_image(image, version, self.catalogue), longer));
            }
        }
        None
    }
}

/// Whether the image is for other processors.
fn is_for_other_processors(judged: &Judged) -> bool {
    judged.reasons.iter().any(|reason| matches!(reason.code, "platform" | "cpu"))
}

fn step(place: usize, image: &Image, running: Option<&Running<'_>>) -> Step {
    let (major, minor) = image
        .parse()
        .map_or((0, 0), |image| (image.sigstruct().svn_major, image.sigstruct().svn_minor));
    Step {
        image: place,
        file: image.path().to_owned(),
        from: running.map_or_else(|| "unknown".into(), |running| running.version.to_string()),
        to: image.version().map(|version| version.to_string()),
        mrseam: hex(image.mrseam()),
        svn: svn(image),
        tee_tcb_svn_2: format!("{minor:02x}{major:02x}"),
    }
}

fn svn(image: &Image) -> String {
    image.parse().map(|image| image.sigstruct().svn().to_string()).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "no known version".into()
    } else {
        names.join(", ")
    }
}
