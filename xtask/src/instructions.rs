//! `cargo xtask instructions`: counts the library's instructions with callgrind, and checks them
//! against limits.

use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use tdx_seamldr_mock::{released_images, ReleasedImage, RELEASED_IMAGES};

use crate::figures::{self, Figure, Table};

/// The numbers of LPs of the measured updates.
const LPS: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// From this number of LPs on, the cost of an update for each LP must not change.
const MANY_LPS: u32 = 64;
/// The stages of an update with work for an LP.
const STAGES: [&str; 5] = ["Start", "Shutdown", "CpuInstall", "CpuInit", "RunUpdate"];
/// The image whose reading is measured.
const IMAGE: &str = "1.5.16";
/// The number of calls, to compute the cost of one call.
const CALLS: u64 = 1000;

/// The limits for each of the [`STAGES`], and for each LP of an update with 1 LP and with 1,024
/// LPs. They are a quarter above the first measurement.
const STAGE_LIMITS: [u32; 5] = [550, 720, 975, 460, 460];
const LP_LIMITS: [(u32, u32); 2] = [(1, 3260), (1024, 1625)];
/// The limit for zeroing a page, which allows zeroing it once.
const ZEROING_ONCE: u32 = 4200;

/// The functions of the firmware, which are not part of the host's cost.
const FIRMWARE: &str = "SeamcallBackend>::seamcall";
/// The instructions of the same work for v2 in C, without translation and zeroing: measured by
/// hand.
const C_READS_V2: u32 = 3431;
/// The functions of the embedder: LPs and addresses. Inlined functions cannot be separated.
const EMBEDDER: &str = "Host>::";
/// The embedder's part of reading an image.
const TRANSLATION: &str = "Host>::phys_addr";
/// The function of the C library. Callgrind counts each byte of `rep stosb` as an instruction.
const ZEROING: &str = "memset";

/// The instructions of one measurement.
struct Counted {
    total: u64,
    /// The part of these in each requested function.
    inside: Vec<u64>,
    /// The number that the work printed.
    output: u64,
}

impl Counted {
    fn outside(&self) -> u64 {
        self.total.saturating_sub(self.inside.iter().sum())
    }
}

pub(crate) fn run() -> Result<()> {
    let images = released_images()?;
    let tables = measure(images.as_deref())?;
    for table in &tables {
        println!("{}\n\n{}", table.title, table.text());
    }
    figures::check(&tables)?;
    if images.is_none() {
        println!(
            "NOT COUNTED, NO LIMIT CHECKED: reading an image, and preflight. {RELEASED_IMAGES} \
             names no folder with images."
        );
    }
    Ok(())
}

/// Returns all measurements. Without released images, only those that need no image.
pub(crate) fn measure(images: Option<&[ReleasedImage]>) -> Result<Vec<Table>> {
    let work = crate::bench_program("work")?;
    let images = images.map(chosen).transpose()?;
    let mut tables = Vec::new();
    if let Some((image, _)) = images {
        tables.push(read(&work, image)?);
    }
    tables.push(call(&work)?);
    tables.push(stages(&work)?);
    tables.push(update(&work)?);
    if let Some((_, largest)) = images {
        tables.push(checks(&work, largest)?);
    }
    Ok(tables)
}

/// Returns the image whose reading is measured, and the largest image, for preflight.
fn chosen(images: &[ReleasedImage]) -> Result<(&ReleasedImage, &ReleasedImage)> {
    let read = images.iter().find(|image| image.version == IMAGE);
    let read = read.with_context(|| {
        format!("{IMAGE} is not among the images, and limits are about that one")
    })?;
    let largest = images.iter().max_by_key(|image| image.bytes.as_bytes().len()).unwrap_or(read);
    Ok((read, largest))
}

/// Measures the reading of an image: from the bytes of a file to the parameters of SEAMLDR.INSTALL.
fn read(work: &Path, image: &ReleasedImage) -> Result<Table> {
    let file = image.path.to_str().context("a path that is not UTF-8")?;
    let read = |format| count(work, &["read", format, file], &[TRANSLATION, ZEROING]);
    let (v1, v2) = (read("v1")?, read("v2")?);
    ensure!(v1.output == v2.output, "the file has another length in v2");
    let mut figures = Vec::new();
    for (name, counted) in [("v1", &v1), ("v2", &v2)] {
        let [translation, zeroing] = *counted.inside else { continue };
        figures.push(Figure::count(format!("{name}: in total"), counted.total));
        figures
            .push(Figure::count(format!("{name}: of these, translating addresses"), translation));
        figures.push(
            Figure::count(format!("{name}: of these, zeroing the page (`memset`)"), zeroing)
                .at_most(ZEROING_ONCE),
        );
    }
    figures.push(Figure::ratio("v1: in total, for each byte", v1.total, v1.output).at_most(0.6));
    figures.push(Figure::ratio("v2: in total, for each byte", v2.total, v2.output));
    figures.push(Figure::count("v2: without translation and zeroing", v2.outside()).at_most(7500));
    figures.push(Figure::ratio(
        format!(
            "v2: without translation and zeroing, to the same in C ({})",
            figures::number(C_READS_V2.into())
        ),
        v2.outside(),
        C_READS_V2.into(),
    ));
    let how = format!(
        "The work reads the {} bytes of Intel's {IMAGE}, checks all rules of the format (v1: with\n\
         the checksum), and builds SEAMLDR_PARAMS. `memset` is the C library's. It has a few\n\
         instructions, and callgrind counts `rep stosb` once for each byte. The same work in C,\n\
         as Linux does it for v2, takes {} instructions (gcc -O2), without the translation of\n\
         addresses and in a zeroed page. That count comes from the project's specification and\n\
         was made by hand; no command repeats it.",
        figures::number(Figure::count("", v1.output).value),
        figures::number(C_READS_V2.into())
    );
    Ok(Table { title: "Reading an image", how, figures })
}

/// Measures a call of P-SEAMLDR with firmware that does nothing.
fn call(work: &Path) -> Result<Table> {
    let calls = CALLS.to_string();
    let counted = count(work, &["call", &calls], &[FIRMWARE])?;
    ensure!(counted.output == CALLS, "{} calls instead of {CALLS}", counted.output);
    let figures = vec![
        Figure::ratio("lock, call and unlock", counted.total, CALLS).at_most(40),
        Figure::ratio("of these, the firmware", counted.inside.iter().sum(), CALLS),
    ];
    let how = format!(
        "One of {CALLS} calls of `seamldr_call`, on firmware that does nothing, with a free \
         `SpinLock`."
    );
    Ok(Table { title: "A call of P-SEAMLDR", how, figures })
}

/// Measures the cost of each stage for one LP.
fn stages(work: &Path) -> Result<Table> {
    let stage = |(name, limit): (&&str, u32)| {
        let counted = count(work, &["stage", name], &[FIRMWARE, EMBEDDER])?;
        let what = format!("{name} ({})", figures::counted(counted.output, "SEAMCALL"));
        Ok(Figure::count(what, counted.outside()).at_most(limit))
    };
    let figures = STAGES.iter().zip(STAGE_LIMITS).map(stage).collect::<Result<_>>()?;
    let how = "One step of an update by one LP: the rendezvous of the stage, and the calls up to \
               SEAMCALL. The\nembedder's `Host` does not count."
        .to_owned();
    Ok(Table { title: "A stage of the rendezvous", how, figures })
}

/// Measures the host's side of an update. The cost for each LP must not depend on their number.
fn update(work: &Path) -> Result<Table> {
    let mut figures = Vec::new();
    let mut costs = Vec::new();
    for lps in LPS {
        let counted = count(work, &["update", &lps.to_string()], &[FIRMWARE, EMBEDDER])?;
        // `xtask window` shows which.
        let calls = lps.saturating_mul(3).saturating_add(4);
        ensure!(
            counted.output == u64::from(calls),
            "{lps} LPs need {calls} SEAMCALLs, not {}",
            counted.output
        );
        let named = figures::counted(lps.into(), "LP");
        figures.push(Figure::count(format!("{named}: in total"), counted.outside()));
        let cost = counted.outside().checked_div(lps.into()).unwrap_or_default();
        let each = Figure::count(format!("{named}: each"), cost);
        let limit = LP_LIMITS.iter().find(|(of, _)| *of == lps);
        figures.push(match limit {
            Some((_, limit)) => each.at_most(*limit),
            None => each,
        });
        if lps >= MANY_LPS {
            costs.push(cost);
        }
    }
    let (least, most) = (costs.iter().min().copied(), costs.iter().max().copied());
    let (least, most) = least.zip(most).context("nothing was counted")?;
    let spread = format!("the highest cost of an LP to the lowest, from {MANY_LPS} LPs on");
    figures.push(Figure::ratio(spread, most, least).at_most(1.1));
    let how = "A whole update, without SEAMCALL and the embedder's `Host`. The LPs take steps in \
               turns."
        .to_owned();
    Ok(Table { title: "An update", how, figures })
}

/// Measures preflight, which costs little more than its cryptography.
fn checks(work: &Path, image: &ReleasedImage) -> Result<Table> {
    let file = image.path.to_str().context("a path that is not UTF-8")?;
    let preflight = count(work, &["preflight", file], &[])?.total;
    let crypto = count(work, &["crypto", file], &[])?.total;
    let figures = vec![
        Figure::count("all checks", preflight),
        Figure::count("one SHA-384 of the module and one RSA verification", crypto),
        Figure::ratio("the first to the second", preflight, crypto).at_most(1.1),
    ];
    Ok(Table {
        title: "Preflight",
        how: format!("All checks of Intel's {}.", image.version),
        figures,
    })
}

/// Runs one measurement. Also returns the instructions inside each of these functions.
fn count(work: &Path, arguments: &[&str], functions: &[&str]) -> Result<Counted> {
    let profile = work.with_extension("callgrind");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=work::measured*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(work)
        .args(arguments)
        .output()
        .context("valgrind does not run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {errors}");
    let (total, inside) = costs(&std::fs::read_to_string(&profile)?, functions)
        .with_context(|| format!("{arguments:?}: what callgrind wrote cannot be read"))?;
    ensure!(total != 0, "{arguments:?}: nothing was counted");
    let output = String::from_utf8(output.stdout)?.trim().parse().unwrap_or_default();
    Ok(Counted { total, inside, output })
}

/// Returns the sum of a profile, and the costs of functions whose names contain one of these words.
/// These functions must not call one another.
fn costs(profile: &str, functions: &[&str]) -> Option<(u64, Vec<u64>)> {
    let mut names: Vec<Vec<&str>> = vec![Vec::new(); functions.len()];
    let mut inside = vec![0u64; functions.len()];
    let mut total = None;
    let mut called = "";
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(sum) = line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: "))
        {
            total = sum.trim().parse().ok();
        } else if let Some(name) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            // The first mention is "(number) name"; later ones are only the number.
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            for (function, names) in functions.iter().zip(&mut names) {
                if name.contains(function) {
                    names.push(number);
                }
            }
            called = number;
        } else if line.starts_with("calls=") {
            let inclusive: u64 = lines.next()?.split(' ').next_back()?.parse().ok()?;
            for (names, inside) in names.iter().zip(&mut inside) {
                if names.contains(&called) {
                    *inside = inside.saturating_add(inclusive);
                }
            }
        }
    }
    Some((total?, inside))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tdx_seamldr_mock::PageBuf;

    #[test]
    fn image_of_the_limits_must_exist() {
        let image = |version: &str, pages| ReleasedImage {
            path: version.into(),
            version: version.to_owned(),
            bytes: PageBuf::zeroed(pages),
        };
        let images = ["1.5.05", IMAGE, "2.0.08", "2.0.05"].map(|version| image(version, 1));
        let [old, wanted, _, other] = &images;
        let larger = image("2.0.08", 2);
        let both = [old, wanted, &larger, other].map(Clone::clone);
        let (read, largest) = chosen(&both).unwrap();
        assert_eq!((&*read.version, &*largest.version), (IMAGE, "2.0.08"));
        let error = chosen(&[old.clone(), larger]).unwrap_err().to_string();
        assert!(error.starts_with("1.5.16 is not among the images"), "{error}");
        assert!(chosen(&[]).is_err());
    }

    #[test]
    fn numbers_of_lps_with_limits_are_counted() {
        assert!(LP_LIMITS.iter().all(|(lps, _)| LPS.contains(lps)));
    }

    #[test]
    fn calls_in_the_firmware_are_counted_separately() {
        let profile = "fn=(1) work::measured\n5 10\ncfn=(2) <A as \
                       x::SeamcallBackend>::seamcall\ncalls=2 7\n5 300\ncfn=(3) \
                       __memset_avx2\ncalls=1 1\n5 40\nfn=(4) more\ncfn=(2)\ncalls=1 7\n+3 \
                       7\ntotals: 357\n";
        assert_eq!(costs(profile, &[FIRMWARE]), Some((357, vec![307])));
        assert_eq!(costs(profile, &[TRANSLATION, ZEROING]), Some((357, vec![0, 40])));
        assert_eq!(costs("fn=(1) x\n", &[]), None);
    }
}
