//! Explains any bytes as a kernel log, and each number in them as a status.

use tdx_seamldr_host::explain::{explain, is_tdx_line, Leaf, Log, Word, LONGEST_LINE};

/// Takes a log. Its first 8 bytes are also a status, and the next 8 the leaf that returned it.
pub fn explain_log(input: &[u8]) {
    let report = Log::read(input).expect("bytes can be read");
    assert!(!report.cut && !report.summary.is_empty());
    assert_eq!(report.lines, report.tdx_lines + report.ignored);
    // The remaining lines show registers.
    let counted: u64 = report.entries.iter().map(|entry| entry.count).sum();
    assert!(counted + report.unknown + report.not_shown <= report.tdx_lines);
    assert!(report.unknown == 0 || !report.unknown_samples.is_empty());
    serde_json::to_string(&report).expect("a report is JSON");

    // The same lines one by one give the same report.
    let mut log = Log::default();
    let mut tdx_lines = 0;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]);
        tdx_lines += u64::from(is_tdx_line(&line));
        log.line(&line);
    }
    assert!(report.tdx_lines <= tdx_lines);
    assert_eq!(log.report(), report);

    let numbers: Vec<u64> = input
        .chunks_exact(8)
        .take(2)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    if let Some(number) = numbers.first() {
        let leaf = numbers.get(1).copied().map(Leaf::from_rax);
        let word = Word::from_number(*number);
        let explanation = explain(word, leaf);
        assert!(
            !explanation.meaning.is_empty() && !explanation.update.is_empty(),
            "{explanation:?}"
        );
        assert_eq!(Word::parse(&explanation.word), Ok(word));
        if let Some(name) = explanation.name {
            assert!(Word::parse(name).is_ok() || name == "TDX_SW_ERROR", "{name}");
        }
    }
    let _ = Word::parse(&String::from_utf8_lossy(input)).map_err(|error| error.to_string());
}
