//! Tests of the explanations: every published word, the words of public bug reports, and any
//! number.

use proptest::prelude::*;

use super::*;

fn leaf(name: &str) -> Option<Leaf> {
    Some(Leaf::parse(name).unwrap())
}

/// Returns the explanation's text in one line, to search for words.
fn text(explanation: &Explanation) -> String {
    format!("{} {} {}", explanation.meaning, explanation.update, explanation.actions.join(" "))
}

#[test]
fn every_published_word_has_its_name_a_meaning_and_something_to_do() {
    for row in status::all() {
        let explanation = word(row.code, None);
        assert_eq!(explanation.name, Some(row.name));
        let source = if row.code == 0 { Source::EitherFirmware } else { Source::TdxModule };
        assert_eq!(explanation.source, source, "{}", row.name);
        assert!(
            explanation.meaning.len() > 10 && explanation.meaning.ends_with('.'),
            "{}",
            row.name
        );
        assert!(!explanation.update.is_empty() && !explanation.actions.is_empty(), "{}", row.name);
        assert!(explanation.nearest.is_empty(), "{}", row.name);
    }
    for row in SeamldrStatus::TABLE.iter().filter(|row| !row.status.is_success()) {
        let explanation = word(row.status.0, None);
        assert_eq!((explanation.name, explanation.source), (Some(row.name), Source::PSeamldr));
        assert_eq!(explanation.relation, Relation::Failed);
        assert!(!explanation.update.is_empty() && !explanation.actions.is_empty(), "{}", row.name);
    }
}

#[test]
fn severity_follows_the_bits() {
    let expected = [
        (0, Severity::Success),
        (0x0000081500000000, Severity::Information),
        (0x8000020000000000, Severity::Recoverable),
        (0xc000050500000000, Severity::Error),
        (0x4000000100000000, Severity::NonRecoverable),
        (0x6000000200000000, Severity::Fatal),
        (0xe000060400000000, Severity::Fatal),
        (0x8000000000020000, Severity::Error),
        (0x8000000000030001, Severity::Recoverable),
    ];
    for (number, severity) in expected {
        assert_eq!(word(number, None).severity, severity, "{number:#x}");
    }
}

#[test]
fn sys_not_ready_of_sys_rd_means_a_bios_with_a_1_0_module() {
    let explanation = word(0xc000050500000000, leaf("TDH.SYS.RD"));
    assert_eq!(explanation.name, Some("SYS_NOT_READY"));
    assert!(explanation.meaning.contains("version 1.0"), "{}", explanation.meaning);
    assert!(explanation.actions[0].contains("Update the BIOS"));
    let without_leaf = text(&word(0xc000050500000000, None));
    assert!(
        without_leaf.contains("1.0")
            && without_leaf.contains("update the")
            && without_leaf.contains("BIOS")
    );
}

#[test]
fn eunsupcpu_names_the_list_to_compare() {
    let explanation = word(0x8000000000010004, None);
    assert_eq!((explanation.name, explanation.source), (Some("EUNSUPCPU"), Source::PSeamldr));
    assert!(text(&explanation).contains("tdx-seamldr inspect"));
    assert!(explanation.update.contains("lost all TDs"));
}

#[test]
fn incorrect_msr_value_names_the_msr_and_the_bios() {
    let explanation = word(0xc000092100000122, None);
    assert_eq!(explanation.name, Some("INCORRECT_MSR_VALUE"));
    assert_eq!(explanation.detail.as_deref(), Some("MSR IA32_TSX_CTRL (0x122)"));
    assert!(explanation.actions[0].contains("BIOS"), "{:?}", explanation.actions);
}

#[test]
fn vmfailinvalid_is_a_word_of_linux_and_names_offline_lps() {
    let explanation = word(0x8000ff00ffff0000, None);
    assert_eq!(explanation.source, Source::Linux);
    assert_eq!(explanation.name, Some("SEAMCALL_VMFAILINVALID"));
    let text = text(&explanation);
    assert!(text.contains("offline") && text.contains("reboot") && text.contains("BIOS"), "{text}");
    let install = word(0x8000ff00ffff0000, leaf("SEAMLDR.INSTALL"));
    assert_eq!((install.relation, install.step), (Relation::Failed, Some(Step::Install)));
}

#[test]
fn one_td_in_build_means_wait_and_loses_nothing() {
    let explanation = word(0x8000051200010000, None);
    assert_eq!(explanation.name, Some("UPDATE_COMPATIBILITY_SENSITIVE"));
    assert_eq!(explanation.detail.as_deref(), Some("1 TD is in build"));
    assert_eq!(
        (explanation.relation, explanation.severity),
        (Relation::Refused, Severity::Recoverable)
    );
    assert!(explanation.actions[0].contains("Wait"));
}

#[test]
fn refused_cpuid_configuration_points_to_rcx_and_is_not_about_an_update() {
    let explanation = word(0xc000010000000045, None);
    assert_eq!(explanation.name, Some("OPERAND_INVALID"));
    assert_eq!(explanation.relation, Relation::None);
    assert!(explanation.detail.unwrap().contains("RCX holds the CPUID leaf and subleaf"));
}

#[test]
fn module_that_was_shut_down_is_lost_until_reboot_for_every_call() {
    for leaf in [None, leaf("TDH.SYS.RD"), leaf("TDH.MEM.PAGE.ADD"), leaf("TDH.SYS.SHUTDOWN")] {
        let explanation = word(0xc000050600000000, leaf);
        assert_eq!(
            (explanation.name, explanation.relation),
            (Some("SYS_SHUTDOWN"), Relation::Failed)
        );
        assert!(explanation.update.contains("until reboot"), "{}", explanation.update);
    }
}

#[test]
fn words_at_the_end_of_a_td_are_not_about_an_update() {
    for (number, name) in [
        (0xc000030000000001, "PAGE_METADATA_INCORRECT"),
        (0x8000081000000000, "TD_KEYS_NOT_CONFIGURED"),
    ] {
        let explanation = word(number, None);
        assert_eq!((explanation.name, explanation.relation), (Some(name), Relation::None));
        assert!(explanation.actions[0].contains("nothing"), "{:?}", explanation.actions);
    }
}

#[test]
fn step_of_the_leaf_decides_the_fate_of_the_tds() {
    let busy = 0x8000020200000000;
    assert_eq!(word(busy, leaf("TDH.SYS.SHUTDOWN")).relation, Relation::Refused);
    assert_eq!(word(busy, leaf("TDH.SYS.UPDATE")).relation, Relation::Failed);
    assert_eq!(word(busy, leaf("TDH.SYS.INIT")).relation, Relation::Possible);
    assert!(word(busy, leaf("TDH.SYS.UPDATE")).update.contains("lost all TDs"));
    let bit_16 = word(0xc000010000000001, leaf("TDH.SYS.SHUTDOWN"));
    assert_eq!(bit_16.relation, Relation::Refused);
    assert!(bit_16.meaning.contains("AVOID_COMPAT_SENSITIVE"));
    let info = word(0x8000000000000000, leaf("SEAMLDR.INFO"));
    assert_eq!(info.relation, Relation::None);
    assert_eq!(word(busy, leaf("TDH.MEM.PAGE.ADD")).relation, Relation::None);
    assert_eq!(word(0xc000050500000000, leaf("TDH.MEM.PAGE.ADD")).relation, Relation::Possible);
}

#[test]
fn number_with_two_readings_has_both() {
    let also = |number| word(number, None).also.join(" ");
    assert!(also(0x8000000000000003).contains("SEAMLDR.SEAMINFO"));
    assert!(also(0x22).contains("TDH.SYS.RD"));
    assert!(also(0x8000000000010002).contains("-12"), "ENOMEM");
    assert_eq!(also(0xc000050500000000), "");
    assert!(word(0x8000000000020000, leaf("TDH.SYS.RD")).also[0].contains("copied wrongly"));
    assert!(word(0xc000050500000000, leaf("SEAMLDR.INFO")).also[0].contains("copied wrongly"));
}

#[test]
fn other_words_of_linux_name_the_exception() {
    for (number, name) in [
        (0x8000ff000000000d, "SEAMCALL_GP"),
        (0x8000ff0000000006, "SEAMCALL_UD"),
        (0x8000ff0000000000, "TDX_SW_ERROR"),
        (0x8000ff000000000e, "TDX_SW_ERROR"),
    ] {
        let explanation = word(number, None);
        assert_eq!(
            (explanation.source, explanation.name),
            (Source::Linux, Some(name)),
            "{number:#x}"
        );
    }
    assert_eq!(word(0x8000ff000000000e, None).detail.as_deref(), Some("exception 14"));
    assert_eq!(word(0xc000ff0000000000, None).source, Source::Unknown);
}

#[test]
fn unknown_word_shows_its_bits_and_the_nearest_words() {
    let unknown = word(0xc000055500000000, None);
    assert_eq!((unknown.name, unknown.source), (None, Source::TdxModule));
    assert!(unknown.meaning.contains("module's state") && unknown.meaning.contains("0x55"));
    assert_eq!(unknown.nearest.len(), 3);
    assert_eq!(word(0xc123050500000000, None).source, Source::Unknown);
    assert_eq!(word(0xc000770000000000, None).source, Source::Unknown);
    let loader = word(0x8000000000020009, None);
    assert_eq!((loader.name, loader.source), (None, Source::PSeamldr));
    assert!(loader.meaning.contains("signature or hash"));
    assert_eq!(loader.nearest[0].name, "EBADSIG");
}

#[test]
fn error_numbers_point_to_the_line_with_the_word() {
    let eio = explain(Word::Errno(5), None);
    assert_eq!((eio.word.as_str(), eio.name, eio.source), ("-5", Some("EIO"), Source::Linux));
    assert!(eio.meaning.contains("SEAMCALL"));
    assert_eq!(errno(77).name, None);
}

proptest! {
    #[test]
    fn any_word_of_any_leaf_has_an_explanation(number: u64,
        rax in proptest::option::of(any::<u64>())) {
        let explanation = word(number, rax.map(Leaf::from_rax));
        prop_assert!(!explanation.meaning.is_empty() && !explanation.update.is_empty());
        let digits = format!("{number:x}");
        prop_assert!(explanation.word.ends_with(&digits));
        prop_assert!(serde_json::to_string(&explanation).is_ok());
    }

    #[test]
    fn any_details_keep_the_name(index in 0_usize..186, details: u32) {
        let row = status::all()[index];
        let explanation = word(row.code | u64::from(details), None);
        if row.code != 0 {
            prop_assert_eq!(explanation.name, Some(row.name));
        }
    }
}
