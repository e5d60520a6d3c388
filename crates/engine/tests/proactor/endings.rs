//! How waits, sends that are stuck, and rings end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxloop_engine::Interest;
use oxloop_engine::proactor::{Config, Proactor, Returned};
use oxloop_engine::sys::fd::AsRawFd;

use super::{Bench, Brought, NOW, Operation, bench, elsewhere, interrupted, pattern, refuse_rings};

pub(crate) fn timeouts_have_nanoseconds(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = UnixStream::pair()?;
    for timeout in [Duration::from_nanos(1), Duration::from_micros(300)] {
        let least = bench.shortest_wait(left.as_raw_fd(), timeout, 40)?;
        assert!(least < Duration::from_millis(1), "{least:?} is a whole tick");
    }
    Ok(())
}

pub(crate) fn a_signal_interrupts_the_wait(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = UnixStream::pair()?;
    for timeout in [None, Some(Duration::from_secs(3_600))] {
        // With something to submit the kernel reports success.
        for submit in [false, true] {
            // The least of some, as a thread may sleep outside of its wait, too.
            let mut least = usize::MAX;
            for _ in 0..10 {
                if submit {
                    let fd = left.as_raw_fd();
                    bench.submit(Operation::ReceiveInto { fd, buffer: vec![0] });
                }
                let (result, signals) = interrupted(|| bench.wait(timeout));
                let error = result.expect_err("only the signal ends this");
                assert_eq!(error.kind(), io::ErrorKind::Interrupted);
                least = least.min(signals);
            }
            assert_eq!(least, 1, "the first signal must do");
        }
    }
    assert_eq!(bench.proactor.len(), 20);
    Ok(())
}

/// A send that is stuck halfway says how far it came, and nothing goes after that.
pub(crate) fn cancelled_sends_say_how_far_they_came(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let buffers = vec![pattern(5_000_000)];
    let send = bench.submit(Operation::Send { fd: left.as_raw_fd(), buffers, skip: 0 });
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.proactor.cancel(send));
    let Ok(gone) = bench.one()?.result else { panic!("some bytes had gone") };
    assert!(gone > 0 && gone < 5_000_000);
    drop(left);
    let mut received = Vec::new();
    right.read_to_end(&mut received)?;
    assert!(received == pattern(5_000_000)[..gone]);
    Ok(())
}

/// A request to cancel that came too late: the slot is used again at once.
pub(crate) fn late_cancels_do_not_hit_the_next_tenant(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    for _ in 0..50 {
        let old = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1] });
        right.write_all(b"z")?;
        bench.proactor.cancel(old);
        assert_eq!(bench.one()?.token, old);
        let new = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1] });
        right.write_all(b"z")?;
        let done = bench.one()?;
        assert_eq!((done.token, done.result), (new, Ok(1)));
    }
    Ok(())
}

/// Sends that are stuck, dropped and closed: nothing is read from or written to after that, which a
/// sanitizer would see, and the peer hears of the end at once.
pub(crate) fn ending_with_a_stuck_send(config: Config) -> io::Result<()> {
    for (wait_first, closes) in [(false, false), (true, false), (true, true)] {
        let mut bench = bench(config)?;
        let (left, mut right) = UnixStream::pair()?;
        let fd = left.as_raw_fd();
        bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 100_000] });
        let send = Operation::Send { fd, buffers: vec![vec![1; 5_000_000]], skip: 0 };
        let send = bench.submit(send);
        if wait_first {
            assert!(bench.wait(NOW)?.is_empty());
        }
        if closes {
            let mut completions = bench.completions;
            bench.proactor.close(&mut completions)?;
            let returned = completions.drain().find(|done| done.token == send);
            let Some(Returned::Buffers(buffers)) = returned.map(|done| done.returned) else {
                panic!("it gives back what it took")
            };
            assert_eq!(buffers[0].len(), 5_000_000);
        } else {
            drop(bench);
        }
        drop(left);
        right.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

pub(crate) fn a_ring_that_never_waited_can_be_dropped(config: Config) -> io::Result<()> {
    // Made on one thread and dropped on another.
    let mut bench = bench(Config { entries: 1, ..config })?;
    let (left, mut right) = UnixStream::pair()?;
    for _ in 0..10 {
        bench.submit(Operation::ReceiveInto { fd: left.as_raw_fd(), buffer: vec![0; 100] });
    }
    bench.submit(Operation::Close { fd: left.into() });
    std::thread::scope(|scope| scope.spawn(|| drop(bench)).join().expect("no panic"));
    assert_eq!(right.read(&mut [0])?, 0);
    Ok(())
}

/// A loop that only looks needs no ring; one that sleeps makes it.
pub(crate) fn looking_needs_no_ring(config: Config) -> io::Result<()> {
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let bench = elsewhere(|| {
        refuse_rings(libc::EMFILE)?;
        let mut bench = Bench::of(Proactor::lazy(config).map_err(io::Error::other)?);
        let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        let both = bench.submit(Operation::Poll { fd, interest: Interest::BOTH });
        let none = bench.submit(Operation::Poll { fd, interest: Interest::NONE });
        let done = bench.one_now()?;
        assert_eq!((done.token, done.more), (both, true));
        assert_eq!(done.returned, Brought::Readiness(Interest::WRITABLE));
        right.write_all(b"x")?;
        for _ in 0..2 {
            let seen: Vec<_> =
                bench.wait(NOW)?.into_iter().map(|done| (done.token, done.returned)).collect();
            let expected = [
                (poll, Brought::Readiness(Interest::READABLE)),
                (both, Brought::Readiness(Interest::BOTH)),
            ];
            assert_eq!(seen, expected);
        }
        for token in [both, none] {
            assert!(bench.proactor.cancel(token));
        }
        let ended = bench.wait(NOW)?;
        assert!(ended.iter().take(2).all(|done| done.result == Err(libc::ECANCELED)), "{ended:?}");
        assert!(bench.suspend()?.is_empty());
        // To sleep takes one.
        let error = bench.wait(None).expect_err("there is no ring for this thread");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        Ok(bench)
    })?;
    elsewhere(|| {
        let mut bench = bench;
        let done = bench.one()?;
        assert_eq!(done.returned, Brought::Readiness(Interest::READABLE));
        (&left).read_exact(&mut [0])?;
        // A long run looks at the ring in the end, and at a descriptor that is none always.
        assert!(bench.wait(NOW)?.is_empty());
        assert!(bench.suspend()?.is_empty());
        for _ in 0..100 {
            assert!(bench.wait(NOW)?.is_empty());
        }
        assert!(bench.suspend()?.is_empty());
        bench.submit(Operation::Poll { fd: -1, interest: Interest::READABLE });
        assert_eq!(bench.one_now()?.result, Err(libc::EBADF));
        Ok(())
    })
}
