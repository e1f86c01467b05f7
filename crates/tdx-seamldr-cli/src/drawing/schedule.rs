//! The calls of a run in logical time: which of them could be made at the same time.

use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::update::Stage;
use tdx_seamldr_core::SeamcallRegs;
use tdx_seamldr_mock::model::{LeafName, TraceEntry};

/// A part of a run.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) name: String,
    /// The number of its columns of logical time.
    pub(super) columns: usize,
    stage: Option<Stage>,
}

/// A call and its place.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) band: usize,
    /// The column in its band.
    pub(super) column: usize,
    pub(super) entry: TraceEntry,
    pub(super) has_failed: bool,
}

impl Placed {
    pub(super) const fn is_for_loader(&self) -> bool {
        LeafName(self.entry.input.rax).is_for_seamldr()
    }

    fn ends(&self, leaf: TdxLeaf) -> bool {
        !self.has_failed && is_module_leaf(self.entry.input.rax, leaf)
    }

    /// Whether the old module is shut down from here on.
    pub(super) fn shuts_down(&self) -> bool {
        self.ends(TdxLeaf::SYS_SHUTDOWN)
    }

    /// Whether a module has the TDs from here on.
    pub(super) fn takes_over(&self) -> bool {
        self.ends(TdxLeaf::SYS_UPDATE)
    }

    /// Whether P-SEAMLDR destroys the handoff data here.
    pub(super) fn destroys(&self) -> bool {
        let install = self.entry.input.rax == SeamldrLeaf::Install.rax();
        install && self.has_failed && matches!(self.entry.output, Ok(SeamcallRegs { rdx: 1.., .. }))
    }
}

/// All calls of a run, each in its place.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) bands: Vec<Band>,
    pub(super) calls: Vec<Placed>,
}

impl Schedule {
    /// Places the calls. The first `before` of them came before the update began.
    ///
    /// A call begins when its LP has ended the call before, and all LPs the stage before. A call of
    /// P-SEAMLDR begins when P-SEAMLDR has ended its call before.
    pub(super) fn new(trace: &[TraceEntry], before: usize, lps: usize) -> Self {
        let mut schedule = Self::default();
        let mut free = Free::new(lps);
        for (index, entry) in trace.iter().enumerate() {
            let stage = (index >= before).then(|| stage_of(entry)).flatten();
            if let Some(name) = schedule.next_band(entry, stage, index >= before) {
                schedule.bands.push(Band { name, columns: 0, stage });
                free = Free::new(lps);
            }
            let column = free.take(entry);
            if let Some(band) = schedule.bands.last_mut() {
                band.columns = band.columns.max(column.saturating_add(1));
            }
            let band = schedule.bands.len().saturating_sub(1);
            let has_failed = has_failed(entry);
            schedule.calls.push(Placed { band, column, entry: *entry, has_failed });
        }
        schedule
    }

    /// Returns the name of the band that begins with this call. `None` if the call belongs to the
    /// last band.
    fn next_band(
        &self,
        entry: &TraceEntry,
        stage: Option<Stage>,
        in_update: bool,
    ) -> Option<String> {
        let Some(last) = self.bands.last() else {
            return Some(if in_update { "Start" } else { "Preflight" }.to_owned());
        };
        if in_update && last.name == "Preflight" {
            return Some(stage.unwrap_or(Stage::Start).to_string());
        }
        let stage = stage?;
        if last.stage == Some(stage) {
            let index = self.bands.len().saturating_sub(1);
            let mut same = self.calls.iter().filter(|call| call.band == index);
            let is_repeated = same
                .any(|call| call.entry.lp == entry.lp && call.entry.input.rax == entry.input.rax);
            return is_repeated.then(|| format!("{stage} again"));
        }
        let is_again = self.bands.iter().any(|band| band.stage == Some(stage));
        Some(if is_again { format!("{stage} again") } else { stage.to_string() })
    }
}

/// The first free column of each LP, and of P-SEAMLDR, which serves one LP at a time.
struct Free {
    lps: Vec<usize>,
    loader: usize,
}

impl Free {
    fn new(lps: usize) -> Self {
        Self { lps: vec![0; lps], loader: 0 }
    }

    fn take(&mut self, entry: &TraceEntry) -> usize {
        let index = usize::try_from(entry.lp).unwrap_or(usize::MAX);
        let mut column = self.lps.get(index).copied().unwrap_or(0);
        let is_for_loader = LeafName(entry.input.rax).is_for_seamldr();
        if is_for_loader {
            column = column.max(self.loader);
        }
        let end = column.saturating_add(1);
        if let Some(free) = self.lps.get_mut(index) {
            *free = end;
        }
        if is_for_loader {
            self.loader = end;
        }
        column
    }
}

fn is_module_leaf(rax: u64, leaf: TdxLeaf) -> bool {
    !LeafName(rax).is_for_seamldr() && TdxLeaf::from_rax(rax) == leaf
}

/// Returns the stage that makes this call. `None` if several stages make it.
fn stage_of(entry: &TraceEntry) -> Option<Stage> {
    let rax = entry.input.rax;
    if SeamldrLeaf::from_rax(rax) == Some(SeamldrLeaf::Install) {
        return Some(Stage::CpuInstall);
    }
    [
        (TdxLeaf::SYS_SHUTDOWN, Stage::Shutdown),
        (TdxLeaf::SYS_INIT, Stage::CpuInstall),
        (TdxLeaf::SYS_LP_INIT, Stage::CpuInit),
        (TdxLeaf::SYS_UPDATE, Stage::RunUpdate),
    ]
    .into_iter()
    .find(|(leaf, _)| is_module_leaf(rax, *leaf))
    .map(|(_, stage)| stage)
}

/// Whether a call has failed. TDH.SYS.TDMR.INIT is made to see the module's state: its answer is no
/// failure.
fn has_failed(entry: &TraceEntry) -> bool {
    let rax = entry.input.rax;
    match entry.output {
        Err(_) => true,
        Ok(regs) if LeafName(rax).is_for_seamldr() => !SeamldrStatus(regs.rax).is_success(),
        Ok(_) if is_module_leaf(rax, TdxLeaf::SYS_TDMR_INIT) => false,
        Ok(regs) => TdxStatus(regs.rax).is_failure(),
    }
}
