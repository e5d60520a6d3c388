//! Proactors in children of the process, and on many threads; each test is a process of its own, as
//! others open descriptors and start threads, too.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use oxloop_engine::Interest;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;

use super::{Bench, Brought, NOW, Operation, SETUPS, bench, descriptors, elsewhere};

pub(crate) fn rings_leave_nothing_behind() -> io::Result<()> {
    let before = descriptors()?;
    for _ in 0..20 {
        let mut bench = bench(Config::default())?;
        let (left, right) = UnixStream::pair()?;
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        bench.submit(Operation::Close { fd: right.into() });
        bench.all()?;
        // On other threads, and dropped on a third.
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        for _ in 0..3 {
            bench.suspend()?;
            bench = elsewhere(|| {
                bench.wait(NOW)?;
                bench.suspend()?;
                Ok(bench)
            })?;
        }
    }
    assert_eq!(descriptors()?, before);
    Ok(())
}

/// Many loops at once, closed with everything under way, half of them by another thread.
pub(crate) fn many_threads_close_their_rings() -> io::Result<()> {
    let before = descriptors()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || -> io::Result<()> {
                    for round in 0..10 {
                        let setup = SETUPS[(number + round) % SETUPS.len()];
                        let mut bench = bench(Config { setup, ..Config::default() })?;
                        let listener = TcpListener::bind("127.0.0.1:0")?;
                        let (left, mut right) = UnixStream::pair()?;
                        let fd = left.as_raw_fd();
                        bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
                        bench.submit(Operation::Receive { fd });
                        bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
                        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1_000] });
                        assert!(bench.wait(NOW)?.is_empty());
                        if round % 2 == 0 {
                            assert_eq!(bench.suspend()?.len(), 1);
                            elsewhere(|| bench.proactor.close(&mut bench.completions))?;
                        } else {
                            bench.proactor.close(&mut bench.completions)?;
                        }
                        drop(left);
                        assert_eq!(right.read(&mut [0])?, 0);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    assert_eq!(descriptors()?, before);
    Ok(())
}

/// Nothing of a connection stays: no descriptor, no operation, and none of four buffers.
pub(crate) fn ten_thousand_connections_leave_nothing_behind() -> io::Result<()> {
    const AT_ONCE: usize = 100;
    let path = std::env::temp_dir().join(format!("oxloop-many-{}", std::process::id()));
    let listener = UnixListener::bind(&path)?;
    let mut bench = bench(Config { buffers: 4, buffer_size: 64, ..Config::default() })?;
    let accept = bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
    let mut connections = HashMap::new();
    let mut before = None;
    for round in 0..10_000 / AT_ONCE {
        let mut clients: Vec<_> =
            (0..AT_ONCE).map(|_| UnixStream::connect(&path)).collect::<io::Result<_>>()?;
        for client in &mut clients {
            client.write_all(b"message")?;
        }
        // Half of them are closed by their clients, the others while they receive.
        let mut left = 2 * AT_ONCE;
        while left > 0 {
            for done in bench.wait(None)? {
                match done.returned {
                    Brought::Connection(fd) => {
                        let token = bench.submit(Operation::Receive { fd });
                        let place = bench.connections.iter().position(|s| s.as_raw_fd() == fd);
                        let socket = bench.connections.remove(place.expect("it has come"));
                        connections.insert(token, socket);
                        left -= 1;
                    }
                    Brought::Data(data) => {
                        assert_eq!(data, b"message");
                        left -= 1;
                    }
                    _ => panic!("{done:?}"),
                }
            }
        }
        clients.truncate(AT_ONCE / 2);
        while connections.len() > AT_ONCE / 2 {
            for done in bench.wait(None)? {
                assert_eq!((done.result, done.more), (Ok(0), false));
                connections.remove(&done.token);
            }
        }
        for (token, socket) in connections.drain() {
            bench.proactor.withdraw(token);
            drop(socket);
        }
        for client in &mut clients {
            assert_eq!(client.read(&mut [0])?, 0);
        }
        drop(clients);
        while bench.proactor.len() > 1 {
            bench.wait(NOW)?;
        }
        bench.wait(NOW)?;
        assert_eq!(descriptors()?, *before.get_or_insert(descriptors()?), "round {round}");
    }
    std::fs::remove_file(&path)?;
    assert!(bench.proactor.cancel(accept));
    assert_eq!(bench.one()?.result, Err(libc::ECANCELED));
    Ok(())
}

/// What a child does with its copy does not disturb the parent.
pub(crate) fn children_drop_their_copy() -> io::Result<()> {
    for setup in SETUPS.iter().copied() {
        let mut bench = bench(Config { setup, ..Config::default() })?;
        let (left, mut right) = UnixStream::pair()?;
        let fd = left.as_raw_fd();
        let receive = bench.submit(Operation::Receive { fd });
        assert!(bench.wait(NOW)?.is_empty());
        // One that the parent has not handed to the kernel yet.
        let poll =
            bench.submit(Operation::Poll { fd: right.as_raw_fd(), interest: Interest::BOTH });
        for close in [false, true] {
            bench = in_child(bench, |mut bench| {
                if !close {
                    return Ok(());
                }
                bench.proactor.cancel(receive);
                bench.proactor.withdraw(poll);
                bench.proactor.suspend(&mut bench.completions)?;
                bench.proactor.close(&mut bench.completions)
            })?;
        }
        right.write_all(b"data")?;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(bench.wait(None)?.into_iter().map(|done| (done.token, done.returned)));
        }
        assert!(seen.contains(&(receive, Brought::Data(b"data".to_vec()))), "{seen:?}");
        assert!(seen.contains(&(poll, Brought::Readiness(Interest::WRITABLE))), "{seen:?}");
    }
    Ok(())
}

/// A child may go on with its copy, and have another proactor, too.
pub(crate) fn children_go_on_with_their_copy() -> io::Result<()> {
    for setup in SETUPS.iter().copied() {
        let mut bench = bench(Config { setup, ..Config::default() })?;
        let (left, mut right) = UnixStream::pair()?;
        let (other, mut peer) = UnixStream::pair()?;
        let receive = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        let once = Operation::ReceiveInto { fd: other.as_raw_fd(), buffer: vec![0; 9] };
        let once = bench.submit(once);
        assert!(bench.wait(NOW)?.is_empty());
        bench = in_child(bench, |mut bench| {
            // The parent's ring has these two, too, but the parent takes nothing meanwhile.
            let all = bench.wait(Some(Duration::from_secs(10)))?;
            let [ref ended] = all[..] else { panic!("{all:?}") };
            assert_eq!((ended.token, ended.result), (once, Err(libc::ECANCELED)));
            let (mine, mut theirs) = UnixStream::pair()?;
            let mut own = super::bench(Config { setup, ..Config::default() })?;
            for bench in [&mut bench, &mut own] {
                let token = bench.submit(Operation::Receive { fd: mine.as_raw_fd() });
                theirs.write_all(b"own")?;
                let done = bench.one()?;
                assert_eq!((done.token, done.returned), (token, Brought::Data(b"own".to_vec())));
                assert_eq!(bench.withdraw(token)?.result, Err(libc::ECANCELED));
            }
            assert!(!bench.proactor.is_empty());
            Ok(())
        })?;
        right.write_all(b"data")?;
        let done = bench.one()?;
        assert_eq!((done.token, done.returned), (receive, Brought::Data(b"data".to_vec())));
        peer.write_all(b"more")?;
        assert_eq!(bench.one()?.returned, Brought::Data(b"more".to_vec()));
    }
    Ok(())
}

/// Runs something in a child with its copy of the bench, and gives this process its own back.
#[expect(unsafe_code)]
fn in_child(bench: Bench, run: impl FnOnce(Bench) -> io::Result<()>) -> io::Result<Bench> {
    // SAFETY: the only other thread of this process waits for the test; the child ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let run = std::panic::AssertUnwindSafe(|| run(bench));
        let good = matches!(std::panic::catch_unwind(run), Ok(Ok(())));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the status is writable.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    assert_eq!(status, 0, "the child has failed");
    Ok(bench)
}
