//! Updates of the simulated platform beside what is true there: shared by the sweeps of `cargo xtask outcomes` and by the fuzz
//! targets, which are no more than an entry into [`fuzz`].

pub mod fuzz;
pub mod world;
