//! The platform for programs with the standard library: threads, the process's own memory, test images.

mod drive;
mod host_memory;
mod page_buf;
mod platform;
mod released;
mod test_image;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use crate::model::{Answer, Fault, TraceEntry};
pub use drive::{run_on_threads, run_stepped};
pub use page_buf::PageBuf;
pub use platform::{
    BootError, Builder, ModuleTruth, NoMemory, NoRoomForTd, SimLp, SimPlatform, TdmrList, Truth,
};
pub use released::{released_images, ReleasedImage, RELEASED_IMAGES};
pub use test_image::{sign, TestImage, TEST_SIGNER};
