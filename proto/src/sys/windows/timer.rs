//! Waitable timers, on the clocks that the loops have no timers for.
//!
//! - An absolute due time is one of the wall clock: when that is set, the timer is due earlier or later accordingly.
//! - A relative one stands still while the machine sleeps, since Windows 8; so those that are to count that are set anew when it has woken.
//! - A timer is due with a tick of the system, each 15.6 ms unless somebody asked for finer ones. As a relative due time counts from the tick before, it can be due too early: so what it says is
//!   compared with its clock.
//!
//! Source: Microsoft, SetWaitableTimer, PowerRegisterSuspendResumeNotification; Go, src/runtime/os_windows.go, `monitorSuspendResume`.

use super::handle::cvt_bool;
use super::{BorrowedFd, WaitHandle, monotonic_ns};
use crate::sys::AsFd;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::Power::{
    DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS, PowerRegisterSuspendResumeNotification,
};
use windows_sys::Win32::System::Threading::{CancelWaitableTimer, CreateWaitableTimerW, SetWaitableTimer};
use windows_sys::Win32::UI::WindowsAndMessaging::{
    DEVICE_NOTIFY_CALLBACK, PBT_APMRESUMEAUTOMATIC, PBT_APMRESUMESUSPEND,
};

/// From the beginning of Windows' time, 1601, to that of Unix', in units of 100 ns.
const UNIX_BEGINS: i64 = 116_444_736_000_000_000;

/// What a [`TimerFd`] counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerClock {
    /// The wall clock.
    Wall,
    /// The time since boot with suspend: the performance counter.
    Boot,
}

/// A timer that can be watched for READ and is ready when it is due. It is a handle and no socket, see [`WaitHandle`].
#[derive(Debug)]
pub struct TimerFd(Arc<Timer>);

#[derive(Debug)]
struct Timer {
    clock: TimerClock,
    /// Of a timer that stays signalled until it is set anew.
    handle: WaitHandle<OwnedHandle>,
    /// By its clock: the time since 1970, or what [`monotonic_ns`] says. Locked while it is set, so that waking does not set it back.
    due: Mutex<Option<Duration>>,
}

impl TimerFd {
    /// One that is not set, which no child inherits.
    ///
    /// # Errors
    /// Out of handles or memory; for `Boot` also what PowerRegisterSuspendResumeNotification says.
    pub fn new(clock: TimerClock) -> io::Result<TimerFd> {
        // SAFETY: no attributes and no name: null is allowed for both.
        let raw = unsafe { CreateWaitableTimerW(std::ptr::null(), 1, std::ptr::null()) };
        if raw.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new handle that nobody else owns.
        let handle = WaitHandle(unsafe { OwnedHandle::from_raw_handle(raw) });
        let timer = Arc::new(Timer { clock, handle, due: Mutex::default() });
        if clock == TimerClock::Boot {
            hear_of_waking()?;
            let mut all = lock(&BOOT_TIMERS);
            all.retain(|timer| timer.strong_count() > 0);
            all.push(Arc::downgrade(&timer));
        }
        Ok(TimerFd(timer))
    }

    /// Due at a time of its clock; what was set before is forgotten, also if it was due and nobody has looked.
    ///
    /// # Errors
    /// As SetWaitableTimer.
    pub fn set_at(&self, since_epoch: Duration) -> io::Result<()> {
        let mut due = lock(&self.0.due);
        *due = Some(since_epoch);
        self.0.arm(since_epoch)
    }

    /// Due after a time.
    ///
    /// # Errors
    /// As [`TimerFd::set_at`].
    pub fn set_after(&self, after: Duration) -> io::Result<()> {
        self.set_at(self.0.now().saturating_add(after))
    }

    /// Whether it was due since the last look; it is not ready any more then. If it was too early it is set to what is left.
    pub fn expired(&self) -> bool {
        let mut due = lock(&self.0.due);
        let Some(at) = *due else { return false };
        if self.0.now() < at {
            let _ = self.0.arm(at);
            return false;
        }
        *due = None;
        self.0.disarm();
        true
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.handle.as_fd()
    }
}

impl Timer {
    fn now(&self) -> Duration {
        match self.clock {
            TimerClock::Wall => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            TimerClock::Boot => Duration::from_nanos(monotonic_ns()),
        }
    }

    fn raw(&self) -> HANDLE {
        self.handle.0.as_raw_handle()
    }

    fn arm(&self, due: Duration) -> io::Result<()> {
        let units = |time: Duration| i64::try_from(time.as_nanos().div_ceil(100)).unwrap_or(i64::MAX);
        self.set(match self.clock {
            TimerClock::Wall => UNIX_BEGINS.saturating_add(units(due)),
            // Zero would be a time of the wall clock.
            TimerClock::Boot => -units(due.saturating_sub(self.now())).max(1),
        })
    }

    /// Positive: a time of the wall clock; negative: from now. It is not signalled any more, unless it is due already.
    fn set(&self, units: i64) -> io::Result<()> {
        // SAFETY: an open timer and a live number; no routine, and so no argument for it.
        cvt_bool(unsafe { SetWaitableTimer(self.raw(), &units, 0, None, std::ptr::null(), 0) })
    }

    fn disarm(&self) {
        // Cancelling alone would leave it signalled. Neither fails for an open timer.
        let _ = self.set(-i64::MAX);
        // SAFETY: an open timer.
        unsafe { CancelWaitableTimer(self.raw()) };
    }
}

/// What is to be set anew when the machine wakes.
static BOOT_TIMERS: Mutex<Vec<Weak<Timer>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the system tell this process when it wakes; once, and until the process ends.
fn hear_of_waking() -> io::Result<()> {
    static ASKED: OnceLock<u32> = OnceLock::new();
    let code = *ASKED.get_or_init(|| {
        let mut whom = DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS {
            Callback: Some(power_changed),
            Context: std::ptr::null_mut(),
        };
        let (whom, mut registered) = ((&raw mut whom).cast(), std::ptr::null_mut());
        // SAFETY: `whom` is read within the call, and its routine is there for as long as the process; `registered` is writable.
        unsafe { PowerRegisterSuspendResumeNotification(DEVICE_NOTIFY_CALLBACK, whom, &mut registered) }
    });
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code as i32)) }
}

/// Runs in a thread of the system's.
unsafe extern "system" fn power_changed(
    _context: *const core::ffi::c_void,
    what: u32,
    _setting: *const core::ffi::c_void,
) -> u32 {
    if matches!(what, PBT_APMRESUMEAUTOMATIC | PBT_APMRESUMESUSPEND) {
        woken();
    }
    0
}

fn woken() {
    for timer in lock(&BOOT_TIMERS).iter().filter_map(Weak::upgrade) {
        let due = lock(&timer.due);
        if let Some(at) = *due {
            let _ = timer.arm(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::handle::wait_any;
    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const CLOCKS: [TimerClock; 2] = [TimerClock::Wall, TimerClock::Boot];

    fn is_signalled(timer: &TimerFd, patience: Duration) -> bool {
        wait_any(&[timer.0.raw()], Some(patience)).unwrap().is_some()
    }

    #[test]
    fn a_timer_has_expired_when_its_time_has_come_and_only_once() {
        for clock in CLOCKS {
            let timer = TimerFd::new(clock).unwrap();
            assert!(!timer.expired() && !is_signalled(&timer, Duration::ZERO), "it was not set");
            timer.set_after(LONG).unwrap();
            assert!(!timer.expired() && !is_signalled(&timer, Duration::ZERO));
            let due = timer.0.now() + Duration::from_millis(20);
            timer.set_at(due).unwrap();
            while !timer.expired() {
                assert!(is_signalled(&timer, LONG));
            }
            assert!(timer.0.now() >= due);
            assert!(!timer.expired() && !is_signalled(&timer, Duration::ZERO), "it was told already");
            timer.set_at(due).unwrap();
            assert!(is_signalled(&timer, LONG) && timer.expired(), "a time that has passed");
        }
    }

    #[test]
    fn one_that_was_due_and_is_set_anew_has_not_expired() {
        for clock in CLOCKS {
            let timer = TimerFd::new(clock).unwrap();
            timer.set_after(Duration::ZERO).unwrap();
            assert!(is_signalled(&timer, LONG));
            timer.set_after(LONG).unwrap();
            assert!(!timer.expired() && !is_signalled(&timer, Duration::ZERO));
        }
    }

    #[test]
    fn the_end_of_time_does_not_come() {
        for clock in CLOCKS {
            let timer = TimerFd::new(clock).unwrap();
            for far in [Duration::MAX, Duration::from_secs(u64::MAX / 1000), LONG * 1_000_000] {
                timer.set_after(far).unwrap();
                assert!(!timer.expired() && !is_signalled(&timer, Duration::ZERO), "{far:?}");
            }
        }
    }

    #[test]
    fn what_was_due_while_the_machine_slept_is_due_when_it_wakes() {
        let [timer, other, gone] = [(); 3].map(|()| TimerFd::new(TimerClock::Boot).unwrap());
        for timer in [&timer, &other, &gone] {
            timer.set_after(LONG).unwrap();
        }
        drop(gone);
        // As if the performance counter had gone on meanwhile, and the timer had not.
        *lock(&timer.0.due) = Some(timer.0.now());
        assert!(!is_signalled(&timer, Duration::ZERO));
        // SAFETY: it uses none of its pointers.
        unsafe { power_changed(std::ptr::null(), PBT_APMRESUMEAUTOMATIC, std::ptr::null()) };
        assert!(is_signalled(&timer, LONG) && timer.expired());
        assert!(!is_signalled(&other, Duration::ZERO) && !other.expired());
    }
}
