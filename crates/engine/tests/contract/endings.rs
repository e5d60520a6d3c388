//! How waits, operations and proactors end.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oxloop_engine::proactor::{Config, Returned};
use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::sys::{os_error, pipe::pipe};
use oxloop_engine::{Inbox, Interest, Waker};

use super::{Bench, Brought, NOW, Operation, bench, pattern, tcp};

pub(crate) fn timeouts_are_never_early(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = tcp()?;
    for micros in [0, 1, 300, 1_000, 2_500, 7_000] {
        let timeout = Duration::from_micros(micros);
        let least = bench.shortest_wait(left.as_raw_fd(), timeout, 10)?;
        assert!(least < timeout + Duration::from_millis(5), "{least:?} is late");
    }
    Ok(())
}

/// A waker, watched if it must be, and what it says after a wake-up.
pub(crate) fn waker(bench: &mut Bench) -> io::Result<Waker> {
    let waker = bench.proactor.waker()?;
    if let Some(fd) = waker.source() {
        bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        assert!(bench.wait(NOW)?.is_empty());
    }
    Ok(waker)
}

pub(crate) fn wakers_end_waits(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (own, any) = (waker(&mut bench)?, Waker::new()?);
    let fd = any.source().expect("that of any poller has one");
    bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    for waker in [own, any] {
        for _ in 0..50 {
            std::thread::scope(|scope| {
                scope.spawn(|| waker.wake());
                scope.spawn(|| waker.wake());
                let told = bench.wait(None)?;
                assert_eq!(told.len(), usize::from(waker.source().is_some()), "{told:?}");
                io::Result::Ok(())
            })?;
            waker.drain();
            assert!(bench.wait(NOW)?.is_empty());
        }
    }
    Ok(())
}

pub(crate) fn a_wake_up_before_the_wait_ends_it(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let waker = waker(&mut bench)?;
    for _ in 0..1_000 {
        waker.wake();
    }
    bench.wait(None)?;
    waker.drain();
    let start = Instant::now();
    bench.wait(Some(Duration::from_millis(5)))?;
    assert!(start.elapsed() >= Duration::from_millis(5), "a thousand count as one");
    // It may outlive what it wakes.
    drop(bench);
    waker.wake();
    Ok(())
}

/// A push that met the loop in the moment in which it goes to sleep, again and again.
pub(crate) fn nobody_sleeps_through_a_push(config: Config) -> io::Result<()> {
    const PUSHES: u32 = 5_000;
    let mut bench = bench(config)?;
    let inbox = Inbox::new(waker(&mut bench)?);
    let taken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..PUSHES {
                assert_eq!(inbox.push(number), Ok(()));
                while taken.load(Ordering::Acquire) <= number {
                    std::hint::spin_loop();
                }
            }
        });
        let mut queue = VecDeque::new();
        for number in 0..PUSHES {
            for pause in 0..number % 211 {
                std::hint::black_box(pause);
            }
            while queue.is_empty() {
                if inbox.prepare_sleep() {
                    bench.wait(None)?;
                    inbox.finish_sleep();
                    inbox.waker().drain();
                }
                inbox.drain_into(&mut queue);
            }
            assert_eq!(queue.pop_front(), Some(number));
            taken.store(number + 1, Ordering::Release);
        }
        Ok(())
    })
}

pub(crate) fn cancelling(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
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
        assert!(all.iter().all(|done| done.result == Err(os_error::ECANCELED) && !done.more));
        assert!(!bench.proactor.cancel(receive) && !bench.proactor.cancel(shared));
    }
    // What was sent stayed in the socket.
    right.write_all(b"x")?;
    bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 8] });
    assert_eq!(bench.one()?.returned, Brought::Data(b"x".to_vec()));
    // What reads from a pipe, too.
    let (reader, _writer) = pipe()?;
    let read = bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 8] });
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.proactor.cancel(read));
    assert_eq!(bench.one()?.result, Err(os_error::ECANCELED));
    Ok(())
}

pub(crate) fn cancelling_what_rests(config: Config) -> io::Result<()> {
    // A poll between its report and the next wait is not the kernel's.
    let mut bench = bench(Config { buffers: 1, buffer_size: 4, ..config })?;
    let (left, mut right) = tcp()?;
    let fd = left.as_raw_fd();
    right.write_all(b"a lot of data")?;
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    assert_eq!(bench.one()?.token, poll);
    assert!(bench.proactor.cancel(poll));
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (poll, Err(os_error::ECANCELED), false));
    // A receiver that waits for a buffer is not either.
    let receive = bench.submit(Operation::Receive { fd });
    bench.proactor.wait(&mut bench.completions, None)?;
    let held: Vec<_> = bench.completions.drain().collect();
    assert!(bench.wait(Some(Duration::from_millis(5)))?.is_empty());
    assert!(bench.proactor.cancel(receive));
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (receive, Err(os_error::ECANCELED), false));
    for completion in held {
        assert_eq!(bench.look(completion).returned, Brought::Data(b"a lo".to_vec()));
    }
    Ok(())
}

/// What a cancelled receiver has not delivered must still be in the socket.
pub(crate) fn cancelling_loses_no_data(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 4, buffer_size: 64, ..config })?;
    let (left, mut right) = tcp()?;
    let fd = left.as_raw_fd();
    let data = pattern(50_000);
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
                    _ => assert_eq!(done.result, Err(os_error::ECANCELED)),
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
    let (left, mut right) = tcp()?;
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
    Ok(())
}

/// Everything that can be under way, dropped: the peer hears of the end at once.
pub(crate) fn dropping_with_operations_under_way(config: Config) -> io::Result<()> {
    for wait_first in [false, true] {
        let mut bench = bench(config)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (left, mut right) = tcp()?;
        let (reader, _writer) = pipe()?;
        let fd = left.as_raw_fd();
        bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
        bench.submit(Operation::Receive { fd });
        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 100_000] });
        bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 100_000] });
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
    let (left, _right) = tcp()?;
    let fd = left.as_raw_fd();
    let tokens = [
        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 100] }),
        bench.submit(Operation::Receive { fd }),
        bench.submit(Operation::Poll { fd, interest: Interest::NONE }),
    ];
    assert!(bench.wait(NOW)?.is_empty());
    let late = bench.submit(Operation::SendOne { fd, buffer: vec![1; 10], skip: 0 });
    let mut completions = bench.completions;
    bench.proactor.close(&mut completions)?;
    let mut seen = HashSet::new();
    for completion in completions.drain() {
        assert!(!completion.more);
        match completion.returned {
            Returned::Buffer(buffer) => assert_eq!(buffer.len(), 100),
            Returned::Sent(buffer) => assert_eq!(buffer, [1; 10]),
            Returned::Nothing => {}
            _ => panic!("{completion:?}"),
        }
        seen.insert(completion.token);
    }
    assert_eq!(seen, tokens.into_iter().chain([late]).collect());
    Ok(())
}
