//! How waits, operations and proactors end.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oxloop_engine::proactor::{Config, Returned};
use oxloop_engine::sys::fd::{AsRawFd, RawFd};
use oxloop_engine::sys::{os_error, pipe::pipe};
use oxloop_engine::{Inbox, Interest, Waker};

use super::{Bench, Brought, NOW, Operation, bench, elsewhere, pattern, take, tcp};

pub(crate) fn timeouts_are_never_early(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = tcp()?;
    for micros in [0, 1, 300, 1_000, 2_500, 7_000] {
        let timeout = Duration::from_micros(micros);
        // The least of some, as the machine may be busy.
        let mut least = Duration::MAX;
        for round in 0..10 {
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
        assert!(least < timeout + Duration::from_millis(5), "{least:?} is late");
    }
    Ok(())
}

/// A waker, watched if it must be, and what it says after a wake-up.
fn waker(bench: &mut Bench) -> io::Result<Waker> {
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

pub(crate) fn a_withdrawn_listener_is_closed(config: Config) -> io::Result<()> {
    for wait_first in [false, true] {
        let mut bench = bench(config)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let accept = bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
        if wait_first {
            assert!(bench.wait(NOW)?.is_empty());
        }
        let done = bench.proactor.withdraw(accept).expect("nothing has come");
        drop(listener);
        let error = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        drop(TcpListener::bind(address)?);
        let done = bench.look(done);
        assert_eq!((done.token, done.result, done.more), (accept, Err(os_error::ECANCELED), false));
        assert!(bench.proactor.withdraw(accept).is_none());
        assert!(bench.wait(NOW)?.is_empty() && bench.proactor.is_empty());
    }
    Ok(())
}

pub(crate) fn peers_of_the_withdrawn_see_the_end(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let operations: [fn(RawFd) -> Operation; 3] = [
        |fd| Operation::Receive { fd },
        |fd| Operation::ReceiveInto { fd, buffer: vec![0; 10] },
        |fd| Operation::Poll { fd, interest: Interest::READABLE },
    ];
    for operation in operations {
        for cancel_first in [false, true] {
            let (left, mut right) = tcp()?;
            let token = bench.submit(operation(left.as_raw_fd()));
            assert!(bench.wait(NOW)?.is_empty());
            if cancel_first {
                assert!(bench.proactor.cancel(token));
            }
            let done = bench.proactor.withdraw(token).expect("nothing has come");
            drop(left);
            // With the file in the kernel's hands this would wait for ever.
            right.read_to_end(&mut Vec::new())?;
            let done = bench.look(done);
            assert_eq!((done.token, done.more), (token, false));
        }
    }
    Ok(())
}

pub(crate) fn withdrawing_loses_nothing(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let (other, mut peer) = tcp()?;
    let receive = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    let also = bench.submit(Operation::Receive { fd: other.as_raw_fd() });
    assert!(bench.wait(NOW)?.is_empty());
    right.write_all(b"data")?;
    peer.write_all(b"more")?;
    let done = bench.proactor.withdraw(receive);
    assert!(bench.proactor.withdraw(receive).is_none() && !bench.proactor.cancel(receive));
    let (mut received, mut others, mut ended) = (Vec::new(), Vec::new(), done.is_some());
    while !ended || others.is_empty() {
        for done in bench.wait(None)? {
            match done.returned {
                Brought::Data(data) if done.token == also => others.extend(data),
                Brought::Data(data) => received.extend(data),
                _ => {
                    assert_eq!((done.token, done.result), (receive, Err(os_error::ECANCELED)));
                    ended = true;
                }
            }
        }
    }
    assert_eq!(others, b"more");
    let rest = take(&left, 4 - received.len())?;
    received.extend(rest);
    assert_eq!(received, b"data");
    // The other one goes on.
    peer.write_all(b"and on")?;
    assert_eq!(bench.one()?.returned, Brought::Data(b"and on".to_vec()));
    Ok(())
}

/// Who has nothing under way in the kernel leaves no word, and nothing else, behind.
pub(crate) fn what_is_withdrawn_at_rest_is_gone(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let fd = left.as_raw_fd();
    let kept = bench.submit(Operation::Receive { fd });
    for round in 0..1_000 {
        let poll = bench.submit(Operation::Poll { fd, interest: Interest::WRITABLE });
        // One of them after it was cancelled.
        if round == 7 {
            assert!(bench.proactor.cancel(poll));
        }
        let done = bench.proactor.withdraw(poll).map(|done| bench.look(done));
        let done = done.map(|done| (done.token, done.result, done.more));
        assert_eq!(done, Some((poll, Err(os_error::ECANCELED), false)));
    }
    let buffers = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 10] });
    let done = bench.proactor.withdraw(buffers).map(|done| bench.look(done).returned);
    assert_eq!(done, Some(Brought::Data(Vec::new())), "the buffer comes back, empty");
    assert_eq!(bench.proactor.len(), 1);
    // The wait sleeps until something comes.
    let before = Instant::now();
    assert!(bench.wait(Some(Duration::from_millis(1)))?.is_empty());
    assert!(before.elapsed() >= Duration::from_millis(1));
    right.write_all(b"data")?;
    let done = bench.one()?;
    assert_eq!((done.token, done.returned), (kept, Brought::Data(b"data".to_vec())));
    Ok(())
}

pub(crate) fn withdrawing_loses_no_wake_up(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let waker = waker(&mut bench)?;
    let (left, _right) = tcp()?;
    for suspends in [false, true] {
        let receive = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        assert!(bench.wait(NOW)?.is_empty());
        waker.wake();
        if suspends {
            bench.suspend()?;
        }
        assert!(bench.proactor.withdraw(receive).is_some());
        bench.wait(None)?;
        if waker.source().is_some() {
            waker.drain();
        }
        assert!(bench.wait(NOW)?.is_empty());
    }
    Ok(())
}

/// A loop that runs on one thread after the other, and is closed on a third one.
pub(crate) fn going_on_elsewhere(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (left, mut right) = tcp()?;
    let (watched, mut peer) = tcp()?;
    let accept = bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
    let receive = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    let fd = watched.as_raw_fd();
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    for round in 0..6 {
        if round % 2 == 0 {
            assert!(bench.wait(NOW)?.is_empty());
            assert!(bench.suspend()?.is_empty());
        }
        let client = TcpStream::connect(listener.local_addr()?)?;
        right.write_all(b"data")?;
        peer.write_all(b"x")?;
        let run = |mut bench: Bench| -> io::Result<Bench> {
            let mut seen = HashSet::new();
            while seen.len() < 3 {
                let mut all = bench.wait(None)?;
                all.extend(bench.suspend()?);
                for done in all {
                    assert!(done.more, "{done:?}");
                    match done.returned {
                        Brought::Connection(_) => assert_eq!(done.token, accept),
                        Brought::Data(data) => {
                            assert_eq!((done.token, &*data), (receive, &b"data"[..]));
                        }
                        Brought::Readiness(_) => assert_eq!(done.token, poll),
                        _ => panic!("{done:?}"),
                    }
                    seen.insert(done.token);
                }
            }
            Ok(bench)
        };
        bench = if round == 3 { run(bench)? } else { elsewhere(|| run(bench))? };
        take(&watched, 1)?;
        drop(client);
    }
    assert_eq!(bench.proactor.len(), 3);
    // Whoever closes closes for the peer, too.
    let address = listener.local_addr()?;
    drop((listener, left));
    assert_eq!(right.read(&mut [0])?, 0);
    TcpStream::connect(address).expect_err("nobody listens");
    elsewhere(|| {
        let mut completions = bench.completions;
        bench.proactor.close(&mut completions)?;
        let ends: HashSet<_> = completions.drain().map(|done| done.token).collect();
        assert_eq!(ends, HashSet::from([accept, receive, poll]));
        Ok(())
    })
}

/// A thread has gone, and what it has submitted goes on.
pub(crate) fn operations_survive_their_thread(config: Config) -> io::Result<()> {
    let (left, mut right) = tcp()?;
    let (watched, mut peer) = tcp()?;
    let mut bench = elsewhere(|| {
        let mut bench = bench(config)?;
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        let fd = watched.as_raw_fd();
        bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        assert!(bench.wait(NOW)?.is_empty());
        assert!(bench.suspend()?.is_empty());
        Ok(bench)
    })?;
    right.write_all(b"data")?;
    assert_eq!(bench.one()?.returned, Brought::Data(b"data".to_vec()));
    peer.write_all(b"data")?;
    assert_eq!(bench.one()?.returned, Brought::Readiness(Interest::READABLE));
    Ok(())
}
