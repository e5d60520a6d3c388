//! Sockets of paths, and what those that were accepted have of Linux's own.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use oxloop_engine::Address;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;

use super::{Brought, Operation, bench};

pub(crate) fn accepted_connections_are_not_inherited(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
    let _client = TcpStream::connect(listener.local_addr()?)?;
    assert!(matches!(bench.one()?.returned, Brought::Connection(_)));
    let flags = rustix::fs::fcntl_getfl(&bench.connections[0])?;
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    let flags = rustix::io::fcntl_getfd(&bench.connections[0])?;
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    Ok(())
}

pub(crate) fn connecting_to_a_path(config: Config) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let mut bench = bench(config)?;
    let (process, setup) = (std::process::id(), bench.proactor.setup() as u8);
    let path = std::env::temp_dir().join(format!("oxloop-proactor-{process}-{setup}"));
    let listener = UnixListener::bind(&path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = Address::UnixPath(path.as_os_str().as_encoded_bytes().to_vec());
    bench.submit(Operation::Connect { fd: socket.as_raw_fd(), address });
    let result = bench.one();
    std::fs::remove_file(&path)?;
    assert_eq!(result?.result, Ok(0));
    listener.accept()?;
    Ok(())
}

pub(crate) fn addresses_of_no_socket(config: Config) -> io::Result<()> {
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

pub(crate) fn senders_without_a_name(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, right) = UnixDatagram::pair()?;
    right.send(b"x")?;
    bench.submit(Operation::ReceiveFrom { fd: left.as_raw_fd(), buffer: vec![0; 6] });
    let Brought::Datagram(data, sender) = bench.one()?.returned else { panic!("none") };
    assert_eq!(data, b"x");
    assert!(matches!(sender, None | Some(Address::UnixUnnamed)), "{sender:?}");
    Ok(())
}

pub(crate) fn both_ends_see_a_close_at_once(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    bench.submit(Operation::Shutdown { fd: left.as_raw_fd(), direction: Shutdown::Write });
    assert_eq!(bench.one()?.result, Ok(0));
    assert_eq!(right.read(&mut [0])?, 0);
    right.write_all(b"x")?;
    assert_eq!((&left).read(&mut [0])?, 1);
    bench.submit(Operation::Close { fd: left.into() });
    assert_eq!(bench.one()?.result, Ok(0));
    let error = right.write(b"x").expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    // Our own sends hear of it, too, and by no signal.
    let (left, right) = UnixStream::pair()?;
    drop(right);
    let (fd, buffers) = (left.as_raw_fd(), vec![b"lost".to_vec()]);
    bench.submit(Operation::Send { fd, buffers: buffers.clone(), skip: 0 });
    let done = bench.one()?;
    assert_eq!((done.result, done.returned), (Err(libc::EPIPE), Brought::Buffers(buffers)));
    Ok(())
}
