//! The contract of `selector`, checked on every kind that the system has.

#[cfg(unix)]
mod numbers;

use std::io::{self, Read, Write};
#[cfg(windows)]
use std::net::TcpStream as Stream;
#[cfg(unix)]
use std::os::unix::net::UnixStream as Stream;
use std::time::{Duration, Instant};

use oxloop_engine::sys::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use oxloop_engine::sys::{os_error, socket};
use oxloop_engine::{Events, Interest, Selector, SelectorKind, Token, Waker};

const NOW: Option<Duration> = Some(Duration::ZERO);
const A: Token = Token::reserved(1);
const B: Token = Token::reserved(2);

/// A selector and what it said last.
struct Watch {
    selector: Selector,
    events: Events,
}

impl Watch {
    fn new(kind: SelectorKind) -> io::Result<Self> {
        let selector = Selector::new(kind)?;
        assert_eq!(selector.kind(), kind);
        Ok(Self { selector, events: Events::with_capacity(1) })
    }

    fn ready(&mut self, timeout: Option<Duration>) -> io::Result<Vec<(Token, Interest)>> {
        self.selector.wait(&mut self.events, timeout)?;
        let mut ready: Vec<_> = self.events.iter().map(|e| (e.token, e.readiness)).collect();
        ready.sort_by_key(|(token, _)| token.to_u64());
        Ok(ready)
    }
}

fn pair() -> io::Result<(Stream, Stream)> {
    let (left, right) = socket::pair()?;
    Ok((left.into(), right.into()))
}

fn errno(result: io::Result<()>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// One test per kind and per function.
macro_rules! on_every_kind {
    ($cases:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() -> io::Result<()> {
            for kind in SelectorKind::available() {
                println!("{}", kind.name());
                $cases::$name(*kind)?;
            }
            Ok(())
        })*
    };
}

on_every_kind! { cases:
    readiness_is_level_triggered
    directions_are_reported_together
    interest_can_change
    no_interest_is_silence
    hang_ups_are_reported_in_every_direction_asked_for
    deregistered_descriptors_are_silent
    closed_descriptors_are_refused
    registering_twice_modifies
    timeouts_have_nanoseconds
    every_ready_descriptor_is_reported_by_one_wait
    wakers_end_waits
    registrations_come_and_go
}

#[cfg(unix)]
on_every_kind! { numbers:
    hang_ups_of_pipes
    descriptors_closed_later_never_make_waiting_fail
    reused_numbers_can_be_registered_again
    numbers_reused_by_a_regular_file_can_be_deregistered
    modifying_what_the_kernel_forgot_registers_it
    numbers_above_fd_setsize_work
    a_signal_interrupts_the_wait
}

mod cases {
    use super::*;

    pub(crate) fn readiness_is_level_triggered(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let (left, mut right) = pair()?;
        watch.selector.register(left.as_raw_fd(), A, Interest::READABLE)?;
        assert_eq!(watch.ready(NOW)?, []);
        right.write_all(b"x")?;
        assert_eq!(watch.ready(None)?, [(A, Interest::READABLE)]);
        assert_eq!(watch.ready(None)?, [(A, Interest::READABLE)]);
        (&left).read_exact(&mut [0])?;
        assert_eq!(watch.ready(NOW)?, []);
        Ok(())
    }

    pub(crate) fn directions_are_reported_together(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let (left, mut right) = pair()?;
        watch.selector.register(left.as_raw_fd(), A, Interest::BOTH)?;
        assert_eq!(watch.ready(None)?, [(A, Interest::WRITABLE)]);
        right.write_all(b"x")?;
        assert_eq!(watch.ready(None)?, [(A, Interest::BOTH)]);
        Ok(())
    }

    pub(crate) fn interest_can_change(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let (left, mut right) = pair()?;
        let fd = left.as_raw_fd();
        right.write_all(b"x")?;
        watch.selector.register(fd, A, Interest::READABLE)?;
        assert_eq!(watch.ready(None)?, [(A, Interest::READABLE)]);
        watch.selector.modify(fd, A, Interest::WRITABLE)?;
        assert_eq!(watch.ready(None)?, [(A, Interest::WRITABLE)]);
        watch.selector.modify(fd, B, Interest::BOTH)?;
        assert_eq!(watch.ready(None)?, [(B, Interest::BOTH)]);
        watch.selector.modify(fd, B, Interest::READABLE)?;
        assert_eq!(watch.ready(None)?, [(B, Interest::READABLE)]);
        Ok(())
    }

    pub(crate) fn no_interest_is_silence(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let (left, right) = pair()?;
        let fd = left.as_raw_fd();
        watch.selector.register(fd, A, Interest::NONE)?;
        drop(right);
        assert_eq!(watch.ready(NOW)?, []);
        // It must not only be silent, it must not end waits either.
        let start = Instant::now();
        assert_eq!(watch.ready(Some(Duration::from_millis(2)))?, []);
        assert!(start.elapsed() >= Duration::from_millis(2));
        watch.selector.modify(fd, A, Interest::READABLE)?;
        assert_eq!(watch.ready(None)?, [(A, Interest::READABLE)]);
        watch.selector.modify(fd, A, Interest::NONE)?;
        assert_eq!(watch.ready(NOW)?, []);
        assert_eq!(watch.ready(NOW)?, []);
        Ok(())
    }

    pub(crate) fn hang_ups_are_reported_in_every_direction_asked_for(
        kind: SelectorKind,
    ) -> io::Result<()> {
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
            let mut watch = Watch::new(kind)?;
            let (left, right) = pair()?;
            watch.selector.register(left.as_raw_fd(), A, interest)?;
            drop(right);
            assert_eq!(watch.ready(None)?, [(A, interest)]);
        }
        Ok(())
    }

    pub(crate) fn deregistered_descriptors_are_silent(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let (left, right) = pair()?;
        watch.selector.register(left.as_raw_fd(), A, Interest::BOTH)?;
        watch.selector.register(right.as_raw_fd(), B, Interest::WRITABLE)?;
        watch.selector.deregister(left.as_raw_fd())?;
        assert_eq!(watch.ready(None)?, [(B, Interest::WRITABLE)]);
        watch.selector.deregister(right.as_raw_fd())?;
        assert_eq!(watch.ready(NOW)?, []);
        // Once more, and of one that is closed.
        watch.selector.deregister(right.as_raw_fd())?;
        let number = left.into_raw_fd();
        drop(owned(number));
        watch.selector.deregister(number)?;
        Ok(())
    }

    pub(crate) fn closed_descriptors_are_refused(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        for fd in [closed_number(), -1] {
            let result = watch.selector.register(fd, A, Interest::READABLE);
            assert_eq!(errno(result), Some(os_error::EBADF), "{fd}");
            let result = watch.selector.modify(fd, A, Interest::READABLE);
            assert_eq!(errno(result), Some(os_error::EBADF), "{fd}");
        }
        assert_eq!(watch.ready(NOW)?, []);
        Ok(())
    }

    pub(crate) fn registering_twice_modifies(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let (left, _right) = pair()?;
        watch.selector.register(left.as_raw_fd(), A, Interest::READABLE)?;
        watch.selector.register(left.as_raw_fd(), B, Interest::WRITABLE)?;
        assert_eq!(watch.ready(None)?, [(B, Interest::WRITABLE)]);
        Ok(())
    }

    pub(crate) fn timeouts_have_nanoseconds(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        for timeout in [Duration::from_nanos(1), Duration::from_micros(300)] {
            // The least of some, as the machine may be busy.
            let mut least = Duration::MAX;
            for _ in 0..20 {
                let start = Instant::now();
                assert_eq!(watch.ready(Some(timeout))?, []);
                let elapsed = start.elapsed();
                assert!(elapsed >= timeout, "{elapsed:?} is early");
                least = least.min(elapsed);
            }
            #[cfg(target_os = "linux")]
            assert!(least < Duration::from_millis(1), "{least:?} is a whole tick");
        }
        Ok(())
    }

    pub(crate) fn every_ready_descriptor_is_reported_by_one_wait(
        kind: SelectorKind,
    ) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let pairs: Vec<_> = (0..100).map(|_| pair()).collect::<io::Result<_>>()?;
        for (number, (left, _)) in (0..).zip(&pairs) {
            let token = Token::reserved(number);
            watch.selector.register(left.as_raw_fd(), token, Interest::WRITABLE)?;
        }
        let ready = watch.ready(None)?;
        assert_eq!(ready.len(), 100);
        for (number, (token, _)) in (0..).zip(ready) {
            assert_eq!(token, Token::reserved(number));
        }
        Ok(())
    }

    pub(crate) fn wakers_end_waits(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let waker = Waker::new()?;
        watch.selector.register(waker.source().expect("a descriptor"), A, Interest::READABLE)?;
        assert_eq!(watch.ready(NOW)?, []);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                waker.wake();
                waker.wake();
            });
            assert_eq!(watch.ready(None)?, [(A, Interest::READABLE)]);
            io::Result::Ok(())
        })?;
        waker.drain();
        waker.drain();
        assert_eq!(watch.ready(NOW)?, []);
        Ok(())
    }

    pub(crate) fn registrations_come_and_go(kind: SelectorKind) -> io::Result<()> {
        let mut watch = Watch::new(kind)?;
        let pairs: Vec<_> = (0..150).map(|_| pair()).collect::<io::Result<_>>()?;
        let mut expected: Vec<(Token, Interest)> = Vec::new();
        let mut state = 88_172_645_463_325_252_u64;
        for _ in 0..3_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let index = u32::try_from(state % 150).expect("small");
            let fd = pairs[index as usize].0.as_raw_fd();
            let token = Token::reserved(index);
            let place = expected.iter().position(|(known, _)| *known == token);
            match (place, state >> 60) {
                (Some(place), 0..10) => {
                    watch.selector.deregister(fd)?;
                    expected.remove(place);
                }
                (Some(_), _) => watch.selector.modify(fd, token, Interest::BOTH)?,
                (None, _) => {
                    watch.selector.register(fd, token, Interest::WRITABLE)?;
                    expected.push((token, Interest::WRITABLE));
                }
            }
        }
        expected.sort_by_key(|(token, _)| token.to_u64());
        assert!(!expected.is_empty() && expected.len() < 150);
        assert_eq!(watch.ready(None)?, expected);
        Ok(())
    }
}

#[test]
fn kinds() {
    assert_eq!(SelectorKind::best(), SelectorKind::available()[0]);
    let names: Vec<_> = SelectorKind::available().iter().map(|kind| kind.name()).collect();
    let everywhere: &[_] = if cfg!(windows) { &["select"] } else { &["poll", "select"] };
    assert!(names.ends_with(everywhere), "{names:?}");
    for kind in [SelectorKind::Epoll, SelectorKind::Kqueue, SelectorKind::Poll] {
        if !SelectorKind::available().contains(&kind) {
            let error = Selector::new(kind).expect_err("this system has none");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }
}

#[expect(unsafe_code)]
fn owned(number: RawFd) -> OwnedFd {
    use oxloop_engine::sys::fd::FromRawFd;
    // SAFETY: the number came out of `into_raw_fd`, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A number that is not open, nor soon will be.
fn closed_number() -> RawFd {
    if cfg!(windows) { RawFd::MAX / 2 } else { 1_000_000 }
}
