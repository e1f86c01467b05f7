//! Makes the images of TDX modules for the example, and selects the linker script of a bare-metal
//! program.

use std::path::PathBuf;

use tdx_seamldr_mock::{TestImage, TEST_SIGNER};

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let version = |svn_minor| TestImage { svn_minor, ..TestImage::default() };
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(out.join(name), bytes).expect("OUT_DIR can be written")
    };
    for (name, svn_minor) in [("old.blob", 5), ("new.blob", 6), ("newest.blob", 7)] {
        write(name, version(svn_minor).build().as_bytes());
    }
    write("signer", &TEST_SIGNER);
    // An image with a wrong signature, and an image with a wrong hash.
    let image = version(7);
    let mut module = image.module();
    let mut sigstruct = image.sigstruct(&module);
    sigstruct.signature[0] ^= 1;
    write("forged.blob", image.file(&sigstruct, &module).as_bytes());
    let sigstruct = image.sigstruct(&module);
    module[9000] ^= 1;
    write("damaged.blob", image.file(&sigstruct, &module).as_bytes());

    let script = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("link.ld");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rerun-if-changed=link.ld");
}
