//! The configuration, its options, and wrong usage.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use tdx_seamldr_host::Config;

use crate::kernel::{Does, Kernel};
use crate::support::{binaries, sapphire_rapids, set_mode, Tree, UPLOAD};

const CONFIG: &str = "etc/tdx-seamldr.toml";

/// The keys of the configuration: a wrong key makes the parser list the right ones.
fn keys() -> BTreeSet<String> {
    let error = Config::parse("no-such-key = 1").unwrap_err();
    let (_, listed) = error.split_once("expected one of ").unwrap();
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The long options in the help of a command.
fn options(command: &str) -> BTreeSet<String> {
    let tree = Tree::new(&sapphire_rapids());
    let ran = tree.run(&[command, "--help"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let words = ran.out.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    words.map(|word| word.split(|letter| !is_of_name(letter)).next().unwrap().to_owned()).collect()
}

#[test]
fn every_key_has_an_option_of_the_same_name() {
    let keys = keys();
    assert!(keys.len() >= 9 && keys.contains("image-dir") && keys.contains("timeout"), "{keys:?}");
    assert!(keys.is_subset(&options("apply")), "{keys:?}: {:?}", options("apply"));
    let of_apply: BTreeSet<_> = ["policy".to_owned()].into();
    let keys: BTreeSet<_> = keys.difference(&of_apply).cloned().collect();
    assert!(keys.is_subset(&options("update")), "{keys:?}: {:?}", options("update"));
    let of_update: BTreeSet<_> = ["hooks-dir", "timeout"].map(str::to_owned).into();
    let of_plan: BTreeSet<_> = keys.difference(&of_update).cloned().collect();
    assert!(of_plan.is_subset(&options("plan")), "{of_plan:?}: {:?}", options("plan"));
    let of_status: BTreeSet<_> = ["image-dir", "releases", "state-dir"].map(str::to_owned).into();
    assert!(of_status.is_subset(&options("status")), "{:?}", options("status"));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn each_key_has_the_effect_of_its_option() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids());
    let image = |version: &str| {
        fs::read(folder.join(format!("joined_files/1.5/tdx_module_{version}.blob"))).unwrap()
    };
    tree.put("srv/images/a.blob", image("1.5.05"));
    tree.put("srv/images/b.blob", image("1.5.16"));
    tree.put("srv/hooks/pre-update.d/10", "#!/bin/sh\ntouch \"$0.ran\"\n");
    set_mode(&tree.path("srv/hooks/pre-update.d/10"), 0o755);
    tree.put(
        CONFIG,
        "image-dir = [\"/srv/images\"]\nhooks-dir = \"/srv/hooks\"\nstate-dir = \
         \"/srv/state\"\nno-td-launches = true\nallow-same-module = true\naccept = \
         [\"unknown-memory\"]\ntimeout = 19\n",
    );
    let (code, object) = tree.json(&["plan"]);
    assert_eq!((code, &object["verdict"]), (Some(0), &json!("ready")), "{object:#}");
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16"), Does::Installs("1.5.16")]);
    tree.run(&["update"]).says(0, &["1.5.05 -> 1.5.16: updated"]);
    assert!(tree.path("srv/hooks/pre-update.d/10.ran").exists());
    assert!(
        tree.path("srv/state/history.jsonl").exists() && !tree.path("var/lib/tdx-seamldr").exists()
    );
    tree.run(&["update", "1.5.16"]).says(0, &["1.5.16 -> 1.5.16: updated"]);
    tree.run(&["history"]).says(0, &["1.5.16 -> 1.5.16: updated"]);
}

#[test]
fn wrong_configuration_is_refused_by_each_command_with_its_fault() {
    let cases = [
        ("image_dir = []", "unknown field `image_dir`"),
        ("state-dir = \"here\"", "the path \"here\" must begin with /"),
        ("image-dir = [\"images\"]", "must begin with /"),
        ("timeout = \"long\"", "invalid type"),
        ("timeout = -1", "invalid value"),
        ("timeout = 9", "timeout is 9 seconds, but should be at least 10"),
        ("timeout = 1\ntimeout = 2", "duplicate key"),
        ("[[[", "line 1"),
        ("\u{0}", "line 1"),
    ];
    for (text, problem) in cases {
        let tree = Tree::new(&sapphire_rapids());
        tree.put(CONFIG, text);
        for command in ["status", "list", "plan", "update", "history", "report"] {
            let ran = tree.run(&[command]);
            ran.says(1, &["tdx-seamldr: /etc/tdx-seamldr.toml: ", problem]);
            assert_eq!(ran.out, "", "{ran:?}");
            let (code, object) = tree.json(&[command]);
            assert_eq!((code, &object["schema"]), (Some(1), &json!("tdx-seamldr/error/1")));
            assert!(object["error"].as_str().unwrap().contains(problem), "{object:#}");
        }
        assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
    }
}

#[test]
fn accepting_a_name_that_no_plan_shows_is_refused() {
    let tree = Tree::new(&sapphire_rapids());
    tree.put(CONFIG, "accept = [\"memory\"]");
    for command in ["plan", "update"] {
        tree.run(&[command])
            .says(1, &["the key accept of the configuration has \"memory\"", "unknown-memory"]);
    }
    fs::remove_file(tree.path(CONFIG)).unwrap();
    tree.run(&["plan", "--accept", "memory"]).says(2, &["memory", "unknown-memory"]);
}

#[test]
fn configuration_that_others_can_write_is_not_used() {
    let tree = Tree::new(&sapphire_rapids());
    let file = tree.put(CONFIG, "no-td-launches = true\n");
    for mode in [0o666, 0o664, 0o646] {
        set_mode(&file, mode);
        tree.run(&["update"]).says(1, &["the configuration is not used", "chmod go-w"]);
    }
    set_mode(&file, 0o644);
    tree.run(&["status"]).says(0, &["TDX module 1.5.05"]);
}

#[test]
fn named_configuration_must_exist() {
    let tree = Tree::new(&sapphire_rapids());
    let ran = tree.run(&["status", "--config", "/etc/other.toml"]);
    ran.says(1, &["the configuration cannot be read: /etc/other.toml: the file does not exist"]);
    tree.put("etc/other.toml", "state-dir = \"/else\"");
    tree.run(&["status", "--config", "/etc/other.toml"]).says(0, &["TDX module"]);
}

#[test]
fn named_hooks_folder_must_exist() {
    let tree = Tree::new(&sapphire_rapids());
    let none = "the hooks folder /srv/hooks does not exist";
    tree.run(&["update", "--hooks-dir", "/srv/hooks"]).says(1, &[none]);
    let file = tree.put(CONFIG, "hooks-dir = \"/srv/hooks\"\n");
    tree.run(&["update"]).says(1, &[none]);
    fs::remove_file(file).unwrap();
    tree.put("srv/hooks", "a file");
    tree.run(&["update", "--hooks-dir", "/srv/hooks"]).says(1, &[none]);
}

#[test]
fn table_of_releases_must_be_a_regular_file_of_limited_length() {
    let tree = Tree::new(&sapphire_rapids());
    tree.run(&["status", "--releases", "/dev/zero"]).says(1, &["the table of releases /dev/zero"]);
    let table = tree.put("table.csv", vec![b'#'; (1 << 20) + 1]);
    let ran = tree.run(&["status", "--releases", table.to_str().unwrap()]);
    ran.says(1, &["the file has more than 1048576 bytes"]);
}

#[test]
fn relative_path_below_the_root_is_wrong_usage() {
    let tree = Tree::new(&sapphire_rapids());
    for option in ["--config", "--state-dir", "--hooks-dir"] {
        for path in ["etc/tdx-seamldr.toml", "./x", "../x", ""] {
            let ran = tree.run(&["update", option, path]);
            assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{option} {path:?}: {ran:?}");
        }
        tree.run(&["update", option, "./x"]).says(2, &[option, "must begin with /"]);
    }
}

#[test]
fn wrong_usage_exits_with_2_and_touches_nothing() {
    let tree = Tree::new(&sapphire_rapids());
    for arguments in [
        &["update", "--no-such-option"][..],
        &["update", "1.5.16", "1.5.08"],
        &["update", "--timeout", "soon"],
        &["update", "--timeout", "-1"],
        &["update", "--timeout", "9"],
        &["plan", "--accept", ""],
        &["plan", "--hooks-dir", "/x"],
        &["status", "1.5.16"],
        &["history", "--image-dir"],
        &["upgrade"],
    ] {
        let ran = tree.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.starts_with("error: "), "{ran:?}");
    }
    assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
}

#[test]
fn help_fits_80_columns_and_tells_the_exit_status() {
    let tree = Tree::new(&sapphire_rapids());
    for command in ["status", "list", "plan", "update", "history", "report"] {
        let ran = tree.run(&[command, "--help"]);
        ran.says(0, &["Usage: tdx-seamldr", "--root <DIR>", "--json"]);
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"))
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("4  failed: the TDs are lost, or their fate is unknown"), "{text}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn option_turns_off_what_the_configuration_turned_on() {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.16"]);
    tree.put(CONFIG, "no-td-launches = true\n");
    let verdict =
        |arguments: &[&str]| tree.json(&[&["plan"], arguments].concat()).1["verdict"].clone();
    assert_eq!(verdict(&[]), "ready");
    assert_eq!(verdict(&["--no-td-launches=false"]), "asks");
    tree.put(CONFIG, "");
    assert_eq!(verdict(&[]), "asks");
    assert_eq!(verdict(&["--no-td-launches"]), "ready");
}
