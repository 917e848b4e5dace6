//! Lets a thread work for a share of its time, in turns of a quarter of a millisecond.
//!
//! ```text
//!  duty 0.25    ■□□□■□□□■□□□■□□□      ■ works 0.25 ms   □ rests 0.75 ms
//! ```
//!
//! The graph of a batch runs for tens of milliseconds, and a process that wakes up on its core would wait for several of
//! them: with a kernel that looks at its threads 250 times a second, four at a time. ONNX Runtime cannot be asked to pause.
//! So a timer of the kernel sends the thread a signal after each turn, and the handler of that signal sleeps
//! (timer_create(2), `SIGEV_THREAD_ID`). Sleeping and arming a timer are allowed in a handler (signal-safety(7)).
//!
//! The signal can come while the thread holds a lock. So only the graph runs under a throttle, which holds none but those
//! of its memory.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::libc::{self, c_int, c_void, itimerspec, siginfo_t, timespec};

/// How long a thread works at a time. Measured: beside a thousand transactions a second, their 95th percentile doubles with
/// 1 ms and grows by a third with 0.25 ms; shorter turns gain no more, and each ends with two switches.
const WORK: Duration = Duration::from_micros(250);
/// The longest rest, for a duty that is nearly nothing.
const MAX_REST: Duration = Duration::from_millis(50);

/// No library of ours uses this one, and nothing sends it unless asked to.
const SIGNAL: c_int = libc::SIGVTALRM;

/// The throttle of one thread, which is the one that has created it. `None` where the kernel has no timer for it: then the
/// thread works all the time.
pub(crate) struct Throttle(Option<&'static Shared>);

/// What the thread, the monitor and the signal handler share. It is never freed, because a signal may still be on its way.
struct Shared {
    timer: libc::timer_t,
    /// In nanoseconds; 0 while the thread need not rest.
    rest: AtomicU64,
    /// Whether the thread is at work that may rest.
    works: AtomicBool,
}

// SAFETY: a timer of the kernel belongs to the process, and may be armed from any of its threads.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Throttle {
    /// A throttle for the calling thread.
    pub(super) fn of_this_thread() -> Throttle {
        let created = Shared::create();
        if let Err(error) = &created {
            tracing::warn!(
                "this thread cannot rest during a batch, because it has no timer: {error}"
            );
        }
        Throttle(created.ok())
    }

    /// From now on the thread may work for this share of its time. May be called from any thread.
    pub(super) fn set_duty(&self, duty: f64) {
        let Some(shared) = self.0 else { return };
        let rest = if duty < 1.0 {
            WORK.div_f64(duty.max(0.001))
                .saturating_sub(WORK)
                .min(MAX_REST)
        } else {
            Duration::ZERO
        };
        let nanoseconds = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX);
        let before = shared.rest.swap(nanoseconds, Ordering::Relaxed);
        if before == 0 && nanoseconds > 0 && shared.works.load(Ordering::Relaxed) {
            shared.arm(WORK);
        }
    }

    /// Does work that rests as often as the duty asks for.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Ends<'a>(&'a Shared);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.works.store(false, Ordering::Relaxed);
                self.0.arm(Duration::ZERO);
            }
        }
        let Some(shared) = self.0 else { return work() };
        shared.works.store(true, Ordering::Relaxed);
        let _ends = Ends(shared);
        if shared.rest.load(Ordering::Relaxed) > 0 {
            shared.arm(WORK);
        }
        work()
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            // SAFETY: the timer exists until now, and no other thread arms it: a throttle is dropped with its last user.
            unsafe { libc::timer_delete(shared.timer) };
        }
    }
}

impl Shared {
    /// A timer for the calling thread.
    fn create() -> io::Result<&'static Shared> {
        install_handler()?;
        let shared = Box::leak(Box::new(Shared {
            timer: ptr::null_mut(),
            rest: AtomicU64::new(0),
            works: AtomicBool::new(false),
        }));
        let value = ptr::from_ref::<Shared>(shared).cast_mut().cast::<c_void>();
        // SAFETY: all bytes zero is a value of this C struct.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_value.sival_ptr = value;
        // SAFETY: it has no conditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        // SAFETY: both pointers are valid for the call.
        let created = unsafe {
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut shared.timer)
        };
        if created != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(shared)
    }

    /// Lets the signal come after this time; never, for zero.
    fn arm(&self, time: Duration) {
        let times = itimerspec {
            it_interval: timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: timespec {
                tv_sec: 0,
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        // SAFETY: the timer exists as long as the process, and the struct as long as the call.
        unsafe { libc::timer_settime(self.timer, 0, &raw const times, ptr::null_mut()) };
    }

    /// Runs in the signal handler.
    fn rest(&self) {
        let nanoseconds = self.rest.load(Ordering::Relaxed);
        if nanoseconds == 0 || !self.works.load(Ordering::Relaxed) {
            return;
        }
        let time = timespec {
            tv_sec: 0,
            // At most MAX_REST.
            tv_nsec: nanoseconds as i64,
        };
        // SAFETY: the struct is valid for the call. Another signal ends the rest early, which does no harm.
        unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
        self.arm(WORK);
    }
}

/// Installs the signal handler, once for the process.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        // SAFETY: all bytes zero is a value of this C struct.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the struct is valid for the call, and the handler does only what a handler may.
        match unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_signal(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid struct. If the signal is that of a timer, the value is the one that `timer_create`
    // was given: a `Shared`, which is never freed. The thread's errno is given back as it was.
    unsafe {
        if (*info).si_code != libc::SI_TIMER {
            return;
        }
        let errno = *libc::__errno_location();
        let shared = (*info).si_value().sival_ptr.cast::<Shared>();
        if let Some(shared) = shared.as_ref() {
            shared.rest();
        }
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Rounds of a calculation that takes about as long as it is told.
    fn spin(time: Duration) -> Duration {
        let used = || {
            nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
                .map(Duration::from)
                .expect("a clock")
        };
        let before = used();
        while used().saturating_sub(before) < time {
            std::hint::spin_loop();
        }
        used().saturating_sub(before)
    }

    #[test]
    fn work_takes_as_much_longer_as_the_duty_asks_for() {
        let throttle = Throttle::of_this_thread();
        throttle.set_duty(0.25);
        let started = Instant::now();
        throttle.run(|| spin(Duration::from_millis(20)));
        let throttled = started.elapsed();
        assert!(throttled >= Duration::from_millis(60), "{throttled:?}");
        // Neither outside of the work, nor with the whole duty.
        throttle.set_duty(1.0);
        let started = Instant::now();
        throttle.run(|| spin(Duration::from_millis(20)));
        throttle.set_duty(0.01);
        spin(Duration::from_millis(20));
        let rested = started.elapsed();
        assert!(rested < Duration::from_secs(2), "{rested:?}");
    }

    #[test]
    fn the_duty_may_change_during_the_work() {
        let throttle = Throttle::of_this_thread();
        std::thread::scope(|scope| {
            let (throttle, (begun, begins)) = (&throttle, std::sync::mpsc::channel());
            scope.spawn(move || {
                begins.recv().expect("it begins");
                throttle.set_duty(0.05);
            });
            let started = Instant::now();
            throttle.run(|| {
                begun.send(()).expect("it is received");
                spin(Duration::from_millis(50))
            });
            assert!(started.elapsed() > Duration::from_millis(200));
        });
    }
}
