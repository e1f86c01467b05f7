//! The platform for programs with the standard library: threads, the process's own memory, test images.

mod drive;
mod fault;
mod host_memory;
mod page_buf;
mod platform;
mod released;
mod test_image;
mod trace;

pub use drive::{run_on_threads, run_stepped};
pub use fault::{Answer, Fault};
pub use page_buf::PageBuf;
pub use platform::{BootError, Builder, ModuleTruth, NoRoomForTd, SimLp, SimPlatform, Storage, Truth};
pub use released::{released_images, ReleasedImage, RELEASED_IMAGES};
pub use test_image::{sign, TestImage, TEST_SIGNER};
pub use trace::TraceEntry;
