//! `history`: the record after several updates, and a damaged one.

use serde_json::json;

use crate::kernel::{Does, Kernel};
use crate::support::{sapphire_rapids, Tree, HISTORY};

/// A tree on which one update failed, one succeeded and one lost all.
fn tree_with_history() -> Tree {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.08", "1.5.16"]);
    let answers = [Does::Refuses("device-busy"), Does::Installs("1.5.08"), Does::Loses("hw-error")];
    let _kernel = Kernel::new(&tree, &answers);
    for (version, code) in [("1.5.08", 3), ("1.5.08", 0), ("1.5.16", 4)] {
        let ran = tree.run(&["update", version, "--no-td-launches"]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
    tree
}

#[test]
fn empty_record_is_not_an_error() {
    let tree = Tree::new(&sapphire_rapids());
    tree.run(&["history"]).says(0, &["No update is recorded."]);
    let (code, object) = tree.json(&["history"]);
    assert_eq!((code, &object["attempts"]), (Some(0), &json!([])));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn each_attempt_is_listed_in_order_with_its_end() {
    let tree = tree_with_history();
    let ran = tree.run(&["history"]);
    ran.says(
        0,
        &["1.5.05 -> 1.5.08: failed-kept", "1.5.05 -> 1.5.08: updated", "1.5.08 -> 1.5.16: lost"],
    );
    let (code, object) = tree.json(&["history"]);
    assert_eq!((code, &object["schema"]), (Some(0), &json!("tdx-seamldr/history/1")));
    let attempts = object["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["failed-kept", "updated", "lost"]);
    for attempt in attempts {
        assert_eq!(attempt["committing"], true);
        assert_eq!(attempt["mrseam"].as_str().unwrap().len(), 96);
        for time in ["began", "ended"] {
            let time = attempt[time].as_str().unwrap();
            assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
        }
    }
    assert_eq!(
        (&attempts[1]["version"], &attempts[1]["remaining_updates"]),
        (&json!("1.5.08"), &json!(19))
    );
    assert_eq!(object["damaged_lines"], json!([]));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn damaged_lines_are_counted_and_other_lines_are_read() {
    let tree = tree_with_history();
    let record = tree.read(HISTORY);
    let lines: Vec<_> = record.lines().collect();
    assert_eq!(lines.len(), 9, "{record}");
    let half = &lines[4][..lines[4].len() / 2];
    let mut damaged =
        [lines[..4].join("\n"), half.to_owned(), "\u{1b}[31mno JSON".to_owned()].join("\n");
    damaged.push_str(&format!("\n{{\"schema\": 1}}\n\n{}\n", lines[5..].join("\n")));
    tree.put(HISTORY, damaged);
    let ran = tree.run(&["history"]);
    ran.says(
        0,
        &["Lines of the record that cannot be read: [5, 6, 7]", "failed-kept", "updated", "lost"],
    );
    let (_, object) = tree.json(&["history"]);
    assert_eq!(object["damaged_lines"], json!([5, 6, 7]));
    // Line 5 recorded that the second attempt was about to make the last write.
    let committed: Vec<_> =
        object["attempts"].as_array().unwrap().iter().map(|one| &one["committing"]).collect();
    assert_eq!(committed, [true, false, true], "{object:#}");
    tree.run(&["status"]).says(0, &["last update"]);
    tree.run(&["report"]).says(0, &["1.5.08 -> 1.5.16: lost"]);
}

#[test]
fn record_that_is_not_a_text_file_is_named() {
    let tree = Tree::new(&sapphire_rapids());
    tree.put(HISTORY, [0xff; 5000]);
    tree.run(&["history"]).says(0, &["cannot be read: [1]"]);
    let tree = Tree::new(&sapphire_rapids());
    std::fs::create_dir_all(tree.path(HISTORY)).unwrap();
    tree.run(&["history"]).says(1, &["history.jsonl", "is a folder"]);
}

#[test]
fn escape_bytes_in_the_record_do_not_reach_the_terminal() {
    let tree = Tree::new(&sapphire_rapids());
    let line = json!({
        "schema": "tdx-seamldr/record/1", "time": "2026-11-28T06:24:36Z", "attempt": "a", "boot": null,
        "event": {"event": "began", "from": "\u{1b}[2J", "to": "1.5.16", "file": "\u{7}", "mrseam": "\r"},
    });
    tree.put(HISTORY, format!("{line}\n"));
    for command in ["history", "status", "report"] {
        // `Tree::run` checks every output for escape bytes.
        tree.run(&[command]).says(0, &["-> 1.5.16"]);
    }
}
