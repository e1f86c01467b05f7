//! `list`: images in every form, and files that are ignored.

use std::fs;
use std::path::Path;

use serde_json::{json, Value};
use tdx_seamldr_core::TdxImage;

use crate::support::{binaries, image, in_v2, sapphire_rapids, Tree, IMAGES};

/// The images of a list: file, version, format.
fn images(object: &Value) -> Vec<(String, Value, Value)> {
    let all = object["images"].as_array().unwrap();
    let name = |file: &Value| {
        Path::new(file.as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned()
    };
    all.iter()
        .map(|one| (name(&one["file"]), one["version"].clone(), one["format"].clone()))
        .collect()
}

/// The problems of a list.
fn problems(object: &Value) -> Vec<&str> {
    object["problems"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

fn bytes(version: &str) -> Vec<u8> {
    fs::read(image(version)).unwrap()
}

#[test]
fn releases_are_listed_without_images() {
    let tree = Tree::new(&sapphire_rapids());
    let ran = tree.run(&["list"]);
    ran.says(0, &["VERSION SVN PLATFORMS IMAGE MRSEAM", "The image folders hold no image."]);
    let line = |version: &str| ran.out.lines().find(|line| line.starts_with(version)).unwrap();
    assert!(line("1.5.05").ends_with("<- runs") && line("1.5.05").contains("public"), "{ran:?}");
    assert!(!line("1.5.34").contains("public") && !line("1.5.34").contains("runs"), "{ran:?}");
    let (code, object) = tree.json(&["list"]);
    assert_eq!((code, &object["running"]), (Some(0), &json!("1.5.05")));
    assert!(object["releases"].as_array().unwrap().len() >= 20, "{object:#}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn intels_folder_gives_its_images_and_minimums() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids());
    let arguments = ["list", "--image-dir", folder.to_str().unwrap()];
    let (code, object) = tree.json(&arguments);
    assert_eq!(code, Some(0));
    let versions: Vec<_> = images(&object).into_iter().map(|(_, version, _)| version).collect();
    assert_eq!(versions, ["1.5.05", "1.5.08", "1.5.16", "2.0.04", "2.0.08"]);
    assert!(problems(&object).is_empty(), "{object:#}");
    assert!(
        object["images"].as_array().unwrap().iter().all(|one| one["genuine"] == true),
        "{object:#}"
    );
    let release = object["releases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["version"] == "2.0.08")
        .unwrap();
    assert_eq!(release["min_module"], "2.0.04");
    tree.run(&arguments).says(0, &["tdx_module_1.5.16.blob: 1.5.16, ", "genuine"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn loose_images_v2_files_and_pairs_count_under_any_name() {
    let [old, middle, new, granite] = ["1.5.05", "1.5.08", "1.5.16", "2.0.04"].map(bytes);
    let tree = Tree::new(&sapphire_rapids());
    let put = |name: &str, bytes: &[u8]| tree.put(&format!("{IMAGES}/{name}"), bytes);
    put("loose.blob", &old);
    put("deeper/tdx-module", &in_v2(&middle));
    let pair = |module: &str, sigstruct: &str, image: &[u8]| {
        let image = TdxImage::parse(image).unwrap();
        put(module, image.module());
        put(sigstruct, &image.sigstruct_area()[..2048]);
    };
    pair("EFI/TDX/TDX-SEAM.so", "EFI/TDX/TDX-SEAM.so.sigstruct", &new);
    pair("np/module.bin", "np/module.sigstruct", &granite);
    let (code, object) = tree.json(&["list"]);
    assert_eq!(code, Some(0));
    let found = images(&object);
    let expected = [
        ("TDX-SEAM.so", "1.5.16"),
        ("tdx-module", "1.5.08"),
        ("loose.blob", "1.5.05"),
        ("module.bin", "2.0.04"),
    ];
    let names: Vec<_> =
        found.iter().map(|(name, version, _)| (name.as_str(), version.as_str().unwrap())).collect();
    assert_eq!(names, expected, "{object:#}");
    assert!(
        object["images"].as_array().unwrap().iter().all(|one| one["genuine"] == true),
        "{object:#}"
    );
    assert!(problems(&object).is_empty(), "{object:#}");
    // What is listed can be planned.
    tree.run(&["plan", "--no-td-launches"]).says(0, &["1.5.05 -> 1.5.16", "TDX-SEAM.so"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn damaged_files_are_ignored_with_a_reason() {
    let (good, new) = (bytes("1.5.05"), bytes("1.5.16"));
    let tree = Tree::new(&sapphire_rapids());
    let put = |name: &str, bytes: &[u8]| tree.put(&format!("{IMAGES}/{name}"), bytes);
    put("a-good.blob", &good);
    put("b-same.blob", &in_v2(&good));
    put("c-cut.blob", &new[..100_000]);
    put("d-empty.blob", b"");
    put("e-text.blob", b"no image");
    put("f-long.blob", &[&new[..], &[0]].concat());
    put("g-huge.blob", &vec![0; (16 << 20) + 1]);
    put("README.md", b"a file that has nothing to do with images");
    put("mapping_file.json", b"{}");
    put("pair.so", b"no module");
    put("pair.so.sigstruct", b"no SIGSTRUCT");
    let ran = tree.run(&["list"]);
    assert_eq!(ran.code, Some(0));
    let (_, object) = tree.json(&["list"]);
    assert_eq!(images(&object).len(), 1, "{object:#}");
    let problems = problems(&object);
    let expected = [
        ("b-same.blob", "the same image as"),
        ("c-cut.blob", ""),
        ("d-empty.blob", ""),
        ("e-text.blob", ""),
        ("f-long.blob", ""),
        ("g-huge.blob", "more than 16777216 bytes"),
        ("mapping_file.json", "tdx_module_releases"),
        ("pair.so", "do not form an image"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, (file, text)) in problems.iter().zip(expected) {
        assert!(
            problem.contains(&format!("{file}: ")) && problem.contains(text),
            "{file}: {problem}"
        );
        assert!(
            problem.len() > problem.find(file).unwrap() + file.len() + 10,
            "says why: {problem}"
        );
    }
    assert_eq!(ran.out.matches("ignored: ").count(), expected.len(), "{ran:?}");
    assert!(!ran.out.contains("README"), "{ran:?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn changed_image_is_listed_as_not_genuine() {
    let mut changed = bytes("1.5.16");
    changed[0x40000] ^= 1;
    let tree = Tree::new(&sapphire_rapids());
    tree.put(&format!("{IMAGES}/x.blob"), &changed);
    tree.run(&["list"]).says(0, &["x.blob: 1.5.16, ", "NOT GENUINE"]);
    assert_eq!(tree.json(&["list"]).1["images"][0]["genuine"], false);
}

#[test]
fn table_of_releases_can_be_given_and_a_wrong_one_is_refused() {
    let tree = Tree::new(&sapphire_rapids());
    let table = include_str!("../../../tdx-seamldr-host/data/releases.csv");
    let head: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with('#') || line.starts_with("version,"))
        .collect();
    let mrseam = "ab".repeat(48);
    let row = format!("1.5.99,0x0120,yes,SPR,0/0/0,,,1.5.05,1.5.00,0xF0FBF,{mrseam}");
    let file = tree.put("table.csv", format!("{}\n{row}\n", head.join("\n")));
    let (code, object) = tree.json(&["list", "--releases", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{object:#}");
    let [release] = &object["releases"].as_array().unwrap()[..] else { panic!("{object:#}") };
    assert_eq!((&release["version"], &release["mrseam"]), (&json!("1.5.99"), &json!(mrseam)));
    // The running module is in no table then.
    let (_, status) = tree.json(&["status", "--releases", file.to_str().unwrap()]);
    assert_eq!(status["module"]["in_table"], false, "{status:#}");

    let wrong =
        tree.put("wrong.csv", format!("{}\n{}\n", head.join("\n"), row.replace("0x0120", "new")));
    for (file, text) in [(wrong, "wrong.csv"), (tree.path("none.csv"), "No such file")] {
        let arguments = ["list", "--releases", file.to_str().unwrap()];
        tree.run(&arguments).says(1, &["the table of releases", text]);
        assert!(tree.json(&arguments).1["error"].is_string());
    }
}
