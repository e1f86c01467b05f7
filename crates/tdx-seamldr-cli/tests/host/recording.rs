//! The terminal session that README shows is a real run of `plan` and `update`.

use std::fs;
use std::path::Path;

use crate::kernel::{Does, Kernel};
use crate::support::{sapphire_rapids, Tree};

/// The recording, relative to this crate.
const RECORDING: &str = "../../docs/pictures/session.txt";

/// What a terminal shows of `plan` and `update`. The folder of the host is left out.
fn session() -> String {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.16"]);
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
    let mut session = String::new();
    for arguments in [&["plan"][..], &["update", "--no-td-launches"]] {
        let ran = tree.run(arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        // A terminal shows the progress first, then the report.
        session.push_str(&format!("$ tdx-seamldr {}\n", arguments.join(" ")));
        // Whether the command sees this state of the kernel depends on timing.
        session.push_str(&ran.err.replace("kernel: receiving\n", ""));
        session.push_str(&ran.out);
        session.push('\n');
    }
    session.replace(tree.root().to_str().unwrap(), "").trim_end().to_owned() + "\n"
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn session_in_the_readme_is_what_plan_and_update_print() {
    let session = session();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDING);
    if std::env::var_os("TDX_SEAMLDR_RECORD").is_some() {
        fs::write(path, session).unwrap();
    } else {
        let recorded = fs::read_to_string(path).unwrap();
        assert_eq!(session, recorded, "record it anew: cargo xtask pictures --record");
    }
}
