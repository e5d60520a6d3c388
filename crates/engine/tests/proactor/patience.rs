//! Polls whose owners read all there is: what they miss, and what they may not miss.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::{Interest, Token};
use rustix::net::{SendFlags, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Bench, Brought, NOW, Operation, bench, tcp};

impl Bench {
    fn submit_patient(&mut self, socket: &impl AsRawFd) -> Token {
        let poll = Operation::Poll { fd: socket.as_raw_fd(), interest: Interest::READABLE };
        let poll = self.submit(poll);
        self.proactor.set_patient(poll);
        poll
    }

    /// How many completions a look brings.
    fn reports(&mut self) -> usize {
        self.wait(NOW).map_or(usize::MAX, |done| done.len())
    }
}

/// Seven of the waits that follow a report, if they do not sleep.
pub(crate) fn patient_polls_miss_a_few_waits(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (watched, mut peer) = UnixStream::pair()?;
    let poll = bench.submit_patient(&watched);
    peer.write_all(b"x")?;
    for _ in 0..3 {
        assert_eq!(bench.one()?.token, poll, "a sleep");
    }
    for _ in 0..2 {
        let reports: Vec<_> = (0..8).map(|_| bench.reports()).collect();
        assert_eq!(reports, [0, 0, 0, 0, 0, 0, 0, 1]);
    }
    bench.proactor.hurry();
    assert_eq!([bench.reports(), bench.reports()], [1, 0]);
    // What a withdrawal sees besides is not reported, and may not be missed.
    let receive = bench.submit(Operation::Receive { fd: peer.as_raw_fd() });
    bench.reports();
    assert!(bench.proactor.withdraw(receive).is_some());
    assert_eq!([bench.reports(), bench.reports()], [1, 0]);
    // A new run.
    assert!(bench.suspend()?.is_empty());
    assert_eq!(bench.reports(), 1);
    assert!(bench.suspend()?.is_empty());
    assert!(bench.proactor.withdraw(poll).is_some() && bench.proactor.is_empty());
    Ok(())
}

/// Something new is told of, and nothing any more after it was read: an owner that reads then would wait.
pub(crate) fn patient_polls_tell_of_changes(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (mut watched, mut peer) = tcp()?;
    let poll = bench.submit_patient(&watched);
    assert_eq!(bench.reports(), 0);
    for _ in 0..20 {
        peer.write_all(b"x")?;
        assert_eq!(bench.one()?.token, poll);
        peer.write_all(b"y")?;
        assert_eq!(bench.one()?.token, poll);
        peer.write_all(b"z")?;
        watched.read_exact(&mut [0; 3])?;
        let later: usize = (0..9).map(|_| bench.reports()).sum();
        assert_eq!(later, 0);
    }
    assert!(bench.proactor.withdraw(poll).is_some() && bench.proactor.is_empty());
    Ok(())
}

/// The end of what the peer sends came with the data, and nothing comes after it.
pub(crate) fn patient_polls_see_the_end(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (mut watched, mut peer) = tcp()?;
    let poll = bench.submit_patient(&watched);
    assert_eq!(bench.reports(), 0);
    peer.write_all(b"x")?;
    peer.shutdown(Shutdown::Write)?;
    assert_eq!(bench.one()?.token, poll);
    watched.read_exact(&mut [0])?;
    assert_eq!(bench.reports(), 1, "the next wait, although it does not sleep");
    assert_eq!(watched.read(&mut [0])?, 0);
    Ok(())
}

/// A read stops in front of the urgent byte (tcp(7)), and no change tells of what is behind it.
pub(crate) fn patient_polls_see_what_a_read_has_left(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (mut watched, mut peer) = tcp()?;
    let poll = bench.submit_patient(&watched);
    peer.write_all(b"before")?;
    send(&peer, b"!", SendFlags::OOB)?;
    peer.write_all(b"after")?;
    let mut data = [0; 100];
    for part in ["before", "after"] {
        assert_eq!(bench.one()?.token, poll);
        let count = watched.read(&mut data)?;
        assert_eq!(std::str::from_utf8(&data[..count]), Ok(part));
    }
    Ok(())
}

/// A sleep that something ends for nothing: a poll wakes for the end of the other direction, and finds nothing ready.
pub(crate) fn patient_polls_are_asked_before_each_sleep(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (watched, mut peer) = tcp()?;
    let (other, _its_peer) = tcp()?;
    let poll = bench.submit_patient(&watched);
    bench.submit_patient(&other);
    assert_eq!(bench.reports(), 0);
    peer.write_all(b"x")?;
    assert_eq!(bench.one()?.token, poll);
    other.shutdown(Shutdown::Write)?;
    assert_eq!(bench.one()?.token, poll, "and not never");
    Ok(())
}

pub(crate) fn polls_pause(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (mut watched, mut peer) = UnixStream::pair()?;
    let poll = bench.submit_patient(&watched);
    for round in 0..4 {
        if round == 1 {
            // The kernel has told of it, and is to tell no more.
            peer.write_all(b"x")?;
            assert_eq!(bench.one()?.token, poll);
        }
        assert!(bench.proactor.pause_poll(poll));
        peer.write_all(b"xx")?;
        assert_eq!([bench.reports(), bench.reports()], [0, 0]);
        if round == 2 {
            assert!(bench.suspend()?.is_empty());
        }
        if round == 3 {
            bench.proactor.resume_poll(poll);
            assert!(bench.proactor.pause_poll(poll));
            assert_eq!([bench.reports(), bench.reports()], [0, 0]);
            assert!(bench.suspend()?.is_empty());
            assert_eq!([bench.reports(), bench.reports()], [0, 0]);
        }
        bench.proactor.resume_poll(poll);
        assert_eq!(bench.reports(), 1);
        let count = watched.read(&mut [0; 100])?;
        assert_eq!(count, if round == 1 { 3 } else { 2 });
        let later: usize = (0..9).map(|_| bench.reports()).sum();
        assert_eq!(later, 0);
    }
    // Nothing came meanwhile.
    assert!(bench.proactor.pause_poll(poll));
    bench.proactor.resume_poll(poll);
    assert_eq!(bench.reports(), 0);
    assert!(bench.proactor.pause_poll(poll));
    let done = bench.withdraw(poll)?;
    assert_eq!((done.token, done.result), (poll, Err(libc::ECANCELED)));
    assert!(bench.proactor.is_empty());
    // Of any other poll there is nothing to save.
    let fd = watched.as_raw_fd();
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    assert!(!bench.proactor.pause_poll(poll));
    Ok(())
}

/// A pause does not keep a file open whose peer has closed, and a sleep in a pause is none that turns round and round.
pub(crate) fn pauses_let_go(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (watched, mut peer) = tcp()?;
    let poll = bench.submit_patient(&watched);
    assert_eq!(bench.reports(), 0);
    assert!(bench.proactor.pause_poll(poll));
    for _ in 0..3 {
        peer.write_all(b"x")?;
        assert_eq!(bench.reports(), 0);
    }
    let short = std::time::Duration::from_millis(1);
    assert!(bench.wait(Some(short))?.is_empty());
    drop(watched);
    let error = loop {
        // Closed with something unread.
        match peer.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    bench.proactor.resume_poll(poll);
    assert_eq!(bench.withdraw(poll)?.token, poll);
    assert!(bench.proactor.is_empty());
    Ok(())
}

/// poll(2) takes no more descriptors than the process may have open; polls are submitted again then.
pub(crate) fn more_patient_polls_than_descriptors_allowed() -> io::Result<()> {
    let mut bench = bench(Config::default())?;
    let mut pairs: Vec<(TcpStream, TcpStream)> =
        (0..20).map(|_| tcp()).collect::<io::Result<_>>()?;
    for (watched, _) in &pairs {
        bench.submit_patient(watched);
    }
    assert_eq!(bench.reports(), 0);
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(10), maximum })?;
    for _ in 0..3 {
        for (_, peer) in &mut pairs {
            peer.write_all(b"x")?;
        }
        let mut told = std::collections::HashSet::new();
        while told.len() < pairs.len() {
            let done = bench.wait(None)?;
            assert!(
                done.iter().all(|done| done.returned == Brought::Readiness(Interest::READABLE))
            );
            told.extend(done.into_iter().map(|done| done.token));
        }
        // They are still ready.
        let again = bench.wait(None)?;
        assert!(!again.is_empty());
        for (watched, _) in &mut pairs {
            watched.read_exact(&mut [0])?;
        }
        // What was seen before it was read may be told of once more.
        bench.wait(NOW)?;
        bench.wait(NOW)?;
        let short = std::time::Duration::from_millis(1);
        assert!(bench.wait(Some(short))?.is_empty());
    }
    Ok(())
}
