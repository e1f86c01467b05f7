//! Compares `seamldr_call` by several threads at once, with the library's lock and other locks.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use tdx_seamldr_benches::DoesNothing;
use tdx_seamldr_core::{CurrentVmcs, Lock, SeamcallRegs, Seamldr, SpinLock};

use crate::locks::{ParkingLot, PthreadSpin, StdMutex};

const THREADS: [u32; 5] = [1, 2, 4, 8, 16];
const ROUNDS: usize = 15;
/// The calls of all threads in a round.
const CALLS: u32 = 800_000;

pub(crate) fn run() {
    let (spin, std, parking_lot) = (SpinLock::new(), StdMutex::default(), ParkingLot::default());
    let pthread = PthreadSpin::default();
    let locks: [(&str, &dyn Fn(u32) -> Duration); 4] = [
        ("SpinLock", &|threads| calls(&spin, threads)),
        ("std::sync::Mutex", &|threads| calls(&std, threads)),
        ("parking_lot::Mutex", &|threads| calls(&parking_lot, threads)),
        ("pthread_spinlock_t", &|threads| calls(&pthread, threads)),
    ];
    for threads in THREADS {
        let mut times = locks.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for ((_, round), times) in locks.iter().zip(&mut times) {
                times.push(round(threads));
            }
        }
        for ((name, _), times) in locks.iter().zip(times) {
            let call = crate::median(times).as_secs_f64() * 1e9 / f64::from(CALLS);
            println!("lock {name} {threads} {call:.1}");
        }
    }
}

/// Returns the time that the threads take for all calls, from the first start to the last end.
fn calls<L: Lock + Sync>(lock: &L, threads: u32) -> Duration {
    let Ok(seamldr) = Seamldr::new(&DoesNothing, lock, CurrentVmcs::Preserved) else {
        return Duration::ZERO;
    };
    let start = Barrier::new(usize::try_from(threads).unwrap_or_default());
    let work = || {
        let mut regs = SeamcallRegs::default();
        start.wait();
        let begin = Instant::now();
        for _ in 0..CALLS.checked_div(threads).unwrap_or_default() {
            // SAFETY: the firmware reads and writes no memory.
            let _ = unsafe { seamldr.seamldr_call(&mut regs) };
        }
        (begin, Instant::now())
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let (begin, end) = times.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
    end.into_iter()
        .max()
        .zip(begin.into_iter().min())
        .map_or(Duration::ZERO, |(end, begin)| end.duration_since(begin))
}
