//! The platform for programs with the standard library: threads, process memory, test images.

mod boot;
mod builder;
mod drive;
mod host_memory;
mod lp;
mod page_buf;
mod platform;
mod released;
mod sparse_memory;
mod tds;
mod test_image;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use crate::model::{Answer, Fault, FaultId, TraceEntry};
pub use boot::{boot, CallFailed, NotBooted};
pub use builder::{BootError, Builder, NoMemory};
pub use drive::{run_on_threads, run_stepped};
pub use lp::SimLp;
pub use page_buf::PageBuf;
pub use platform::{ModuleTruth, SimPlatform, TdmrList, Truth};
pub use released::{released_images, ReleasedImage, RELEASED_IMAGES};
pub use tds::{NoRoomForTd, Tds};
pub use test_image::{sign, TestImage, TEST_SIGNER};
