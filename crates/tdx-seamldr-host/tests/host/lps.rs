//! Missing LPs are counted, named and explained.

use tdx_seamldr_host::host::MissingLps;
use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::CpuList;

use crate::read;

fn missing(offline: &str, unknown_to_kernel: u32) -> MissingLps {
    MissingLps {
        offline: CpuList::parse(offline).unwrap(),
        unknown_to_kernel: Some(unknown_to_kernel),
    }
}

/// Asserts the missing LPs, and that each explanation contains the words.
fn assert_explained(tree: &HostTree, expected: &MissingLps, words: &[&str]) {
    let host = read(tree);
    assert_eq!(host.missing_lps().as_ref(), Some(expected));
    let explained = host.lps_explained();
    assert_eq!(explained.len(), words.len(), "{explained:?}");
    for (text, words) in explained.iter().zip(words) {
        assert!(text.contains(words), "{text} should contain {words}");
    }
}

#[test]
fn no_lp_is_missing_if_all_are_online() {
    assert_explained(&HostTree::linux_7_2(), &missing("", 0), &[]);
    assert_explained(&HostTree::linux_7_2().parameter("maxcpus=8"), &missing("", 0), &[]);
}

#[test]
fn offline_lps_are_named_with_the_way_to_take_them_online() {
    let tree = HostTree::linux_7_2().offline(&[2, 3, 5]);
    assert_explained(
        &tree,
        &missing("2-3,5", 0),
        &["LPs 2-3,5: echo 1 > /sys/devices/system/cpu/cpu2/online"],
    );
}

#[test]
fn nosmt_is_named_and_so_is_smt() {
    let smt = "LPs 4-7, and SMT is off: echo on > /sys/devices/system/cpu/smt/control";
    assert_explained(
        &HostTree::linux_7_2().nosmt(),
        &missing("4-7", 0),
        &[smt, "parameter nosmt "],
    );
    let forced = HostTree::linux_7_2().offline(&[4]).parameter("nosmt=force").smt("forceoff");
    assert_explained(
        &forced,
        &missing("4", 0),
        &["LP 4, and SMT is forceoff: remove", "parameter nosmt=force "],
    );
    let mitigations = HostTree::linux_7_2().offline(&[4]).parameter("mitigations=auto,nosmt");
    assert_explained(
        &mitigations,
        &missing("4", 0),
        &["LP 4: ", "parameter mitigations=auto,nosmt "],
    );
}

#[test]
fn maxcpus_is_named() {
    assert_explained(
        &HostTree::linux_7_2().maxcpus(6),
        &missing("6-7", 0),
        &["LPs 6-7: ", "maxcpus=6 limits"],
    );
}

#[test]
fn nr_cpus_hides_lps_that_only_the_madt_shows() {
    let words = ["nr_cpus=7 limits", "does not know 1 LP of the"];
    assert_explained(&HostTree::linux_7_2().nr_cpus(7), &missing("", 1), &words);
    let words = ["possible_cpus=2 limits", "nr_cpus=2 limits", "does not know 6 LPs of the"];
    let tree = HostTree::linux_7_2().parameter("possible_cpus=2").nr_cpus(2);
    assert_explained(&tree, &missing("", 6), &words);
}

#[test]
fn words_for_init_and_longer_words_are_ignored() {
    let tree = HostTree::linux_7_2().offline(&[1]).parameter("nosmtx=1 -- nosmt maxcpus=1");
    assert_explained(&tree, &missing("1", 0), &["LP 1: "]);
}

#[test]
fn count_is_unknown_if_the_madt_cannot_be_read() {
    let host = read(&HostTree::linux_7_2().madt(b"junk".to_vec()).offline(&[1]));
    let expected = MissingLps { offline: CpuList::parse("1").unwrap(), unknown_to_kernel: None };
    assert_eq!(host.missing_lps(), Some(expected));
    assert_eq!(host.lps_explained().len(), 1);
}

#[test]
fn missing_lps_are_unknown_if_the_lists_cannot_be_read() {
    let host = read(&HostTree::linux_7_2().file("/sys/devices/system/cpu/online", "7-0"));
    assert_eq!(host.missing_lps(), None);
    assert_eq!(host.lps_explained(), Vec::<String>::new());
}
