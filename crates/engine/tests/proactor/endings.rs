//! How waits, operations and rings end.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use oxloop_engine::proactor::{Config, Proactor, Returned};
use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::sys::pipe::pipe;
use oxloop_engine::{Interest, Waker};

use super::{Bench, Brought, NOW, Operation, bench, elsewhere, interrupted, pattern, refuse_rings};

pub(crate) fn timeouts_have_nanoseconds(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = UnixStream::pair()?;
    for timeout in [Duration::from_nanos(1), Duration::from_micros(300)] {
        // The least of some, as the machine may be busy.
        let mut least = Duration::MAX;
        for round in 0..40 {
            // With something to submit, and without.
            if round % 2 == 0 {
                let fd = left.as_raw_fd();
                bench.submit(Operation::ReceiveInto { fd, buffer: vec![0] });
            }
            let start = Instant::now();
            assert!(bench.wait(Some(timeout))?.is_empty());
            let elapsed = start.elapsed();
            assert!(elapsed >= timeout, "{elapsed:?} is early");
            least = least.min(elapsed);
        }
        assert!(least < Duration::from_millis(1), "{least:?} is a whole tick");
    }
    Ok(())
}

pub(crate) fn wakers_end_waits(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let waker = Waker::new()?;
    let fd = waker.source().expect("a descriptor");
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    assert!(bench.wait(NOW)?.is_empty());
    for _ in 0..100 {
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            scope.spawn(|| waker.wake());
            let done = bench.one()?;
            assert_eq!((done.token, done.more), (poll, true));
            io::Result::Ok(())
        })?;
        waker.drain();
        assert!(bench.wait(NOW)?.is_empty());
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

pub(crate) fn cancelling(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    // Before anything was submitted, and after.
    for wait_first in [false, true] {
        let receive = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 8] });
        let shared = bench.submit(Operation::Receive { fd });
        if wait_first {
            assert!(bench.wait(NOW)?.is_empty());
        }
        for token in [receive, shared, receive] {
            assert!(bench.proactor.cancel(token));
        }
        let all = bench.all()?;
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().all(|done| done.result == Err(libc::ECANCELED) && !done.more));
        assert!(!bench.proactor.cancel(receive) && !bench.proactor.cancel(shared));
    }
    // What was sent stayed in the socket.
    right.write_all(b"x")?;
    bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 8] });
    assert_eq!(bench.one()?.returned, Brought::Data(b"x".to_vec()));
    // A send that is stuck halfway says how far it came, and nothing goes after that.
    let buffers = vec![pattern(5_000_000)];
    let send = bench.submit(Operation::Send { fd, buffers, skip: 0 });
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

pub(crate) fn cancelling_what_rests(config: Config) -> io::Result<()> {
    // A poll between its report and the next wait is not the kernel's.
    let mut bench = bench(Config { buffers: 1, buffer_size: 4, ..config })?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    right.write_all(b"a lot of data")?;
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    assert_eq!(bench.one()?.token, poll);
    assert!(bench.proactor.cancel(poll));
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (poll, Err(libc::ECANCELED), false));
    // A receiver that waits for a buffer is not either.
    let receive = bench.submit(Operation::Receive { fd });
    bench.proactor.wait(&mut bench.completions, None)?;
    let held: Vec<_> = bench.completions.drain().collect();
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.proactor.cancel(receive));
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (receive, Err(libc::ECANCELED), false));
    for completion in held {
        assert_eq!(bench.look(completion).returned, Brought::Data(b"a lo".to_vec()));
    }
    Ok(())
}

/// What a cancelled receiver has not delivered must still be in the socket.
pub(crate) fn cancelling_loses_no_data(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 4, buffer_size: 64, ..config })?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let data = pattern(200_000);
    std::thread::scope(|scope| {
        scope.spawn(|| right.write_all(&data));
        let mut received = Vec::new();
        for round in 0.. {
            let receive = bench.submit(Operation::Receive { fd });
            for _ in 0..round % 3 {
                for done in bench.wait(None)? {
                    let Brought::Data(data) = done.returned else { panic!("{done:?}") };
                    received.extend(data);
                }
                if received.len() == data.len() {
                    break;
                }
            }
            bench.proactor.cancel(receive);
            for done in bench.all()? {
                match done.returned {
                    Brought::Data(data) => received.extend(data),
                    _ => assert_eq!(done.result, Err(libc::ECANCELED)),
                }
            }
            if received.len() == data.len() {
                break;
            }
        }
        assert!(received == data);
        io::Result::Ok(())
    })
}

pub(crate) fn names_die_with_the_last_completion(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let first = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1] });
    right.write_all(b"x")?;
    assert_eq!(bench.one()?.token, first);
    let second = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1] });
    assert_eq!(first.index(), second.index());
    assert_ne!(first, second);
    // The old name must not cancel the new tenant.
    assert!(!bench.proactor.cancel(first));
    assert!(bench.wait(NOW)?.is_empty());
    right.write_all(b"y")?;
    assert_eq!(bench.one()?.token, second);
    // Nor does a request to cancel that came too late: the slot is used again at once.
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

/// Everything that can be under way, dropped: nothing is written to after that, which a
/// sanitizer would see, the peer hears of the end at once, and no descriptor is left.
pub(crate) fn dropping_with_operations_under_way(config: Config) -> io::Result<()> {
    for wait_first in [false, true] {
        let mut bench = bench(config)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (left, mut right) = UnixStream::pair()?;
        let (reader, _writer) = pipe()?;
        let fd = left.as_raw_fd();
        bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
        bench.submit(Operation::Receive { fd });
        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 100_000] });
        bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 100_000] });
        bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 100_000] });
        bench.submit(Operation::Send { fd, buffers: vec![vec![1; 5_000_000]], skip: 0 });
        if wait_first {
            assert!(bench.wait(NOW)?.is_empty());
        }
        drop(bench);
        drop(left);
        right.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

pub(crate) fn closing_gives_everything_back(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let send = Operation::Send { fd, buffers: vec![vec![1; 5_000_000]], skip: 0 };
    let tokens = [
        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 100] }),
        bench.submit(send),
        bench.submit(Operation::Poll { fd, interest: Interest::NONE }),
    ];
    assert!(bench.wait(NOW)?.is_empty());
    let mut completions = bench.completions;
    bench.proactor.close(&mut completions)?;
    let mut seen = HashSet::new();
    for completion in completions.drain() {
        assert!(!completion.more);
        match completion.returned {
            Returned::Buffer(buffer) => assert_eq!(buffer.len(), 100),
            Returned::Buffers(buffers) => assert_eq!(buffers[0].len(), 5_000_000),
            Returned::Nothing => assert_eq!(completion.token, tokens[2]),
            _ => panic!("{completion:?}"),
        }
        seen.insert(completion.token);
    }
    assert_eq!(seen, HashSet::from(tokens));
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
