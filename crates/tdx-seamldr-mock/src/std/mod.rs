//! The platform for programs with the standard library: threads, the process's own memory, test images.

mod builder;
mod drive;
mod host_memory;
mod lp;
mod page_buf;
mod platform;
mod released;
mod test_image;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use crate::model::{Answer, Fault, TraceEntry};
pub use builder::{BootError, Builder, NoMemory};
pub use drive::{run_on_threads, run_stepped};
pub use lp::SimLp;
pub use page_buf::PageBuf;
pub use platform::{ModuleTruth, NoRoomForTd, SimPlatform, TdmrList, Truth};
pub use released::{released_images, ReleasedImage, RELEASED_IMAGES};
pub use test_image::{sign, TestImage, TEST_SIGNER};
