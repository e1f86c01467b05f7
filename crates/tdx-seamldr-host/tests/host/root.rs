//! Links in a tree stay in the tree.

use std::fs;
use std::os::unix::fs::symlink;

use tdx_seamldr_host::fact::Reason;
use tdx_seamldr_host::Root;
use tempfile::TempDir;

/// Returns a folder with a secret beside a root, and the root.
fn beside() -> (TempDir, Root) {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("root/etc")).unwrap();
    fs::write(folder.path().join("secret"), "outside\n").unwrap();
    fs::write(folder.path().join("root/secret"), "inside\n").unwrap();
    let root = Root::new(folder.path().join("root"));
    (folder, root)
}

#[test]
fn links_cannot_lead_out() {
    let (folder, root) = beside();
    let outside = folder.path().join("secret");
    for (name, target) in [
        ("climb", "../../secret"),
        ("climb-far", "../../../../../../../../secret"),
        ("through", "etc/../../../secret"),
        ("absolute", "/secret"),
        ("absolute-climb", "/../secret"),
    ] {
        symlink(target, folder.path().join("root/etc").join(name)).unwrap();
        assert_eq!(root.read_text(&format!("/etc/{name}"), 100).unwrap(), "inside", "{name}");
    }
    symlink(&outside, folder.path().join("root/etc/host-path")).unwrap();
    assert_eq!(root.read_text("/etc/host-path", 100).unwrap_err().reason, Reason::Missing);
    assert_eq!(root.read_text("/../secret", 100).unwrap(), "inside");
}

#[test]
fn folders_that_are_links_cannot_lead_out() {
    let (folder, root) = beside();
    fs::create_dir(folder.path().join("other")).unwrap();
    fs::write(folder.path().join("other/file"), "outside").unwrap();
    symlink("../other", folder.path().join("root/other")).unwrap();
    // The link leads to itself, because `..` stops at the root.
    assert_eq!(root.read_text("/other/file", 100).unwrap_err().reason, Reason::Unreadable);
    assert!(!root.exists("/other/file"));
    assert!(root.list("/other", 10).is_err());
}

#[test]
fn place_of_a_new_file_is_inside() {
    let (folder, root) = beside();
    symlink("/var/new", folder.path().join("root/etc/dangling")).unwrap();
    let inside = folder.path().join("root");
    assert_eq!(root.path("/etc/dangling").unwrap(), inside.join("var/new"));
    assert_eq!(root.path("/etc/new").unwrap(), inside.join("etc/new"));
    assert_eq!(root.path("/../../new").unwrap(), inside.join("new"));
}

#[test]
fn chain_of_links_is_followed_up_to_the_limit_of_linux() {
    let (folder, root) = beside();
    let etc = folder.path().join("root/etc");
    for link in 1..=41 {
        let target = if link == 1 { "/secret".to_owned() } else { format!("{}", link - 1) };
        symlink(target, etc.join(link.to_string())).unwrap();
    }
    assert_eq!(root.read_text("/etc/40", 100).unwrap(), "inside");
    assert_eq!(root.read_text("/etc/41", 100).unwrap_err().reason, Reason::Unreadable);
}

#[test]
fn root_of_the_system_is_recognised_by_its_path() {
    for system in ["/", "//", "/."] {
        assert!(Root::new(system).is_system(), "{system}");
    }
    for other in ["", ".", "/tmp", "/tmp/.."] {
        assert!(!Root::new(other).is_system(), "{other}");
    }
}

#[test]
fn text_loses_one_newline_and_is_bounded() {
    let (folder, root) = beside();
    let file = folder.path().join("root/file");
    fs::write(&file, "12345\n\n").unwrap();
    assert_eq!(root.read_text("/file", 7).unwrap(), "12345\n");
    assert_eq!(root.read_text("/file", 6).unwrap_err().reason, Reason::Malformed);
    assert_eq!(root.read_text("/file/below", 6).unwrap_err().reason, Reason::Missing);
}

#[test]
fn names_in_a_folder_are_sorted_and_bounded() {
    let (folder, root) = beside();
    for name in ["b", "c", "a"] {
        fs::write(folder.path().join("root/etc").join(name), "").unwrap();
    }
    assert_eq!(root.list("/etc", 3).unwrap(), ["a", "b", "c"]);
    assert_eq!(root.list("/etc", 2).unwrap_err().reason, Reason::Malformed);
    assert_eq!(root.list("/none", 2).unwrap_err().reason, Reason::Missing);
}
