//! Makes the linker keep `__ex_table`. Only symbols that the linker defines refer to this section.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-tests=-Wl,-z,nostart-stop-gc");
}
