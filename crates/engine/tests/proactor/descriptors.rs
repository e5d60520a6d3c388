//! Pipes that are full, terminals, and hang-ups.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxloop_engine::Interest;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::{AsRawFd, OwnedFd};
use oxloop_engine::sys::pipe::pipe;

use super::{Brought, NOW, Operation, bench};

pub(crate) fn full_pipes_wait_for_room(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (reader, writer) = pipe()?;
    let fd = writer.as_raw_fd();
    let buffers = vec![vec![b'x'; 1_000_000]];
    bench.submit(Operation::Write { fd, buffers, skip: 0 });
    let Ok(first) = bench.one()?.result else { panic!("there was room") };
    assert!(first < 1_000_000);
    let second = bench.submit(Operation::Write { fd, buffers: vec![b"y".to_vec()], skip: 0 });
    assert!(bench.wait(NOW)?.is_empty());
    let mut buffer = vec![0; 1_000_000];
    assert_eq!(rustix::io::read(&reader, &mut buffer)?, first);
    let done = bench.one()?;
    assert_eq!((done.token, done.result), (second, Ok(1)));
    assert_eq!((rustix::io::read(&reader, &mut buffer)?, buffer[0]), (1, b'y'));
    Ok(())
}

pub(crate) fn terminals(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (controller, terminal) = open_terminal()?;
    let fd = controller.as_raw_fd();
    let read = bench.submit(Operation::Read { fd, buffer: vec![0; 10] });
    assert!(bench.wait(NOW)?.is_empty());
    (&terminal).write_all(b"hello")?;
    let done = bench.one()?;
    assert_eq!((done.token, done.result), (read, Ok(5)));
    assert_eq!(done.returned, Brought::Data(b"hello".to_vec()));
    let cancelled = bench.submit(Operation::Read { fd, buffer: vec![0; 10] });
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.proactor.cancel(cancelled));
    assert_eq!(bench.one()?.result, Err(libc::ECANCELED));
    Ok(())
}

/// The end of both directions is an error; that of one is not.
pub(crate) fn hang_ups_count_in_every_direction_asked_for(config: Config) -> io::Result<()> {
    for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
        let mut bench = bench(config)?;
        let (left, right) = UnixStream::pair()?;
        let fd = left.as_raw_fd();
        let silent = bench.submit(Operation::Poll { fd, interest: Interest::NONE });
        let poll = bench.submit(Operation::Poll { fd, interest });
        drop(right);
        let done = bench.one()?;
        assert_eq!((done.token, done.returned), (poll, Brought::Readiness(interest)));
        bench.withdraw(poll)?;
        assert!(bench.wait(Some(Duration::from_millis(1)))?.is_empty());
        assert_eq!(bench.withdraw(silent)?.result, Err(libc::ECANCELED));
    }
    Ok(())
}

/// The two ends of a terminal, raw, the first of them non-blocking.
fn open_terminal() -> io::Result<(OwnedFd, std::fs::File)> {
    use rustix::pty::{OpenptFlags, grantpt, ptsname, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = rustix::pty::openpt(flags)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let path = name.to_str().map_err(io::Error::other)?;
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    rustix::io::ioctl_fionbio(&controller, true)?;
    Ok((controller, terminal))
}

/// A peer that sends no more makes no room, and there being room is a level afterwards, too.
pub(crate) fn half_closed_peers_make_no_room(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, right) = UnixStream::pair()?;
    left.set_nonblocking(true)?;
    let mut sent = 0;
    while let Ok(count) = (&left).write(&[0; 4096]) {
        sent += count;
    }
    right.shutdown(Shutdown::Write)?;
    let fd = left.as_raw_fd();
    let room = bench.submit(Operation::Poll { fd, interest: Interest::WRITABLE });
    for timeout in [NOW, NOW, Some(Duration::from_millis(1)), NOW] {
        assert!(bench.wait(timeout)?.is_empty());
    }
    (&right).read_exact(&mut vec![0; sent])?;
    for _ in 0..3 {
        let done = bench.one()?;
        let ready = Brought::Readiness(Interest::WRITABLE);
        assert_eq!((done.token, done.returned, done.more), (room, ready, true));
    }
    assert_eq!(bench.withdraw(room)?.result, Err(libc::ECANCELED));
    assert!(bench.proactor.is_empty() && bench.wait(NOW)?.is_empty());
    Ok(())
}
