//! The serial line.

use core::fmt::{self, Write as _};

use spin::mutex::SpinMutex;
use x86_64::instructions::port::Port;

struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: this is QEMU's first serial port, which is always ready.
            unsafe { Port::new(0x3f8).write(byte) };
        }
        Ok(())
    }
}

static SERIAL: SpinMutex<Serial> = SpinMutex::new(Serial);

/// Prints a line.
pub fn line(text: fmt::Arguments<'_>) {
    let mut serial = SERIAL.lock();
    let _ = serial.write_fmt(text);
    let _ = serial.write_str("\n");
}

/// Prints a line.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::machine::serial::line(format_args!($($text)*)) };
}
