//! What is taken back from the kernel: one operation, or all of them between two runs of a loop.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use oxloop_engine::Interest;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::{AsRawFd, RawFd};
use oxloop_engine::sys::os_error;

use super::endings::waker;
use super::{Bench, Brought, NOW, Operation, bench, elsewhere, refused, take, tcp};

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
        refused(address);
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
    for round in 0..100_000 {
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
    let waiting = bench.submit(Operation::Receive { fd });
    let done = bench.proactor.withdraw(buffers).map(|done| bench.look(done).returned);
    assert_eq!(done, Some(Brought::Data(Vec::new())), "the buffer comes back, empty");
    assert!(bench.proactor.withdraw(waiting).is_some());
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
    refused(address);
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
