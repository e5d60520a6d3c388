//! What descriptors are on Unix: numbers that are used again, of any kind of file, and interrupted waits.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use oxloop_engine::sys::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use oxloop_engine::{Interest, SelectorKind, Token};

use super::{A, B, NOW, Watch, errno, owned, pair};

static NEXT_HIGH_NUMBER: AtomicI32 = AtomicI32::new(1500);

/// The writing end of a pipe without reader is an error to poll and epoll.
pub(crate) fn hang_ups_of_pipes(kind: SelectorKind) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let (reader, writer) = oxloop_engine::sys::pipe::pipe()?;
    drop(reader);
    watch.selector.register(writer.as_raw_fd(), A, Interest::WRITABLE)?;
    assert_eq!(watch.ready(None)?, [(A, Interest::WRITABLE)]);
    Ok(())
}

pub(crate) fn descriptors_closed_later_never_make_waiting_fail(
    kind: SelectorKind,
) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let (left, right) = pair()?;
    let (other, _peer) = pair()?;
    let number = high_number(&left)?;
    watch.selector.register(number, A, Interest::BOTH)?;
    watch.selector.register(other.as_raw_fd(), B, Interest::WRITABLE)?;
    drop(owned(number));
    drop((left, right));
    let expected: &[_] = match kind {
        SelectorKind::Epoll | SelectorKind::Kqueue => &[(B, Interest::WRITABLE)],
        SelectorKind::Poll | SelectorKind::Select => {
            &[(A, Interest::BOTH), (B, Interest::WRITABLE)]
        }
    };
    assert_eq!(watch.ready(None)?, expected);
    watch.selector.deregister(number)?;
    assert_eq!(watch.ready(None)?, [(B, Interest::WRITABLE)]);
    Ok(())
}

pub(crate) fn reused_numbers_can_be_registered_again(kind: SelectorKind) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let (left, _right) = pair()?;
    let number = high_number(&left)?;
    watch.selector.register(number, A, Interest::BOTH)?;
    let (newer, mut peer) = pair()?;
    replace(&newer, number)?;
    watch.selector.register(number, B, Interest::READABLE)?;
    assert_eq!(watch.ready(NOW)?.iter().filter(|(token, _)| *token == B).count(), 0);
    peer.write_all(b"x")?;
    let ready = watch.ready(None)?;
    assert!(ready.contains(&(B, Interest::READABLE)), "{ready:?}");
    watch.selector.deregister(number)?;
    drop(owned(number));
    Ok(())
}

pub(crate) fn numbers_reused_by_a_regular_file_can_be_deregistered(
    kind: SelectorKind,
) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let (left, _right) = pair()?;
    let number = high_number(&left)?;
    watch.selector.register(number, A, Interest::BOTH)?;
    drop(left);
    replace(&std::fs::File::open(std::env::current_exe()?)?, number)?;
    watch.selector.deregister(number)?;
    assert_eq!(watch.ready(NOW)?, []);
    drop(owned(number));
    Ok(())
}

pub(crate) fn modifying_what_the_kernel_forgot_registers_it(kind: SelectorKind) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let (left, right) = pair()?;
    let number = high_number(&left)?;
    watch.selector.register(number, A, Interest::BOTH)?;
    drop(left);
    replace(&right, number)?;
    watch.selector.modify(number, B, Interest::WRITABLE)?;
    assert_eq!(watch.ready(None)?, [(B, Interest::WRITABLE)]);
    watch.selector.deregister(number)?;
    drop(owned(number));
    Ok(())
}

pub(crate) fn numbers_above_fd_setsize_work(kind: SelectorKind) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let (left, mut right) = pair()?;
    let number = high_number(&left)?;
    assert!(number >= 1024);
    watch.selector.register(number, A, Interest::READABLE)?;
    assert_eq!(watch.ready(NOW)?, []);
    right.write_all(b"x")?;
    assert_eq!(watch.ready(None)?, [(A, Interest::READABLE)]);
    watch.selector.deregister(number)?;
    drop(owned(number));
    Ok(())
}

pub(crate) fn a_signal_interrupts_the_wait(kind: SelectorKind) -> io::Result<()> {
    let mut watch = Watch::new(kind)?;
    let error = interrupted(|| watch.ready(None)).expect_err("only the signal ends this");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    let minute = Some(Duration::from_nanos(60_000_000_001));
    let error = interrupted(|| watch.ready(minute)).expect_err("the signal comes first");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    Ok(())
}

#[test]
fn poll_reports_in_the_order_of_registration() -> io::Result<()> {
    let mut watch = Watch::new(SelectorKind::Poll)?;
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect::<io::Result<_>>()?;
    for (number, (left, _)) in (0..200).zip(&pairs).rev() {
        let token = Token::reserved(number);
        watch.selector.register(left.as_raw_fd(), token, Interest::WRITABLE)?;
    }
    for (left, _) in &pairs[20..] {
        watch.selector.deregister(left.as_raw_fd())?;
    }
    watch.selector.wait(&mut watch.events, None)?;
    let tokens: Vec<_> = watch.events.iter().map(|event| event.token).collect();
    assert_eq!(tokens, (0..20).rev().map(Token::reserved).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn regular_files() -> io::Result<()> {
    let file = std::fs::File::open(std::env::current_exe()?)?;
    for kind in SelectorKind::available() {
        let mut watch = Watch::new(*kind)?;
        let result = watch.selector.register(file.as_raw_fd(), A, Interest::BOTH);
        match kind {
            SelectorKind::Epoll => assert_eq!(errno(result), Some(libc::EPERM)),
            SelectorKind::Kqueue => result?,
            SelectorKind::Poll | SelectorKind::Select => {
                result?;
                assert_eq!(watch.ready(None)?, [(A, Interest::BOTH)]);
            }
        }
    }
    Ok(())
}

/// Devices that kqueue refuses are watched beside it: all but terminals on macOS, all that have no filter of
/// their own on FreeBSD. poll of macOS reports them as not open, which counts for both directions.
#[test]
fn character_devices() -> io::Result<()> {
    let device = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let number = device.as_raw_fd();
    for kind in SelectorKind::available() {
        let mut watch = Watch::new(*kind)?;
        let result = watch.selector.register(number, A, Interest::BOTH);
        if *kind == SelectorKind::Epoll {
            assert_eq!(errno(result), Some(libc::EPERM));
            continue;
        }
        result?;
        assert_eq!(watch.ready(None)?, [(A, Interest::BOTH)]);
        let (left, mut right) = pair()?;
        watch.selector.register(left.as_raw_fd(), B, Interest::READABLE)?;
        assert_eq!(watch.ready(None)?, [(A, Interest::BOTH)]);
        watch.selector.modify(number, A, Interest::NONE)?;
        let start = Instant::now();
        assert_eq!(watch.ready(Some(Duration::from_millis(2)))?, []);
        assert!(start.elapsed() >= Duration::from_millis(2));
        right.write_all(b"x")?;
        watch.selector.modify(number, A, Interest::WRITABLE)?;
        let both = [(A, Interest::WRITABLE), (B, Interest::READABLE)];
        assert_eq!(watch.ready(None)?, both);
        watch.selector.deregister(number)?;
        assert_eq!(watch.ready(None)?, [(B, Interest::READABLE)]);
    }
    Ok(())
}

/// A duplicate of `source` above `FD_SETSIZE`, at a number that no other test has or gets, even
/// after it was closed: everything else takes the lowest ones, and each call here starts higher.
fn high_number(source: &UnixStream) -> io::Result<RawFd> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // macOS takes no more than OPEN_MAX, "unlimited" or not (setrlimit(2)).
    let current = Some(maximum.map_or(10_240, |maximum| maximum.min(10_240)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    let least = NEXT_HIGH_NUMBER.fetch_add(1, Ordering::Relaxed);
    let number = rustix::io::fcntl_dupfd_cloexec(source, least)?.into_raw_fd();
    assert_eq!(number, least);
    Ok(number)
}

/// Puts `source` at `number`, which closes what was there.
#[expect(unsafe_code)]
fn replace(source: &impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: the test owns both numbers.
    if unsafe { libc::dup2(source.as_fd().as_raw_fd(), number) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs `wait` and sends its thread a signal, again and again, until it returns.
#[expect(unsafe_code)]
fn interrupted<T>(wait: impl FnOnce() -> T) -> T {
    extern "C" fn ignore(_signal: libc::c_int) {}
    // SAFETY: the handler does nothing, which is safe in a handler; without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    // SAFETY: no preconditions.
    let target = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The wait may not have begun when the first signal comes.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // SAFETY: the target waits for this thread at the end of the scope.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                std::thread::yield_now();
            }
        });
        let result = wait();
        done.store(true, Ordering::SeqCst);
        result
    })
}
