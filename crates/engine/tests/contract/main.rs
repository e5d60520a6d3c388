//! The contract of `proactor` with what every system has: TCP, UDP, pipes and processes.
//!
//! What only `io_uring` has, or has otherwise, its own tests (`tests/proactor`) check. Where there is no proactor
//! these print why, and have nothing to check.

mod descriptors;
mod endings;
mod streams;
mod survival;

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use oxloop_engine::proactor::{self, Config, Proactor, Returned};
use oxloop_engine::sys::fd::{AsRawFd, OwnedFd, RawFd};
use oxloop_engine::{Address, Interest, Token};

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
    Connection(RawFd),
}

/// A proactor, and what it said and nobody has asked for yet.
struct Bench {
    proactor: Proactor<Buffer, Buffer>,
    completions: proactor::Completions<Buffer, Buffer>,
    connections: Vec<OwnedFd>,
}

impl Bench {
    fn submit(&mut self, operation: Operation) -> Token {
        self.proactor.submit(OWNER, operation)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Done>> {
        self.proactor.wait(&mut self.completions, timeout)?;
        Ok(self.look_at_all())
    }

    fn suspend(&mut self) -> io::Result<Vec<Done>> {
        self.proactor.suspend(&mut self.completions)?;
        Ok(self.look_at_all())
    }

    fn look_at_all(&mut self) -> Vec<Done> {
        let list: Vec<_> = self.completions.drain().collect();
        list.into_iter().map(|completion| self.look(completion)).collect()
    }

    fn look(&mut self, completion: Completion) -> Done {
        let Completion { token, owner, result, returned, more } = completion;
        assert_eq!(owner, OWNER);
        let result = result.map_err(|error| error.raw_os_error().expect("a number"));
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
            Returned::Sent(buffer) => Brought::Buffers(vec![buffer]),
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

    /// Ends an operation; its last completion, which comes now or with the next wait.
    fn withdraw(&mut self, token: Token) -> io::Result<Done> {
        if let Some(done) = self.proactor.withdraw(token) {
            return Ok(self.look(done));
        }
        let mut all = self.wait(NOW)?;
        let place = all.iter().position(|done| done.token == token && !done.more);
        Ok(all.remove(place.unwrap_or_else(|| panic!("{all:?}"))))
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

/// One test per function.
macro_rules! with_a_proactor {
    ($group:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() -> io::Result<()> {
            if let Err(reason) = proactor::probe() {
                println!("skipped: {reason}");
                return Ok(());
            }
            $group::$name(Config::default())
        })*
    };
}

with_a_proactor! { streams:
    accepting_goes_on
    many_connections_wait_to_be_accepted
    receiving_goes_on_until_the_end
    receiving_into_a_buffer_of_ones_own
    sends_gather_in_order
    large_sends_are_whole
    files_are_sent
    a_broken_connection_gives_the_buffers_back
    connecting
    shutting_down_and_closing
    many_connections_and_messages
    receivers_share_few_buffers
}

with_a_proactor! { descriptors:
    datagrams
    datagrams_that_are_cut
    pipes
    named_pipes
    polls_are_level_triggered
    polls_report_errors_in_every_direction
    polls_of_no_interest_are_silent
    polls_of_a_connect
    polls_of_a_listener
    many_polls
    processes
    closed_descriptors_are_an_error_of_the_completion
    closing_what_is_watched
    bad_addresses_are_an_error_of_the_completion
}

with_a_proactor! { endings:
    timeouts_are_never_early
    wakers_end_waits
    a_wake_up_before_the_wait_ends_it
    nobody_sleeps_through_a_push
    cancelling
    cancelling_what_rests
    cancelling_loses_no_data
    names_die_with_the_last_completion
    dropping_with_operations_under_way
    closing_gives_everything_back
    a_withdrawn_listener_is_closed
    peers_of_the_withdrawn_see_the_end
    withdrawing_loses_nothing
    what_is_withdrawn_at_rest_is_gone
    withdrawing_loses_no_wake_up
    going_on_elsewhere
    operations_survive_their_thread
}

with_a_proactor! { survival:
    streams_survive_everything
    pipes_survive_withdrawals
}

/// Runs something on a thread of its own.
fn elsewhere<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// A connection, its first end non-blocking.
fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let left = TcpStream::connect(listener.local_addr()?)?;
    let (right, _) = listener.accept()?;
    left.set_nodelay(true)?;
    right.set_nodelay(true)?;
    left.set_nonblocking(true)?;
    Ok((left, right))
}

/// Receives on a socket that does not block what is on its way.
fn take(mut socket: &TcpStream, count: usize) -> io::Result<Buffer> {
    socket.set_nonblocking(false)?;
    let data = read(&mut socket, count)?;
    socket.set_nonblocking(true)?;
    Ok(data)
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

fn bench(config: Config) -> io::Result<Bench> {
    let proactor = Proactor::new(config).map_err(io::Error::other)?;
    Ok(Bench { proactor, completions: proactor::Completions::new(), connections: Vec::new() })
}

/// The kind of an error that a completion has brought.
fn kind<T>(result: Result<T, i32>) -> Option<io::ErrorKind> {
    result.err().map(|error| io::Error::from_raw_os_error(error).kind())
}
