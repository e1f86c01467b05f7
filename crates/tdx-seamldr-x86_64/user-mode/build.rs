//! Has the linker keep `__ex_table`, to which only symbols refer that the linker makes itself.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-tests=-Wl,-z,nostart-stop-gc");
}
