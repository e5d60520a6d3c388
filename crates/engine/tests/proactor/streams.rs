//! Connections: accepting, connecting, receiving, sending, and how they end.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use oxloop_engine::Address;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;

use super::{Brought, Buffer, NOW, Operation, bench, pattern, read, tcp};

pub(crate) fn accepting_goes_on(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let accept = bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
    let mut clients = Vec::new();
    for round in 1..=3 {
        for _ in 0..5 {
            clients.push(TcpStream::connect(listener.local_addr()?)?);
        }
        while bench.connections.len() < 5 * round {
            for done in bench.wait(None)? {
                assert!(done.token == accept && done.more, "{done:?}");
                let Brought::Connection(fd) = done.returned else { panic!("{done:?}") };
                let socket = bench.connections.iter().find(|s| s.as_raw_fd() == fd);
                let socket = socket.expect("it is there");
                let flags = rustix::fs::fcntl_getfl(socket)?;
                assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
                let flags = rustix::io::fcntl_getfd(socket)?;
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
    }
    assert!(bench.proactor.cancel(accept));
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (accept, Err(libc::ECANCELED), false));
    Ok(())
}

pub(crate) fn receiving_goes_on_until_the_end(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let receive = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    assert!(bench.wait(NOW)?.is_empty());
    for word in ["one", "two", "three"] {
        right.write_all(word.as_bytes())?;
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (receive, Ok(word.len()), true));
        assert_eq!(done.returned, Brought::Data(word.into()));
    }
    let data = pattern(300_000);
    std::thread::scope(|scope| {
        scope.spawn(|| right.write_all(&data));
        assert!(bench.receive(receive, data.len())? == data);
        io::Result::Ok(())
    })?;
    right.shutdown(Shutdown::Write)?;
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (receive, Ok(0), false));
    assert_eq!(done.returned, Brought::Nothing);
    assert!(bench.proactor.is_empty());
    Ok(())
}

pub(crate) fn receiving_into_a_buffer_of_ones_own(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let receive = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 4] });
    assert!(bench.wait(NOW)?.is_empty());
    right.write_all(b"abcdef")?;
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (receive, Ok(4), false));
    assert_eq!(done.returned, Brought::Data(b"abcd".to_vec()));
    bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 4] });
    assert_eq!(bench.one()?.returned, Brought::Data(b"ef".to_vec()));
    drop(right);
    bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 4] });
    assert_eq!(bench.one()?.result, Ok(0));
    Ok(())
}

pub(crate) fn sends_gather_in_order(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let fd = left.as_raw_fd();
    let buffers: Vec<Buffer> = vec![b"abc".to_vec(), vec![], b"de".to_vec(), b"f".to_vec()];
    let send = bench.submit(Operation::Send { fd, buffers: buffers.clone(), skip: 2 });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (send, Ok(4), false));
    assert_eq!(done.returned, Brought::Buffers(buffers));
    assert_eq!(read(&mut right, 4)?, b"cdef");
    // One buffer goes another way than many do.
    for operation in [
        Operation::Send { fd, buffers: vec![b"abc".to_vec()], skip: 1 },
        Operation::SendOne { fd, buffer: b"abc".to_vec(), skip: 1 },
    ] {
        bench.submit(operation);
        let done = bench.one()?;
        assert_eq!((done.result, done.more), (Ok(2), false));
        assert_eq!(done.returned, Brought::Buffers(vec![b"abc".to_vec()]));
        assert_eq!(read(&mut right, 2)?, b"bc");
    }
    // More than the kernel takes at once: as many as it does.
    let buffers: Vec<Buffer> = (0..1_500_u32).map(|place| vec![place.to_le_bytes()[0]]).collect();
    bench.submit(Operation::Send { fd, buffers, skip: 0 });
    let done = bench.one()?;
    assert_eq!(done.result, Ok(1_024));
    let expected: Buffer = (0..1_024_u32).map(|place| place.to_le_bytes()[0]).collect();
    assert_eq!(read(&mut right, 1_024)?, expected);
    Ok(())
}

pub(crate) fn large_sends_are_whole(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let fd = left.as_raw_fd();
    let data = pattern(9_000_000);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&mut right, 27_000_000));
        bench.submit(Operation::Send { fd, buffers: vec![data.clone()], skip: 0 });
        assert_eq!(bench.one()?.result, Ok(data.len()));
        bench.submit(Operation::SendOne { fd, buffer: data.clone(), skip: 0 });
        assert_eq!(bench.one()?.result, Ok(data.len()));
        let halves = vec![data[..4_000_000].to_vec(), data[4_000_000..].to_vec()];
        bench.submit(Operation::Send { fd, buffers: halves, skip: 0 });
        assert_eq!(bench.one()?.result, Ok(data.len()));
        let received = reader.join().expect("no panic")?;
        assert!(received.chunks(data.len()).all(|part| part == data));
        io::Result::Ok(())
    })
}

pub(crate) fn a_broken_connection_gives_the_buffers_back(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, right) = UnixStream::pair()?;
    drop(right);
    let buffers = vec![b"lost".to_vec()];
    let operation = Operation::Send { fd: left.as_raw_fd(), buffers: buffers.clone(), skip: 0 };
    bench.submit(operation);
    let done = bench.one()?;
    assert_eq!(done.result, Err(libc::EPIPE));
    assert_eq!(done.returned, Brought::Buffers(buffers));
    Ok(())
}

pub(crate) fn connecting(config: Config) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let new = |family| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socket_with(family, SocketType::STREAM, flags, None)
    };
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = new(AddressFamily::INET)?;
    let address = Address::from(listener.local_addr()?);
    let connect = bench.submit(Operation::Connect { fd: socket.as_raw_fd(), address });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (connect, Ok(0), false));
    let (_, peer) = listener.accept()?;
    assert_eq!(TcpStream::from(socket).local_addr()?, peer);
    // Nobody listens there any more.
    let address = Address::from(listener.local_addr()?);
    drop(listener);
    let socket = new(AddressFamily::INET)?;
    bench.submit(Operation::Connect { fd: socket.as_raw_fd(), address });
    assert_eq!(bench.one()?.result, Err(libc::ECONNREFUSED));
    // By a path.
    let path = std::env::temp_dir().join(format!(
        "oxloop-proactor-{}-{}",
        std::process::id(),
        bench.proactor.setup() as u8
    ));
    let listener = UnixListener::bind(&path)?;
    let socket = new(AddressFamily::UNIX)?;
    let address = Address::UnixPath(path.as_os_str().as_encoded_bytes().to_vec());
    bench.submit(Operation::Connect { fd: socket.as_raw_fd(), address });
    let result = bench.one();
    std::fs::remove_file(&path)?;
    assert_eq!(result?.result, Ok(0));
    listener.accept()?;
    Ok(())
}

pub(crate) fn shutting_down_and_closing(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let direction = Shutdown::Write;
    bench.submit(Operation::Shutdown { fd: left.as_raw_fd(), direction });
    assert_eq!(bench.one()?.result, Ok(0));
    assert_eq!(right.read(&mut [0])?, 0);
    right.write_all(b"x")?;
    assert_eq!((&left).read(&mut [0])?, 1);
    let close = bench.submit(Operation::Close { fd: left.into() });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (close, Ok(0), false));
    let error = right.write(b"x").expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    // A close that never began closes all the same.
    let (left, mut right) = UnixStream::pair()?;
    bench.submit(Operation::Close { fd: left.into() });
    drop(bench);
    assert_eq!(right.read(&mut [0])?, 0);
    Ok(())
}

/// An echo of many connections: every operation of a server at once, in small queues.
pub(crate) fn many_connections_and_messages(config: Config) -> io::Result<()> {
    const CONNECTIONS: usize = 60;
    const MESSAGES: usize = 20;
    let mut bench = bench(Config { entries: 16, buffers: 8, buffer_size: 64, ..config })?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
    let client = std::thread::spawn(move || -> io::Result<()> {
        let connect = |_| TcpStream::connect(address);
        let mut clients: Vec<_> = (0..CONNECTIONS).map(connect).collect::<io::Result<_>>()?;
        for message in 1..=MESSAGES {
            let data = pattern(message * 17);
            clients.iter_mut().try_for_each(|client| client.write_all(&data))?;
            for client in &mut clients {
                assert!(read(client, data.len())? == data);
            }
        }
        Ok(())
    });
    let mut sockets = HashMap::new();
    // By socket: what is to be sent, and whether something is.
    let mut unsent: HashMap<i32, (Vec<Buffer>, bool)> = HashMap::new();
    let mut ended = 0;
    while ended < CONNECTIONS {
        for done in bench.wait(None)? {
            let fd = match done.returned {
                Brought::Connection(fd) => {
                    sockets.insert(bench.submit(Operation::Receive { fd }), fd);
                    continue;
                }
                Brought::Data(data) => {
                    let fd = sockets[&done.token];
                    unsent.entry(fd).or_default().0.push(data);
                    fd
                }
                Brought::Buffers(buffers) => {
                    let sent: usize = buffers.iter().map(Vec::len).sum();
                    assert_eq!(done.result, Ok(sent));
                    let fd = sockets.remove(&done.token).expect("a send");
                    unsent.get_mut(&fd).expect("a connection").1 = false;
                    fd
                }
                Brought::Nothing => {
                    // The end, or a reset if it goes before it has read everything.
                    assert_eq!((done.result, done.more), (Ok(0), false));
                    ended += 1;
                    continue;
                }
                _ => panic!("{done:?}"),
            };
            let (buffers, sending) = unsent.get_mut(&fd).expect("a connection");
            if !*sending && !buffers.is_empty() {
                *sending = true;
                let buffers = std::mem::take(buffers);
                let send = bench.submit(Operation::Send { fd, buffers, skip: 0 });
                sockets.insert(send, fd);
            }
        }
    }
    client.join().expect("no panic")?;
    assert_eq!(bench.proactor.len(), 1);
    Ok(())
}
