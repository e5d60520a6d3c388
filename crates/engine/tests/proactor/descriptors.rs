//! Datagrams, pipes, terminals, polls of whatever there is, and descriptors that are none.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::sys::pipe::pipe;
use oxloop_engine::{Address, Interest};

use super::{Brought, NOW, Operation, bench, open_terminal};

pub(crate) fn datagrams(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let fd = ours.as_raw_fd();
    let receive = bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 6] });
    assert!(bench.wait(NOW)?.is_empty());
    theirs.send_to(b"datagram", ours.local_addr()?)?;
    let done = bench.one()?;
    let sender = Some(Address::from(theirs.local_addr()?));
    assert_eq!((done.token, done.result, done.more), (receive, Ok(6), false));
    assert_eq!(done.returned, Brought::Datagram(b"datagr".to_vec(), sender));
    let address = Some(Address::from(theirs.local_addr()?));
    let buffers = vec![b"two ".to_vec(), b"parts".to_vec()];
    let send = bench.submit(Operation::SendTo { fd, buffers: buffers.clone(), address });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (send, Ok(9), false));
    assert_eq!(done.returned, Brought::Buffers(buffers));
    let mut buffer = [0; 20];
    assert_eq!(theirs.recv_from(&mut buffer)?, (9, ours.local_addr()?));
    // Connected; and a datagram of nothing is one.
    ours.connect(theirs.local_addr()?)?;
    for data in ["", "connected"] {
        let buffers = vec![data.into()];
        bench.submit(Operation::SendTo { fd, buffers, address: None });
        assert_eq!(bench.one()?.result, Ok(data.len()));
        assert_eq!(theirs.recv(&mut buffer)?, data.len());
    }
    // A sender without a name.
    let (left, right) = std::os::unix::net::UnixDatagram::pair()?;
    right.send(b"x")?;
    bench.submit(Operation::ReceiveFrom { fd: left.as_raw_fd(), buffer: vec![0; 6] });
    let Brought::Datagram(data, sender) = bench.one()?.returned else { panic!("none") };
    assert_eq!(data, b"x");
    assert!(matches!(sender, None | Some(Address::UnixUnnamed)), "{sender:?}");
    Ok(())
}

pub(crate) fn pipes(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (reader, writer) = pipe()?;
    let read = Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 10] };
    let read = bench.submit(read);
    assert!(bench.wait(NOW)?.is_empty());
    let buffers = vec![b"through ".to_vec(), b"a pipe".to_vec()];
    let fd = writer.as_raw_fd();
    let write = bench.submit(Operation::Write { fd, buffers: buffers.clone(), skip: 3 });
    let mut seen = HashMap::new();
    while seen.len() < 2 {
        for done in bench.wait(None)? {
            assert!(!done.more);
            seen.insert(done.token, (done.result, done.returned));
        }
    }
    assert_eq!(seen[&write], (Ok(11), Brought::Buffers(buffers)));
    assert_eq!(seen[&read], (Ok(10), Brought::Data(b"ough a pip".to_vec())));
    // A full pipe waits for room.
    let buffers = vec![vec![b'x'; 1_000_000]];
    bench.submit(Operation::Write { fd, buffers, skip: 0 });
    let Ok(first) = bench.one()?.result else { panic!("there was room") };
    assert!(first < 1_000_000);
    let second = bench.submit(Operation::Write { fd, buffers: vec![b"y".to_vec()], skip: 0 });
    assert!(bench.wait(NOW)?.is_empty());
    let mut buffer = vec![0; 1_000_000];
    assert_eq!(rustix::io::read(&reader, &mut buffer)?, first + 1);
    let done = bench.one()?;
    assert_eq!((done.token, done.result), (second, Ok(1)));
    // The end, on both sides.
    drop(writer);
    assert_eq!(rustix::io::read(&reader, &mut buffer)?, 1);
    bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 10] });
    assert_eq!(bench.one()?.result, Ok(0));
    let (reader, writer) = pipe()?;
    drop(reader);
    let (fd, buffers) = (writer.as_raw_fd(), vec![b"x".to_vec()]);
    bench.submit(Operation::Write { fd, buffers, skip: 0 });
    assert_eq!(bench.one()?.result, Err(libc::EPIPE));
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

pub(crate) fn polls_are_level_triggered(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    assert!(bench.wait(NOW)?.is_empty());
    right.write_all(b"x")?;
    for _ in 0..3 {
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (poll, Ok(0), true));
        assert_eq!(done.returned, Brought::Readiness(Interest::READABLE));
    }
    (&left).read_exact(&mut [0])?;
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.wait(Some(Duration::from_millis(2)))?.is_empty());
    let both = bench.submit(Operation::Poll { fd, interest: Interest::BOTH });
    let done = bench.one()?;
    assert_eq!((done.token, done.returned), (both, Brought::Readiness(Interest::WRITABLE)));
    right.write_all(b"x")?;
    let mut seen = HashMap::new();
    while seen.len() < 2 || seen[&both] == Brought::Readiness(Interest::WRITABLE) {
        seen.extend(bench.wait(None)?.into_iter().map(|done| (done.token, done.returned)));
    }
    assert_eq!(seen[&poll], Brought::Readiness(Interest::READABLE));
    assert_eq!(seen[&both], Brought::Readiness(Interest::BOTH));
    assert!(bench.proactor.cancel(poll) && bench.proactor.cancel(both));
    let ends = bench.all()?;
    assert!(ends.iter().all(|done| !done.more && done.result == Err(libc::ECANCELED)));
    assert_eq!(ends.len(), 2, "{ends:?}");
    Ok(())
}

pub(crate) fn polls_report_errors_in_every_direction(config: Config) -> io::Result<()> {
    for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
        let mut bench = bench(config)?;
        let (left, right) = UnixStream::pair()?;
        bench.submit(Operation::Poll { fd: left.as_raw_fd(), interest });
        drop(right);
        assert_eq!(bench.one()?.returned, Brought::Readiness(interest));
    }
    Ok(())
}

pub(crate) fn polls_of_no_interest_are_silent(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, right) = UnixStream::pair()?;
    let poll = bench.submit(Operation::Poll { fd: left.as_raw_fd(), interest: Interest::NONE });
    drop(right);
    assert!(bench.wait(Some(Duration::from_millis(1)))?.is_empty());
    assert!(bench.proactor.cancel(poll));
    let done = bench.one()?;
    assert_eq!((done.token, done.result), (poll, Err(libc::ECANCELED)));
    Ok(())
}

pub(crate) fn closed_descriptors_are_an_error_of_the_completion(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let buffer = || vec![0; 8];
    let address = || Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
    let operations = [
        Operation::Accept { fd: -1 },
        Operation::Receive { fd: -1 },
        Operation::ReceiveInto { fd: -1, buffer: buffer() },
        Operation::Send { fd: -1, buffers: vec![buffer()], skip: 0 },
        Operation::SendOne { fd: -1, buffer: buffer(), skip: 0 },
        Operation::ReceiveFrom { fd: -1, buffer: buffer() },
        Operation::SendTo { fd: -1, buffers: vec![buffer()], address: Some(address()) },
        Operation::Connect { fd: -1, address: address() },
        Operation::Shutdown { fd: -1, direction: Shutdown::Both },
        Operation::Poll { fd: -1, interest: Interest::BOTH },
        Operation::Read { fd: -1, buffer: buffer() },
        Operation::Write { fd: -1, buffers: vec![buffer()], skip: 0 },
    ];
    let tokens: HashSet<_> = operations.into_iter().map(|one| bench.submit(one)).collect();
    let all = bench.all()?;
    assert!(all.iter().all(|done| done.result == Err(libc::EBADF) && !done.more), "{all:?}");
    assert_eq!(all.iter().map(|done| done.token).collect::<HashSet<_>>(), tokens);
    assert_eq!(all.len(), 12);
    Ok(())
}

pub(crate) fn bad_addresses_are_an_error_of_the_completion(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    bench.submit(Operation::Connect { fd, address: Address::UnixPath(vec![b'x'; 300]) });
    assert_eq!(bench.one()?.result, Err(libc::ENAMETOOLONG));
    let (buffers, address) = (vec![b"x".to_vec()], Some(Address::Other));
    bench.submit(Operation::SendTo { fd, buffers: buffers.clone(), address });
    let done = bench.one()?;
    assert_eq!(done.result, Err(libc::EAFNOSUPPORT));
    assert_eq!(done.returned, Brought::Buffers(buffers));
    Ok(())
}
