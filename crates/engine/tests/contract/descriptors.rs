//! Datagrams, pipes, processes, polls of whatever there is, and descriptors that are none.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::sys::{os_error, pipe, process};
use oxloop_engine::{Address, Interest};

use super::{Brought, NOW, Operation, bench, kind, nobody, take, tcp};

pub(crate) fn datagrams(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let fd = ours.as_raw_fd();
    let receive = bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 20] });
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
    theirs.send_to(b"datagram", ours.local_addr()?)?;
    let done = bench.one()?;
    let sender = Some(Address::from(theirs.local_addr()?));
    assert_eq!((done.token, done.result, done.more), (receive, Ok(8), false));
    assert_eq!(done.returned, Brought::Datagram(b"datagram".to_vec(), sender));
    let address = Some(Address::from(theirs.local_addr()?));
    let buffers = vec![b"two ".to_vec(), b"parts".to_vec()];
    let send = bench.submit(Operation::SendTo { fd, buffers: buffers.clone(), address });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (send, Ok(9), false));
    assert_eq!(done.returned, Brought::Buffers(buffers));
    let mut buffer = [0; 20];
    assert_eq!(theirs.recv_from(&mut buffer)?, (9, ours.local_addr()?));
    // Connected, by an operation; and a datagram of nothing is one.
    let address = Address::from(theirs.local_addr()?);
    bench.submit(Operation::Connect { fd, address });
    assert_eq!(bench.one()?.result, Ok(0));
    for data in ["", "connected"] {
        let buffers = vec![data.into()];
        bench.submit(Operation::SendTo { fd, buffers, address: None });
        assert_eq!(bench.one()?.result, Ok(data.len()));
        assert_eq!(theirs.recv(&mut buffer)?, data.len());
    }
    Ok(())
}

pub(crate) fn datagrams_that_are_cut(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (ours, theirs) = (UdpSocket::bind("[::1]:0")?, UdpSocket::bind("[::1]:0")?);
    let fd = ours.as_raw_fd();
    let sender = || Ok::<_, io::Error>(Some(Address::from(theirs.local_addr()?)));
    // One that is waited for, and one that waits.
    for wait_first in [true, false] {
        if !wait_first {
            theirs.send_to(b"datagram", ours.local_addr()?)?;
        }
        bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 6] });
        if wait_first {
            let none = bench.wait(NOW)?;
            assert!(none.is_empty(), "{none:?}");
            theirs.send_to(b"datagram", ours.local_addr()?)?;
        }
        let done = bench.one()?;
        assert_eq!((done.result, done.more), (Ok(6), false));
        assert_eq!(done.returned, Brought::Datagram(b"datagr".to_vec(), sender()?));
    }
    theirs.send_to(b"next", ours.local_addr()?)?;
    bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 6] });
    assert_eq!(bench.one()?.returned, Brought::Datagram(b"next".to_vec(), sender()?));
    Ok(())
}

pub(crate) fn pipes(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (reader, writer) = pipe::pipe()?;
    let read = Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 10] };
    let read = bench.submit(read);
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
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
    bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 10] });
    assert_eq!(bench.one()?.returned, Brought::Data(b"e".to_vec()));
    // The end, on both sides.
    drop(writer);
    bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 10] });
    assert_eq!(bench.one()?.result, Ok(0));
    let (reader, writer) = pipe::pipe()?;
    drop(reader);
    let (fd, buffers) = (writer.as_raw_fd(), vec![b"x".to_vec()]);
    bench.submit(Operation::Write { fd, buffers, skip: 0 });
    assert_eq!(kind(bench.one()?.result), Some(ErrorKind::BrokenPipe));
    Ok(())
}

/// Both ends of a named pipe, where there are such.
pub(crate) fn named_pipes(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let name = format!(r"\\.\pipe\oxloop-contract-{}", std::process::id());
    let name = OsStr::new(&name);
    for wait_first in [true, false] {
        let server = match pipe::listen(name, true) {
            Ok(server) => server,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(error),
        };
        let fd = server.as_raw_fd();
        // Somebody who comes before the operation, and after.
        let early = if wait_first { None } else { Some(pipe::connect(name)?) };
        let accept = bench.submit(Operation::Accept { fd });
        if wait_first {
            let none = bench.wait(NOW)?;
            assert!(none.is_empty(), "{none:?}");
        }
        let client = early.map_or_else(|| pipe::connect(name), Ok)?;
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (accept, Ok(0), false));
        assert!(pipe::connect(name).is_err(), "there is no second one");
        // In both directions at once, into shared buffers.
        let theirs = client.as_raw_fd();
        let receive = bench.submit(Operation::Receive { fd });
        let read = bench.submit(Operation::Read { fd: theirs, buffer: vec![0; 10] });
        let none = bench.wait(NOW)?;
        assert!(none.is_empty(), "{none:?}");
        for (fd, data) in [(theirs, "to the server"), (fd, "to the client")] {
            bench.submit(Operation::Write { fd, buffers: vec![data.into()], skip: 0 });
        }
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.extend(bench.wait(None)?);
        }
        let brought = |token| seen.iter().find(|done| done.token == token).expect("it is there");
        let done = brought(receive);
        assert_eq!((done.more, &done.returned), (true, &Brought::Data(b"to the server".to_vec())));
        assert_eq!(brought(read).returned, Brought::Data(b"to the cli".to_vec()));
        // What was cut is what comes next.
        bench.submit(Operation::Read { fd: theirs, buffer: vec![0; 10] });
        assert_eq!(bench.one()?.returned, Brought::Data(b"ent".to_vec()));
        drop(client);
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (receive, Ok(0), false));
    }
    Ok(())
}

pub(crate) fn polls_are_level_triggered(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let fd = left.as_raw_fd();
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
    right.write_all(b"x")?;
    for _ in 0..3 {
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (poll, Ok(0), true));
        assert_eq!(done.returned, Brought::Readiness(Interest::READABLE));
    }
    take(&left, 1)?;
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
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
    assert!(ends.iter().all(|done| !done.more && done.result == Err(os_error::ECANCELED)));
    assert_eq!(ends.len(), 2, "{ends:?}");
    Ok(())
}

/// A few waits at most that do not sleep, and none after it is told to hurry.
pub(crate) fn patient_polls_miss_little(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let poll = bench.submit(Operation::Poll { fd: left.as_raw_fd(), interest: Interest::READABLE });
    bench.proactor.set_patient(poll);
    assert!(bench.wait(NOW)?.is_empty());
    right.write_all(b"x")?;
    for _ in 0..3 {
        assert_eq!(bench.one()?.token, poll);
        let mut reports = 0;
        for _ in 0..8 {
            reports += bench.wait(NOW)?.len();
        }
        assert!(reports >= 1, "{reports}");
        bench.proactor.hurry();
        let hurried = bench.wait(NOW)?;
        assert_eq!(hurried.len(), 1, "{hurried:?}");
        assert_eq!((hurried[0].token, hurried[0].more), (poll, true));
    }
    take(&left, 1)?;
    assert!(bench.wait(NOW)?.is_empty() && bench.wait(NOW)?.is_empty());
    right.write_all(b"x")?;
    assert_eq!(bench.one()?.token, poll);
    assert_eq!(bench.withdraw(poll)?.result, Err(os_error::ECANCELED));
    assert!(bench.proactor.is_empty() && bench.wait(NOW)?.is_empty());
    Ok(())
}

pub(crate) fn polls_report_errors_in_every_direction(config: Config) -> io::Result<()> {
    for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
        let mut bench = bench(config)?;
        let (left, right) = tcp()?;
        let fd = left.as_raw_fd();
        // Closed with something unread: the connection is broken.
        (&left).write_all(b"unread")?;
        let readable = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        drop(right);
        assert_eq!(bench.one()?.token, readable);
        bench.withdraw(readable)?;
        bench.submit(Operation::Poll { fd, interest });
        assert_eq!(bench.one()?.returned, Brought::Readiness(interest));
    }
    Ok(())
}

pub(crate) fn polls_of_no_interest_are_silent(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, right) = tcp()?;
    let poll = bench.submit(Operation::Poll { fd: left.as_raw_fd(), interest: Interest::NONE });
    drop(right);
    assert!(bench.wait(Some(Duration::from_millis(1)))?.is_empty());
    assert!(bench.proactor.cancel(poll));
    let done = bench.one()?;
    assert_eq!((done.token, done.result), (poll, Err(os_error::ECANCELED)));
    Ok(())
}

/// How a connect ends is seen by a poll for writing.
pub(crate) fn polls_of_a_connect(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.into();
    let (_bound, nobody) = nobody()?;
    for listens in [true, false] {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        if !listens {
            drop(socket.connect(&nobody.into()));
        } else if let Err(error) = socket.connect(&address) {
            let started = error.kind() == ErrorKind::WouldBlock
                || error.raw_os_error() == Some(in_progress());
            assert!(started, "{error}");
        }
        let poll = bench.submit(Operation::Poll { fd, interest: Interest::WRITABLE });
        let done = bench.one()?;
        assert_eq!((done.token, done.returned), (poll, Brought::Readiness(Interest::WRITABLE)));
        let failed = socket.take_error()?.map(|error| error.kind());
        assert_eq!(failed, if listens { None } else { Some(ErrorKind::ConnectionRefused) });
        bench.withdraw(poll)?;
    }
    Ok(())
}

/// A listener is readable when somebody has connected.
pub(crate) fn polls_of_a_listener(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let fd = listener.as_raw_fd();
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::BOTH });
    assert!(bench.wait(NOW)?.is_empty());
    let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let done = bench.one()?;
    assert_eq!((done.token, done.returned), (poll, Brought::Readiness(Interest::READABLE)));
    listener.accept()?;
    assert!(bench.wait(NOW)?.is_empty());
    Ok(())
}

/// What a connect says that has only begun; elsewhere it would block.
fn in_progress() -> i32 {
    const EINPROGRESS: [i32; 2] = [115, 36];
    EINPROGRESS[usize::from(!cfg!(target_os = "linux"))]
}

/// More than `select` was made for, and more than go by one call.
pub(crate) fn many_polls(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let pair = |_| {
        let left = std::net::TcpStream::connect(listener.local_addr()?)?;
        Ok((left, listener.accept()?.0))
    };
    let mut pairs: Vec<_> = (0..600).map(pair).collect::<io::Result<_>>()?;
    let readable = |(left, _): &(std::net::TcpStream, _)| Operation::Poll {
        fd: left.as_raw_fd(),
        interest: Interest::READABLE,
    };
    let polls: Vec<_> = pairs.iter().map(|pair| bench.submit(readable(pair))).collect();
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
    for (_, right) in &mut pairs {
        right.write_all(b"x")?;
    }
    let mut seen = HashSet::new();
    while seen.len() < pairs.len() {
        seen.extend(bench.wait(None)?.into_iter().map(|done| done.token));
    }
    assert_eq!(seen, polls.into_iter().collect());
    Ok(())
}

/// The end of a process is seen by a poll.
pub(crate) fn processes(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    // Something that waits for its input to end.
    let (program, arguments): (_, &[&str]) =
        if cfg!(windows) { ("cmd", &["/q"]) } else { ("cat", &[]) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let pid = child.id().cast_signed();
    let pidfd = process::pidfd_open(pid)?;
    let fd = pidfd.as_raw_fd();
    let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(process::reap(pid)?, None);
    // One that is taken back before the end, too.
    let other = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
    let none = bench.wait(NOW)?;
    assert!(none.is_empty(), "{none:?}");
    let done = bench.withdraw(other)?;
    assert_eq!((done.token, done.result), (other, Err(os_error::ECANCELED)));
    drop(child.stdin.take());
    for _ in 0..2 {
        let done = bench.one()?;
        assert_eq!((done.token, done.more), (poll, true));
        assert_eq!(done.returned, Brought::Readiness(Interest::READABLE));
    }
    assert!(process::reap(pid)?.is_some());
    assert_eq!(bench.withdraw(poll)?.result, Err(os_error::ECANCELED));
    Ok(())
}

pub(crate) fn closed_descriptors_are_an_error_of_the_completion(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let buffer = || vec![0; 8];
    let address = || Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
    // One that was open may be another test's by now; none is as large as this.
    let closed = 0x7fff_fff0;
    for fd in [-1, closed] {
        let operations = [
            Operation::Accept { fd },
            Operation::Receive { fd },
            Operation::ReceiveInto { fd, buffer: buffer() },
            Operation::Send { fd, buffers: vec![buffer()], skip: 0 },
            Operation::SendOne { fd, buffer: buffer(), skip: 0 },
            Operation::ReceiveFrom { fd, buffer: buffer() },
            Operation::SendTo { fd, buffers: vec![buffer()], address: Some(address()) },
            Operation::Connect { fd, address: address() },
            Operation::Shutdown { fd, direction: Shutdown::Both },
            Operation::Poll { fd, interest: Interest::BOTH },
            Operation::Read { fd, buffer: buffer() },
            Operation::Write { fd, buffers: vec![buffer()], skip: 0 },
        ];
        let tokens: HashSet<_> = operations.into_iter().map(|one| bench.submit(one)).collect();
        let all = bench.all()?;
        assert!(
            all.iter().all(|done| done.result == Err(os_error::EBADF) && !done.more),
            "{all:?}"
        );
        assert_eq!(all.iter().map(|done| done.token).collect::<HashSet<_>>(), tokens);
        assert_eq!(all.len(), 12);
    }
    Ok(())
}

/// A socket that is closed while it is watched: nothing is taken from whoever has its number next.
pub(crate) fn closing_what_is_watched(config: Config) -> io::Result<()> {
    for receives in [true, false] {
        let mut bench = bench(config)?;
        let (left, mut right) = tcp()?;
        let fd = left.as_raw_fd();
        let watch = if receives {
            Operation::Receive { fd }
        } else {
            Operation::Poll { fd, interest: Interest::READABLE }
        };
        let watch = bench.submit(watch);
        assert!(bench.wait(NOW)?.is_empty());
        drop(left);
        // One of the next ones has the number, and something to read at both ends.
        let mut next: Vec<_> = (0..5).map(|_| tcp()).collect::<io::Result<_>>()?;
        for (left, right) in &mut next {
            left.write_all(b"not yours")?;
            right.write_all(b"not yours")?;
        }
        drop(right.write_all(b"nobody's"));
        bench.wait(NOW)?;
        drop(bench.proactor.withdraw(watch));
        bench.all()?;
        for (left, right) in &next {
            assert_eq!(take(left, 9)?, b"not yours");
            assert_eq!(take(right, 9)?, b"not yours");
        }
    }
    Ok(())
}

pub(crate) fn bad_addresses_are_an_error_of_the_completion(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = tcp()?;
    let fd = left.as_raw_fd();
    bench.submit(Operation::Connect { fd, address: Address::UnixPath(vec![b'x'; 300]) });
    assert!(bench.one()?.result.is_err());
    let (buffers, address) = (vec![b"x".to_vec()], Some(Address::Other));
    bench.submit(Operation::SendTo { fd, buffers: buffers.clone(), address });
    let done = bench.one()?;
    assert!(done.result.is_err());
    assert_eq!(done.returned, Brought::Buffers(buffers));
    Ok(())
}
