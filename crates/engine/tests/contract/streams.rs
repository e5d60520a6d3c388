//! Connections: accepting, connecting, receiving, sending, and how they end.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use oxloop_engine::Address;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use oxloop_engine::sys::{os_error, socket};

use super::{Brought, Buffer, NOW, Operation, bench, kind, nobody, pattern, read, take, tcp};

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
                assert!(matches!(done.returned, Brought::Connection(_)), "{done:?}");
            }
        }
    }
    // They are connections like any other, and do not block.
    for connection in &bench.connections {
        let peer = socket::peer_address(connection.as_fd())?;
        let client = clients
            .iter_mut()
            .find(|client| client.local_addr().is_ok_and(|address| Address::from(address) == peer));
        let nothing = socket::recv(connection.as_fd(), &mut [0]).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        assert_eq!(socket::send(connection.as_fd(), b"hello")?, 5);
        socket::shutdown_write(connection.as_fd())?;
        let mut received = Vec::new();
        client.expect("one of them").read_to_end(&mut received)?;
        assert_eq!(received, b"hello");
    }
    assert!(bench.proactor.cancel(accept));
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (accept, Err(os_error::ECANCELED), false));
    Ok(())
}

pub(crate) fn many_connections_wait_to_be_accepted(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = |_| TcpStream::connect(listener.local_addr()?);
    let clients: Vec<_> = (0..50).map(connect).collect::<io::Result<_>>()?;
    bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
    let mut waits = 0;
    while bench.connections.len() < clients.len() {
        bench.wait(None)?;
        waits += 1;
    }
    assert!(waits <= 5, "{waits} turns for what was there before the first");
    // A peer that has gone before is no failure.
    drop(TcpStream::connect(listener.local_addr()?)?);
    let _last = TcpStream::connect(listener.local_addr()?)?;
    let accepted = bench.connections.len();
    while bench.connections.len() < accepted + 1 {
        assert!(bench.wait(None)?.iter().all(|done| done.more));
    }
    Ok(())
}

/// Two loops accept from one listener, as processes do that share it; and what one leaves is the other's.
pub(crate) fn listeners_are_shared(config: Config) -> io::Result<()> {
    let (mut left, mut right) = (bench(config)?, bench(config)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = |_| TcpStream::connect(listener.local_addr()?);
    for bench in [&mut left, &mut right] {
        bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
        assert!(bench.wait(NOW)?.is_empty());
    }
    let first: Vec<_> = (0..20).map(connect).collect::<io::Result<_>>()?;
    while left.connections.len() + right.connections.len() < first.len() {
        for bench in [&mut left, &mut right] {
            assert!(bench.wait(NOW)?.iter().all(|done| done.more));
        }
    }
    drop(left);
    let accepted = right.connections.len();
    let second: Vec<_> = (0..20).map(connect).collect::<io::Result<_>>()?;
    while right.connections.len() < accepted + second.len() {
        assert!(right.wait(None)?.iter().all(|done| done.more));
    }
    let accept = right.submit(Operation::Accept { fd: listener.as_raw_fd() });
    assert!(right.wait(NOW)?.is_empty());
    assert_eq!(right.withdraw(accept)?.result, Err(os_error::ECANCELED));
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
    let (left, mut right) = tcp()?;
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
    // More than go at once: as many as do.
    let buffers: Vec<Buffer> = (0..1_500_u32).map(|place| vec![place.to_le_bytes()[0]]).collect();
    bench.submit(Operation::Send { fd, buffers, skip: 0 });
    assert_eq!(bench.one()?.result, Ok(1_024));
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
    let (left, right) = tcp()?;
    let fd = left.as_raw_fd();
    // Closed with something unread: the peer is told that the connection is broken.
    (&left).write_all(b"unread")?;
    let poll = bench.submit(Operation::Poll { fd, interest: oxloop_engine::Interest::READABLE });
    drop(right);
    assert_eq!(bench.one()?.token, poll);
    bench.withdraw(poll)?;
    let buffers = vec![b"lost".to_vec()];
    let error = loop {
        bench.submit(Operation::Send { fd, buffers: buffers.clone(), skip: 0 });
        let done = bench.one()?;
        assert_eq!(done.returned, Brought::Buffers(buffers.clone()));
        match done.result {
            // The first one may still be taken.
            Ok(count) => assert_eq!(count, 4),
            error => break error,
        }
    };
    let broken = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    assert!(broken.map(Some).contains(&kind(error)), "{error:?}");
    Ok(())
}

/// A socket of TCP that is not connected.
fn unconnected() -> io::Result<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
}

pub(crate) fn connecting(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = unconnected()?;
    let address = listener.local_addr()?.into();
    let connect = bench.submit(Operation::Connect { fd: socket.as_raw_fd(), address });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (connect, Ok(0), false));
    let (mut peer, ours) = listener.accept()?;
    let socket = TcpStream::from(socket);
    assert_eq!((socket.local_addr()?, socket.peer_addr()?), (ours, listener.local_addr()?));
    socket.shutdown(Shutdown::Write)?;
    assert_eq!(peer.read(&mut [0])?, 0);
    let (_bound, nobody) = nobody()?;
    let (socket, address) = (unconnected()?, nobody.into());
    bench.submit(Operation::Connect { fd: socket.as_raw_fd(), address });
    assert_eq!(bench.one()?.result, Err(os_error::ECONNREFUSED));
    Ok(())
}

pub(crate) fn shutting_down_and_closing(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = tcp()?;
    let direction = Shutdown::Write;
    bench.submit(Operation::Shutdown { fd: left.as_raw_fd(), direction });
    assert_eq!(bench.one()?.result, Ok(0));
    assert_eq!(right.read(&mut [0])?, 0);
    right.write_all(b"x")?;
    assert_eq!(take(&left, 1)?, b"x");
    let close = bench.submit(Operation::Close { fd: left.into() });
    let done = bench.one()?;
    assert_eq!((done.token, done.result, done.more), (close, Ok(0), false));
    // A close that never began closes all the same.
    let (left, mut right) = tcp()?;
    bench.submit(Operation::Close { fd: left.into() });
    drop(bench);
    assert_eq!(right.read(&mut [0])?, 0);
    Ok(())
}

/// An echo of many connections: every operation of a server at once, in small queues.
pub(crate) fn many_connections_and_messages(config: Config) -> io::Result<()> {
    const CONNECTIONS: usize = 40;
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
    let mut unsent: HashMap<RawFd, (Vec<Buffer>, bool)> = HashMap::new();
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

pub(crate) fn receivers_share_few_buffers(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 2, buffer_size: 8, ..config })?;
    let pairs: Vec<_> = (0..10).map(|_| tcp()).collect::<io::Result<_>>()?;
    let tokens: HashMap<_, _> = (0..)
        .zip(&pairs)
        .map(|(number, (left, _))| {
            (bench.submit(Operation::Receive { fd: left.as_raw_fd() }), number)
        })
        .collect();
    for (number, (_, right)) in (0_u8..).zip(&pairs) {
        let mut right: &TcpStream = right;
        right.write_all(&[number; 20])?;
    }
    let mut received = vec![Vec::new(); pairs.len()];
    while received.iter().map(Vec::len).sum::<usize>() < 200 {
        for done in bench.wait(None)? {
            let number: usize = tokens[&done.token];
            let Brought::Data(data) = done.returned else { panic!("{done:?}") };
            assert!(data.len() <= 8);
            received[number].extend(data);
        }
    }
    for (number, data) in (0_u8..).zip(received) {
        assert_eq!(data, [number; 20]);
    }
    // Chunks that are left are given back by the next wait.
    for (_, right) in &pairs {
        let mut right: &TcpStream = right;
        right.write_all(b"left")?;
    }
    let mut seen = 0;
    while seen < pairs.len() {
        bench.proactor.wait(&mut bench.completions, None)?;
        seen += bench.completions.len();
    }
    // SAFETY: it is open here.
    #[expect(unsafe_code)]
    let fd = unsafe { BorrowedFd::borrow_raw(pairs[0].0.as_raw_fd()) };
    let nothing = socket::recv(fd, &mut [0]).expect_err("it was received");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    Ok(())
}
