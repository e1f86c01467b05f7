//! `cargo xtask instructions`: what the library costs, in instructions that callgrind counts,
//! against what it may cost.

use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use tdx_seamldr_mock::{released_images, ReleasedImage, RELEASED_IMAGES};

use crate::figures::{self, Figure, Table};

/// Numbers of LPs of an update.
const LPS: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// From so many LPs on, what an update costs each of them must not change.
const MANY_LPS: u32 = 64;
/// Stages of an update in which there is something to do.
const STAGES: [&str; 5] = ["Start", "Shutdown", "CpuInstall", "CpuInit", "RunUpdate"];
/// The image that is read.
const IMAGE: &str = "1.5.16";
/// Calls that the cost of one is taken from.
const CALLS: u64 = 1000;

/// What each of the [`STAGES`] may cost, and an update each LP if there is one or if there are
/// 1,024: a quarter more than when this was written.
const STAGE_LIMITS: [u32; 5] = [550, 720, 975, 460, 460];
const LP_LIMITS: [(u32, u32); 2] = [(1, 3260), (1024, 1625)];
/// What zeroing a page costs at most, as it is counted: once, not twice.
const ZEROING_ONCE: u32 = 4200;

/// What belongs to the firmware and not to the host.
const FIRMWARE: &str = "SeamcallBackend>::seamcall";
/// The specification's figure, measured there by hand: instructions of the work for v2 in C,
/// without translation and zeroing.
const C_READS_V2: u32 = 3431;
/// What belongs to the embedder: LPs, addresses. Only those of its functions that are not inlined
/// can be told apart.
const EMBEDDER: &str = "Host>::";
/// The embedder's part of reading an image.
const TRANSLATION: &str = "Host>::phys_addr";
/// The C library's, of which callgrind counts every byte that `rep stosb` writes as an instruction.
const ZEROING: &str = "memset";

/// Instructions of one piece of work.
struct Counted {
    total: u64,
    /// Of these, in the functions that were asked for.
    inside: Vec<u64>,
    /// What the work printed.
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
            "NOT COUNTED, AND NO LIMIT CHECKED: reading an image, and preflight. \
             {RELEASED_IMAGES} names no folder with images."
        );
    }
    Ok(())
}

/// Everything that is counted; without released images all that needs none.
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

/// Of all images the one that is read and the largest, which is checked.
fn chosen(images: &[ReleasedImage]) -> Result<(&ReleasedImage, &ReleasedImage)> {
    let read = images.iter().find(|image| image.version == IMAGE);
    let read = read.with_context(|| {
        format!("{IMAGE} is not among the images, and limits are about that one")
    })?;
    let largest = images.iter().max_by_key(|image| image.bytes.as_bytes().len()).unwrap_or(read);
    Ok((read, largest))
}

/// From the bytes of a file to parameters for SEAMLDR.INSTALL.
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
        "The work reads the {} bytes of Intel's {IMAGE}, checks all rules of the format (v1: with
the checksum), and builds SEAMLDR_PARAMS. `memset` is the C library's. It has a few instructions,
and callgrind counts `rep stosb` once for each byte. The same work in C, as Linux does it for v2,
takes {} instructions (gcc -O2), without the translation of addresses and in a zeroed page. That
count comes from the project's specification and was made by hand; no command repeats it.",
        figures::number(Figure::count("", v1.output).value),
        figures::number(C_READS_V2.into())
    );
    Ok(Table { title: "Reading an image", how, figures })
}

/// A call of P-SEAMLDR, by firmware that does nothing.
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

/// What each stage costs one LP.
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

/// The host's side of an update costs each LP the same, however many there are.
fn update(work: &Path) -> Result<Table> {
    let mut figures = Vec::new();
    let mut costs = Vec::new();
    for lps in LPS {
        let counted = count(work, &["update", &lps.to_string()], &[FIRMWARE, EMBEDDER])?;
        // `xtask window` shows which.
        let calls = lps.saturating_mul(3).saturating_add(4);
        ensure!(
            counted.output == u64::from(calls),
            "{lps} LPs make {calls} SEAMCALLs, not {}",
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

/// Preflight costs little more than the cryptography that it cannot do without.
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

/// Runs one piece of work, and says of it what lies inside of each of these functions, too.
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

/// The sum of a profile, and what is called in functions whose name contains one of these. None of
/// them may call another.
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
            // "(number) name" where it is named first, later the number alone.
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
    fn the_image_that_limits_are_about_has_to_be_among_those_there_are() {
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
    fn limits_are_about_numbers_of_lps_that_are_counted() {
        assert!(LP_LIMITS.iter().all(|(lps, _)| LPS.contains(lps)));
    }

    #[test]
    fn what_is_called_in_the_firmware_is_told_apart() {
        let profile = "fn=(1) work::measured\n5 10\ncfn=(2) <A as \
                       x::SeamcallBackend>::seamcall\ncalls=2 7\n5 300\ncfn=(3) \
                       __memset_avx2\ncalls=1 1\n5 40\nfn=(4) more\ncfn=(2)\ncalls=1 7\n+3 \
                       7\ntotals: 357\n";
        assert_eq!(costs(profile, &[FIRMWARE]), Some((357, vec![307])));
        assert_eq!(costs(profile, &[TRANSLATION, ZEROING]), Some((357, vec![0, 40])));
        assert_eq!(costs("fn=(1) x\n", &[]), None);
    }
}
