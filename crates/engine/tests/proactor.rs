//! The contract of `proactor`, checked with every setup that the kernel may fall back upon.
//!
//! Where there is no `io_uring` the tests print why, and have nothing to check.
#![cfg(target_os = "linux")]

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oxloop_engine::proactor::{self, Config, Proactor, Returned, Setup, Unavailable};
use oxloop_engine::sys::pipe::pipe;
use oxloop_engine::{Address, Interest, Token, Waker};

type Buffer = Vec<u8>;
type Operation = proactor::Operation<Buffer, Buffer>;
type Completion = proactor::Completion<Buffer, Buffer>;

const NOW: Option<Duration> = Some(Duration::ZERO);
const OWNER: Token = Token::reserved(7);

/// A completion, its chunk copied and given back.
#[derive(Debug)]
struct Done {
    token: Token,
    result: Result<usize, i32>,
    returned: Brought,
    more: bool,
}

#[derive(Debug, PartialEq)]
enum Brought {
    Nothing,
    Data(Buffer),
    Datagram(Buffer, Option<Address>),
    Buffers(Vec<Buffer>),
    Readiness(Interest),
    Connection(i32),
}

/// A proactor, and what it said and nobody has asked for yet.
struct Bench {
    proactor: Proactor<Buffer, Buffer>,
    completions: proactor::Completions<Buffer, Buffer>,
    connections: Vec<OwnedFd>,
}

impl Bench {
    fn new(config: Config) -> Result<Self, Unavailable> {
        let proactor = Proactor::new(config)?;
        let completions = proactor::Completions::new();
        Ok(Self { proactor, completions, connections: Vec::new() })
    }

    fn submit(&mut self, operation: Operation) -> Token {
        self.proactor.submit(OWNER, operation)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Done>> {
        self.proactor.wait(&mut self.completions, timeout)?;
        let list: Vec<_> = self.completions.drain().collect();
        Ok(list.into_iter().map(|completion| self.look(completion)).collect())
    }

    fn look(&mut self, completion: Completion) -> Done {
        let Completion { token, owner, result, returned, more } = completion;
        assert_eq!(owner, OWNER);
        let result = result.map_err(|error| error.raw_os_error().expect("an errno"));
        let filled = |mut buffer: Buffer| {
            buffer.truncate(result.unwrap_or(0));
            buffer
        };
        let returned = match returned {
            Returned::Nothing => Brought::Nothing,
            Returned::Connection(socket) => {
                self.connections.push(socket);
                Brought::Connection(self.connections.last().expect("pushed").as_raw_fd())
            }
            Returned::Chunk(chunk) => {
                let data = self.proactor.bytes(&chunk).to_vec();
                assert_eq!(data.len(), chunk.len());
                self.proactor.recycle(chunk);
                Brought::Data(data)
            }
            Returned::Buffer(buffer) => Brought::Data(filled(buffer)),
            Returned::Datagram(buffer, sender) => Brought::Datagram(filled(buffer), sender),
            Returned::Buffers(buffers) => Brought::Buffers(buffers),
            Returned::Readiness(interest) => Brought::Readiness(interest),
        };
        Done { token, result, returned, more }
    }

    /// Waits for one completion, which must be the only one.
    fn one(&mut self) -> io::Result<Done> {
        let mut all = self.wait(None)?;
        assert_eq!(all.len(), 1, "{all:?}");
        Ok(all.remove(0))
    }

    /// Waits until every operation has completed.
    fn all(&mut self) -> io::Result<Vec<Done>> {
        let mut all = Vec::new();
        while !self.proactor.is_empty() {
            all.extend(self.wait(None)?);
        }
        Ok(all)
    }

    /// Receives until `count` bytes are there.
    fn receive(&mut self, token: Token, count: usize) -> io::Result<Buffer> {
        let mut received = Vec::new();
        while received.len() < count {
            for done in self.wait(None)? {
                assert!(done.token == token && done.more, "{done:?}");
                let Brought::Data(data) = done.returned else { panic!("no data") };
                received.extend(data);
            }
        }
        Ok(received)
    }
}

/// One test per function, on every setup.
macro_rules! on_every_setup {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() -> io::Result<()> {
            if let Err(reason) = proactor::probe() {
                println!("skipped: {reason}");
                return Ok(());
            }
            for setup in [Setup::Deferred, Setup::Cooperative, Setup::Plain] {
                println!("{setup:?}");
                cases::$name(Config { setup, ..Config::default() })?;
            }
            Ok(())
        })*
    };
}

on_every_setup! {
    accepting_goes_on
    receiving_goes_on_until_the_end
    receiving_into_a_buffer_of_ones_own
    sends_gather_in_order
    large_sends_are_whole
    a_broken_connection_gives_the_buffers_back
    connecting
    shutting_down_and_closing
    datagrams
    pipes
    terminals
    polls_are_level_triggered
    polls_report_errors_in_every_direction
    polls_of_no_interest_are_silent
    timeouts_have_nanoseconds
    closed_descriptors_are_an_error_of_the_completion
    bad_addresses_are_an_error_of_the_completion
    cancelling
    cancelling_what_rests
    cancelling_loses_no_data
    names_die_with_the_last_completion
    more_than_fits_into_the_queues
    more_completions_than_fit
    receivers_share_few_buffers
    one_buffer_goes_round
    chunks_that_are_left_are_given_back
    wakers_end_waits
    a_signal_interrupts_the_wait
    dropping_with_operations_under_way
    closing_gives_everything_back
    a_ring_that_never_waited_can_be_dropped
    many_connections_and_messages
}

fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let left = TcpStream::connect(listener.local_addr()?)?;
    let (right, _) = listener.accept()?;
    left.set_nodelay(true)?;
    right.set_nodelay(true)?;
    left.set_nonblocking(true)?;
    Ok((left, right))
}

fn read(stream: &mut impl Read, count: usize) -> io::Result<Buffer> {
    let mut data = vec![0; count];
    stream.read_exact(&mut data)?;
    Ok(data)
}

/// Bytes of which each tells where it belongs.
fn pattern(count: usize) -> Buffer {
    (0..count)
        .map(|place| (place % 251).to_le_bytes()[0] ^ (place / 251).to_le_bytes()[0])
        .collect()
}

fn descriptors() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

mod cases {
    use super::*;

    fn bench(config: Config) -> io::Result<Bench> {
        Bench::new(config).map_err(io::Error::other)
    }

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
        bench.submit(Operation::Send { fd, buffers: vec![b"abc".to_vec()], skip: 1 });
        assert_eq!(bench.one()?.result, Ok(2));
        assert_eq!(read(&mut right, 2)?, b"bc");
        // More than the kernel takes at once: as many as it does.
        let buffers: Vec<Buffer> =
            (0..1_500_u32).map(|place| vec![place.to_le_bytes()[0]]).collect();
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
            let reader = scope.spawn(|| read(&mut right, 18_000_000));
            bench.submit(Operation::Send { fd, buffers: vec![data.clone()], skip: 0 });
            assert_eq!(bench.one()?.result, Ok(data.len()));
            let halves = vec![data[..4_000_000].to_vec(), data[4_000_000..].to_vec()];
            bench.submit(Operation::Send { fd, buffers: halves, skip: 0 });
            assert_eq!(bench.one()?.result, Ok(data.len()));
            let received = reader.join().expect("no panic")?;
            assert!(received[..9_000_000] == data && received[9_000_000..] == data);
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

    pub(crate) fn timeouts_have_nanoseconds(config: Config) -> io::Result<()> {
        let mut bench = bench(config)?;
        let (left, _right) = UnixStream::pair()?;
        for timeout in [Duration::from_nanos(1), Duration::from_micros(300)] {
            // The least of some, as the machine may be busy.
            let mut least = Duration::MAX;
            for round in 0..40 {
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
            assert!(least < Duration::from_millis(1), "{least:?} is a whole tick");
        }
        Ok(())
    }

    pub(crate) fn closed_descriptors_are_an_error_of_the_completion(
        config: Config,
    ) -> io::Result<()> {
        let mut bench = bench(config)?;
        let buffer = || vec![0; 8];
        let address = || Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        let operations = [
            Operation::Accept { fd: -1 },
            Operation::Receive { fd: -1 },
            Operation::ReceiveInto { fd: -1, buffer: buffer() },
            Operation::Send { fd: -1, buffers: vec![buffer()], skip: 0 },
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
        assert_eq!(all.len(), 11);
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

    pub(crate) fn cancelling(config: Config) -> io::Result<()> {
        let mut bench = bench(config)?;
        let (left, mut right) = UnixStream::pair()?;
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
            assert!(all.iter().all(|done| done.result == Err(libc::ECANCELED) && !done.more));
            assert!(!bench.proactor.cancel(receive) && !bench.proactor.cancel(shared));
        }
        // What was sent stayed in the socket.
        right.write_all(b"x")?;
        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 8] });
        assert_eq!(bench.one()?.returned, Brought::Data(b"x".to_vec()));
        // A send that is stuck halfway says how far it came, and nothing goes after that.
        let buffers = vec![pattern(5_000_000)];
        let send = bench.submit(Operation::Send { fd, buffers, skip: 0 });
        assert!(bench.wait(NOW)?.is_empty());
        assert!(bench.proactor.cancel(send));
        let Ok(gone) = bench.one()?.result else { panic!("some bytes had gone") };
        assert!(gone > 0 && gone < 5_000_000);
        drop(left);
        let mut received = Vec::new();
        right.read_to_end(&mut received)?;
        assert!(received == pattern(5_000_000)[..gone]);
        Ok(())
    }

    pub(crate) fn cancelling_what_rests(config: Config) -> io::Result<()> {
        // A poll between its report and the next wait is not the kernel's.
        let mut bench = bench(Config { buffers: 1, buffer_size: 4, ..config })?;
        let (left, mut right) = UnixStream::pair()?;
        let fd = left.as_raw_fd();
        right.write_all(b"a lot of data")?;
        let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        assert_eq!(bench.one()?.token, poll);
        assert!(bench.proactor.cancel(poll));
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (poll, Err(libc::ECANCELED), false));
        // A receiver that waits for a buffer is not either.
        let receive = bench.submit(Operation::Receive { fd });
        bench.proactor.wait(&mut bench.completions, None)?;
        let held: Vec<_> = bench.completions.drain().collect();
        assert!(bench.wait(NOW)?.is_empty());
        assert!(bench.proactor.cancel(receive));
        let done = bench.one()?;
        assert_eq!((done.token, done.result, done.more), (receive, Err(libc::ECANCELED), false));
        for completion in held {
            assert_eq!(bench.look(completion).returned, Brought::Data(b"a lo".to_vec()));
        }
        Ok(())
    }

    /// What a cancelled receiver has not delivered must still be in the socket.
    pub(crate) fn cancelling_loses_no_data(config: Config) -> io::Result<()> {
        let mut bench = bench(Config { buffers: 4, buffer_size: 64, ..config })?;
        let (left, mut right) = UnixStream::pair()?;
        let fd = left.as_raw_fd();
        let data = pattern(200_000);
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
                        _ => assert_eq!(done.result, Err(libc::ECANCELED)),
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
        let (left, mut right) = UnixStream::pair()?;
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
        // Nor does a request to cancel that came too late: the slot is used again at once.
        for _ in 0..50 {
            let old = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1] });
            right.write_all(b"z")?;
            bench.proactor.cancel(old);
            assert_eq!(bench.one()?.token, old);
            let new = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 1] });
            right.write_all(b"z")?;
            let done = bench.one()?;
            assert_eq!((done.token, done.result), (new, Ok(1)));
        }
        Ok(())
    }

    pub(crate) fn more_than_fits_into_the_queues(config: Config) -> io::Result<()> {
        let mut bench = bench(Config { entries: 8, ..config })?;
        let pairs: Vec<_> = (0..500).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
        let mut expected = HashMap::new();
        for round in 0..2 {
            for (number, (left, right)) in (0_u32..).zip(&pairs) {
                let data = number.to_le_bytes().to_vec();
                let (fd, buffer) = (left.as_raw_fd(), vec![0; 4]);
                let token = bench.submit(Operation::ReceiveInto { fd, buffer });
                expected.insert(token, data.clone());
                let (fd, buffers) = (right.as_raw_fd(), vec![data]);
                bench.submit(Operation::Send { fd, buffers, skip: 0 });
            }
            assert_eq!(bench.proactor.len(), 1_000);
            let all = bench.all()?;
            assert_eq!(all.len(), 1_000, "round {round}");
            for done in all {
                assert_eq!(done.result, Ok(4));
                if let Brought::Data(data) = done.returned {
                    assert_eq!(expected.remove(&done.token), Some(data));
                }
            }
            assert!(expected.is_empty());
        }
        Ok(())
    }

    /// Receivers that are all ready at once, by ten times what the completion queue holds.
    pub(crate) fn more_completions_than_fit(config: Config) -> io::Result<()> {
        let mut bench = bench(Config { entries: 8, buffers: 256, buffer_size: 32, ..config })?;
        let mut pairs: Vec<_> = (0..160).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
        let tokens: Vec<_> = pairs
            .iter()
            .map(|(left, _)| bench.submit(Operation::Receive { fd: left.as_raw_fd() }))
            .collect();
        assert!(bench.wait(NOW)?.is_empty());
        for round in 0..3 {
            for (_, right) in &mut pairs {
                right.write_all(b"data")?;
            }
            let mut left = tokens.iter().copied().collect::<HashSet<_>>();
            while !left.is_empty() {
                for done in bench.wait(None)? {
                    assert_eq!(done.returned, Brought::Data(b"data".to_vec()), "round {round}");
                    assert!(done.more && left.remove(&done.token));
                }
            }
        }
        assert!(bench.wait(NOW)?.is_empty());
        Ok(())
    }

    /// Twenty connections with four times as much to receive as there are buffers for.
    pub(crate) fn receivers_share_few_buffers(config: Config) -> io::Result<()> {
        let mut bench = bench(Config { buffers: 4, buffer_size: 128, ..config })?;
        let mut pairs: Vec<_> = (0..20).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
        let mut received = HashMap::new();
        for (number, (left, _)) in (0_u8..).zip(&pairs) {
            let token = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
            received.insert(token, (number, Vec::new()));
        }
        assert!(bench.wait(NOW)?.is_empty());
        for (number, (_, right)) in (0_u8..).zip(&mut pairs) {
            let mut data = pattern(20_000);
            data[0] = number;
            right.write_all(&data)?;
            right.shutdown(Shutdown::Write)?;
        }
        for done in bench.all()? {
            let (_, so_far) = received.get_mut(&done.token).expect("one of them");
            match done.returned {
                Brought::Data(data) => so_far.extend(data),
                _ => assert_eq!((done.result, done.more), (Ok(0), false)),
            }
        }
        for (number, data) in received.into_values() {
            assert_eq!((data.len(), data[0]), (20_000, number));
            assert!(data[1..] == pattern(20_000)[1..]);
        }
        Ok(())
    }

    /// Of many with endless data nobody gets two buffers before everybody has had one.
    pub(crate) fn one_buffer_goes_round(config: Config) -> io::Result<()> {
        let mut bench = bench(Config { buffers: 1, buffer_size: 16, ..config })?;
        let mut pairs: Vec<_> = (0..8).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
        for (left, right) in &mut pairs {
            right.write_all(&[0; 10_000])?;
            bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        }
        let mut turns: HashMap<Token, usize> = HashMap::new();
        for _ in 0..80 {
            for done in bench.wait(None)? {
                *turns.entry(done.token).or_default() += 1;
            }
        }
        assert_eq!(turns.len(), 8, "{turns:?}");
        let (least, most) = (turns.values().min(), turns.values().max());
        assert!(most <= least.map(|least| least + 2).as_ref(), "{turns:?}");
        Ok(())
    }

    pub(crate) fn chunks_that_are_left_are_given_back(config: Config) -> io::Result<()> {
        let mut bench = bench(Config { buffers: 1, buffer_size: 16, ..config })?;
        let (left, mut right) = UnixStream::pair()?;
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        for _ in 0..10 {
            right.write_all(b"x")?;
            bench.proactor.wait(&mut bench.completions, None)?;
            assert_eq!(bench.completions.len(), 1);
        }
        Ok(())
    }

    pub(crate) fn wakers_end_waits(config: Config) -> io::Result<()> {
        let mut bench = bench(config)?;
        let waker = Waker::new()?;
        let fd = waker.as_raw_fd();
        let poll = bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
        assert!(bench.wait(NOW)?.is_empty());
        for _ in 0..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| waker.wake());
                scope.spawn(|| waker.wake());
                let done = bench.one()?;
                assert_eq!((done.token, done.more), (poll, true));
                io::Result::Ok(())
            })?;
            waker.drain();
            assert!(bench.wait(NOW)?.is_empty());
        }
        Ok(())
    }

    pub(crate) fn a_signal_interrupts_the_wait(config: Config) -> io::Result<()> {
        let mut bench = bench(config)?;
        let (left, _right) = UnixStream::pair()?;
        for timeout in [None, Some(Duration::from_secs(3_600))] {
            // With something to submit the kernel reports success.
            for submit in [false, true] {
                // The least of some, as a thread may sleep outside of its wait, too.
                let mut least = usize::MAX;
                for _ in 0..10 {
                    if submit {
                        let fd = left.as_raw_fd();
                        bench.submit(Operation::ReceiveInto { fd, buffer: vec![0] });
                    }
                    let (result, signals) = interrupted(|| bench.wait(timeout));
                    let error = result.expect_err("only the signal ends this");
                    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
                    least = least.min(signals);
                }
                assert_eq!(least, 1, "the first signal must do");
            }
        }
        assert_eq!(bench.proactor.len(), 20);
        Ok(())
    }

    /// Everything that can be under way, dropped: nothing is written to after that, which a
    /// sanitizer would see, the peer hears of the end at once, and no descriptor is left.
    pub(crate) fn dropping_with_operations_under_way(config: Config) -> io::Result<()> {
        for wait_first in [false, true] {
            let mut bench = bench(config)?;
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (left, mut right) = UnixStream::pair()?;
            let (reader, _writer) = pipe()?;
            let fd = left.as_raw_fd();
            bench.submit(Operation::Accept { fd: listener.as_raw_fd() });
            bench.submit(Operation::Receive { fd });
            bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 100_000] });
            bench.submit(Operation::ReceiveFrom { fd, buffer: vec![0; 100_000] });
            bench.submit(Operation::Poll { fd, interest: Interest::READABLE });
            bench.submit(Operation::Read { fd: reader.as_raw_fd(), buffer: vec![0; 100_000] });
            bench.submit(Operation::Send { fd, buffers: vec![vec![1; 5_000_000]], skip: 0 });
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
        let (left, _right) = UnixStream::pair()?;
        let fd = left.as_raw_fd();
        let send = Operation::Send { fd, buffers: vec![vec![1; 5_000_000]], skip: 0 };
        let tokens = [
            bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 100] }),
            bench.submit(send),
            bench.submit(Operation::Poll { fd, interest: Interest::NONE }),
        ];
        assert!(bench.wait(NOW)?.is_empty());
        let mut completions = bench.completions;
        bench.proactor.close(&mut completions)?;
        let mut seen = HashSet::new();
        for completion in completions.drain() {
            assert!(!completion.more);
            match completion.returned {
                Returned::Buffer(buffer) => assert_eq!(buffer.len(), 100),
                Returned::Buffers(buffers) => assert_eq!(buffers[0].len(), 5_000_000),
                Returned::Nothing => assert_eq!(completion.token, tokens[2]),
                _ => panic!("{completion:?}"),
            }
            seen.insert(completion.token);
        }
        assert_eq!(seen, HashSet::from(tokens));
        Ok(())
    }

    pub(crate) fn a_ring_that_never_waited_can_be_dropped(config: Config) -> io::Result<()> {
        // Made on one thread and dropped on another.
        let mut bench = bench(Config { entries: 1, ..config })?;
        let (left, mut right) = UnixStream::pair()?;
        for _ in 0..10 {
            bench.submit(Operation::ReceiveInto { fd: left.as_raw_fd(), buffer: vec![0; 100] });
        }
        bench.submit(Operation::Close { fd: left.into() });
        std::thread::scope(|scope| scope.spawn(|| drop(bench)).join().expect("no panic"));
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
}

#[test]
fn rings_leave_nothing_behind() -> io::Result<()> {
    if let Err(reason) = proactor::probe() {
        println!("skipped: {reason}");
        return Ok(());
    }
    // In a process of its own, as other tests open descriptors, too.
    if std::env::var_os("OXLOOP_TEST_ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "rings_leave_nothing_behind"])
            .env("OXLOOP_TEST_ALONE", "1")
            .status()?;
        assert!(status.success());
        return Ok(());
    }
    let before = descriptors()?;
    for _ in 0..20 {
        let mut bench = Bench::new(Config::default()).map_err(io::Error::other)?;
        let (left, right) = UnixStream::pair()?;
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        bench.submit(Operation::Close { fd: right.into() });
        bench.all()?;
    }
    assert_eq!(descriptors()?, before);
    Ok(())
}

#[test]
fn a_ring_belongs_to_the_thread_that_waits_first() -> io::Result<()> {
    let config = Config { setup: Setup::Deferred, ..Config::default() };
    let mut bench = match Bench::new(config) {
        Ok(bench) if bench.proactor.setup() == Setup::Deferred => bench,
        Ok(_) => return Ok(()),
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let (to_owner, from_main) = std::sync::mpsc::channel::<Bench>();
    let (to_main, from_owner) = std::sync::mpsc::channel::<Bench>();
    let gone = || io::Error::other("the other thread has panicked");
    std::thread::scope(|scope| {
        // Made here, used there.
        let owner = scope.spawn(move || -> io::Result<Done> {
            bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 4] });
            assert!(bench.wait(NOW)?.is_empty());
            to_main.send(bench).map_err(|_| gone())?;
            from_main.recv().map_err(io::Error::other)?.one()
        });
        let mut bench = from_owner.recv().map_err(|_| gone())?;
        let error = bench.wait(None).expect_err("the ring is another thread's");
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        // Nothing is lost by the attempt.
        right.write_all(b"x")?;
        to_owner.send(bench).map_err(|_| gone())?;
        assert_eq!(owner.join().expect("no panic")?.returned, Brought::Data(b"x".to_vec()));
        io::Result::Ok(())
    })
}

#[test]
fn sizes_are_checked() {
    let default = Config::default();
    for config in [
        Config { entries: 0, ..default },
        Config { entries: 32_769, ..default },
        Config { buffers: 0, ..default },
        Config { buffers: 3, ..default },
        Config { buffer_size: 0, ..default },
        Config { buffer_size: u32::MAX, ..default },
    ] {
        let reason = Proactor::<Buffer, Buffer>::new(config).expect_err("out of range");
        assert!(matches!(reason, Unavailable::Sizes | Unavailable::System), "{reason}");
    }
}

#[test]
fn reasons_can_be_read() {
    // A filter of this thread stands in for old kernels, containers and limits.
    let reasons = [libc::ENOSYS, libc::EPERM, libc::ENOMEM, libc::EMFILE].map(|error| {
        std::thread::spawn(move || {
            refuse_rings(error).expect("a thread may restrict itself");
            proactor::probe().expect_err("the filter refuses")
        })
        .join()
        .expect("no panic")
    });
    let [kernel, forbidden, memory, other] = reasons;
    if matches!(kernel, Unavailable::System) {
        return;
    }
    assert!(matches!(kernel, Unavailable::Kernel), "{kernel:?}");
    assert!(kernel.to_string().contains("ENOSYS"));
    assert!(
        matches!(forbidden, Unavailable::Forbidden | Unavailable::Disabled(1..)),
        "{forbidden:?}"
    );
    assert!(forbidden.to_string().contains("seccomp"), "{forbidden}");
    assert!(matches!(memory, Unavailable::Memory), "{memory:?}");
    assert!(memory.to_string().contains("ulimit -l"));
    assert!(matches!(other, Unavailable::Other(_)), "{other:?}");
    assert!(other.to_string().contains("open files"), "{other}");
    let disabled = Unavailable::Disabled(2).to_string();
    assert!(disabled.contains("kernel.io_uring_disabled is 2"), "{disabled}");
}

#[test]
fn shared_bytes_can_be_sent() -> io::Result<()> {
    let mut proactor = match Proactor::<Arc<[u8]>, Box<[u8]>>::new(Config::default()) {
        Ok(proactor) => proactor,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let (left, mut right) = UnixStream::pair()?;
    let data: Arc<[u8]> = Arc::from(&b"shared"[..]);
    let (fd, buffers) = (left.as_raw_fd(), vec![Arc::clone(&data), Arc::clone(&data)]);
    proactor.submit(OWNER, proactor::Operation::Send { fd, buffers, skip: 0 });
    assert_eq!(Arc::strong_count(&data), 3);
    let mut completions = proactor::Completions::new();
    proactor.wait(&mut completions, None)?;
    assert_eq!(read(&mut right, 12)?, b"sharedshared");
    drop(completions);
    assert_eq!(Arc::strong_count(&data), 1);
    Ok(())
}

/// Makes `io_uring_setup(2)` fail in this thread from now on.
#[expect(unsafe_code)]
fn refuse_rings(error: i32) -> io::Result<()> {
    let refused = u32::try_from(libc::SYS_io_uring_setup).expect("small");
    let answer = libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("small"),
        jt,
        jf,
        k,
    };
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, refused),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, answer),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid, and the kernel copies it.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

/// Runs `wait` and sends its thread a signal whenever that sleeps, until it returns; says how many
/// signals that took.
#[expect(unsafe_code)]
fn interrupted<T>(wait: impl FnOnce() -> T) -> (T, usize) {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_signal: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: the handler only counts, which is safe in a handler; without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    // SAFETY: no preconditions.
    let target = unsafe { libc::pthread_self() };
    let state = format!("/proc/self/task/{}/stat", rustix::thread::gettid().as_raw_nonzero());
    let sleeps = || std::fs::read_to_string(&state).is_ok_and(|state| state.contains(") S "));
    let done = AtomicBool::new(false);
    let before = HANDLED.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut expected = before;
            while !done.load(Ordering::SeqCst) {
                if HANDLED.load(Ordering::SeqCst) == expected && sleeps() {
                    expected += 1;
                    // SAFETY: the target waits for this thread at the end of the scope.
                    unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                }
                std::thread::yield_now();
            }
        });
        let result = wait();
        let signals = HANDLED.load(Ordering::SeqCst) - before;
        done.store(true, Ordering::SeqCst);
        (result, signals)
    })
}
