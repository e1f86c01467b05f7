//! The trace: a line about each SEAMCALL, to a file, and the last of them in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use tdx_seamldr_mock::TraceEntry;

use crate::report;

/// The most calls that are kept in memory.
pub const KEPT: usize = 4096;

/// The trace of SEAMCALLs.
#[derive(Debug, Default)]
pub struct Trace {
    file: Option<File>,
    kept: VecDeque<TraceEntry>,
}

impl Trace {
    /// Returns a trace that also goes to a new file.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn to_file(path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: Some(File::create(path)?), kept: VecDeque::new() })
    }

    /// Adds a call.
    pub fn push(&mut self, entry: TraceEntry) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
        // Each line at once: QEMU may be killed.
        if let Some(error) = self.file.as_mut().and_then(|file| writeln!(file, "{entry}").err()) {
            report::message(format_args!("the trace ends here: {error}"));
            self.file = None;
        }
    }

    /// Returns at most `count` calls, the last ones, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &TraceEntry> {
        self.kept.iter().skip(self.kept.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::SeamcallRegs;

    #[test]
    fn each_call_is_a_line_of_the_file_and_the_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let mut trace = Trace::to_file(&path).unwrap();
        for lp in 0..5000 {
            let input = SeamcallRegs { rax: 33, ..SeamcallRegs::default() };
            trace.push(TraceEntry { lp, input, output: Ok(SeamcallRegs::default()) });
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 5000);
        assert!(text.starts_with("LP    0  TDH.SYS.INIT"), "{text:.60}");
        assert_eq!(trace.last(2).map(|entry| entry.lp).collect::<Vec<_>>(), [4998, 4999]);
        assert_eq!(trace.last(usize::MAX).count(), KEPT);
    }
}
