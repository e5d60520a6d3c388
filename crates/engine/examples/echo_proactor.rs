//! The echo server once more, on the proactor: no readiness, only what is complete.
//!
//! ```text
//! echo_proactor [--host ADDRESS] [--port PORT] [--unix PATH]
//!               [--entries N] [--buffers N] [--buffer-size BYTES]
//! ```
//!
//! Prints the port (or the path) that it listens on, on one line, and serves until it is killed.
//!
//! A connection is polled for its first message and for as long as it receives much at a time: its
//! messages are moved by recv(2) and send(2) while the processor has them in its cache. Otherwise
//! it receives into the buffers that all share.

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;

use oxloop_engine::proactor::{Completion, Completions, Config, Operation, Proactor, Returned};
use oxloop_engine::sys::fd::{AsFd, AsRawFd, OwnedFd};
use oxloop_engine::sys::{os_error, socket};
use oxloop_engine::{FlowControl, Interest, Slots, Token};

const LISTENER: Token = Token::reserved(0);

/// Where connections that are polled receive.
const BUFFER_SIZE: usize = 256 * 1024;

type Buffer = Vec<u8>;

/// How a connection receives.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Small messages: into the buffers that all share.
    Shared,
    /// Large ones: it is polled.
    Polled,
}

struct Connection {
    socket: OwnedFd,
    /// The receive or poll that goes on; `None` while the flow is paused or the peer has sent its last.
    receive: Option<Token>,
    /// How it receives, and how it is to receive from the next time on.
    way: (Way, Way),
    /// Whether a send is under way: there is one at a time, which keeps the order.
    sending: bool,
    /// Whether the peer has sent its last.
    ended: bool,
    /// What the next send takes.
    unsent: Vec<Buffer>,
    /// How many bytes are still to go, those under way included.
    len_bytes: usize,
    flow: FlowControl,
}

struct Server {
    proactor: Proactor<Buffer, Buffer>,
    connections: Slots<Connection>,
    /// What is a large message: it fills a buffer of the proactor's.
    large: usize,
    buffer: Box<[u8]>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (listener, config) = listen(std::env::args().skip(1))?;
    let mut proactor = Proactor::new(config)?;
    proactor.submit(LISTENER, Operation::Accept { fd: listener.as_raw_fd() });
    let mut server = Server {
        proactor,
        connections: Slots::new(),
        large: config.buffer_size as usize,
        buffer: vec![0; BUFFER_SIZE].into(),
    };
    let mut completions = Completions::new();
    loop {
        server.proactor.wait(&mut completions, None)?;
        for completion in completions.drain() {
            server.complete(completion)?;
        }
    }
}

impl Server {
    fn complete(&mut self, completion: Completion<Buffer, Buffer>) -> io::Result<()> {
        let Completion { owner, result, returned, more, .. } = completion;
        match returned {
            Returned::Connection(socket) => {
                // A Unix socket has no such option, and needs none.
                let _ = socket::set_nodelay(socket.as_fd());
                let token = self.connections.insert(Connection::new(socket));
                self.advance(token);
            }
            Returned::Chunk(chunk) => {
                if let Some(connection) = self.connections.get_mut(owner) {
                    connection.way.1 = Way::of(chunk.len(), self.large);
                    connection.push(self.proactor.bytes(&chunk));
                }
                self.proactor.recycle(chunk);
            }
            Returned::Readiness(_) => {
                if let Some(connection) = self.connections.get_mut(owner) {
                    let count = connection.echo(&mut self.buffer);
                    connection.ended |= matches!(count, Ok(0) | Err(_));
                    connection.way.1 = Way::of(count.unwrap_or(0), self.large);
                }
            }
            Returned::Sent(buffer) => self.sent(owner, result.is_err(), &[buffer]),
            Returned::Buffers(buffers) => self.sent(owner, result.is_err(), &buffers),
            _ if owner == LISTENER => return result.map(drop),
            // The last completion of a receive: the end of the stream, an error, a pause, or the
            // change to a poll or back.
            _ => {
                if let Some(connection) = self.connections.get_mut(owner).filter(|_| !more) {
                    connection.receive = None;
                    connection.ended |= !is_cancelled(&result);
                }
            }
        }
        self.advance(owner);
        Ok(())
    }

    fn sent(&mut self, token: Token, failed: bool, buffers: &[Buffer]) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.sending = false;
            connection.len_bytes -= buffers.iter().map(Vec::len).sum::<usize>();
            connection.ended |= failed;
        }
    }

    /// Submits what a connection is to do next.
    fn advance(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let fd = connection.socket.as_raw_fd();
        if !connection.sending && !connection.unsent.is_empty() {
            connection.sending = true;
            let operation = match connection.unsent.len() {
                1 => Operation::SendOne { fd, buffer: connection.unsent.remove(0), skip: 0 },
                count => {
                    let rest = connection.unsent.split_off(count.min(1024));
                    let buffers = std::mem::replace(&mut connection.unsent, rest);
                    Operation::Send { fd, buffers, skip: 0 }
                }
            };
            self.proactor.submit(token, operation);
        }
        connection.flow.on_growth(connection.len_bytes);
        connection.flow.on_shrink(connection.len_bytes);
        let (paused, ended) = (connection.flow.is_paused(), connection.ended);
        match connection.receive {
            Some(receive) if paused || ended || connection.way.0 != connection.way.1 => {
                self.proactor.cancel(receive);
            }
            None if ended && !connection.sending => drop(self.connections.remove(token)),
            None if !ended && !paused => {
                connection.way.0 = connection.way.1;
                let operation = match connection.way.0 {
                    Way::Shared => Operation::Receive { fd },
                    Way::Polled => Operation::Poll { fd, interest: Interest::READABLE },
                };
                connection.receive = Some(self.proactor.submit(token, operation));
            }
            _ => {}
        }
    }
}

impl Way {
    const fn of(count: usize, large: usize) -> Self {
        if count >= large { Self::Polled } else { Self::Shared }
    }
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            receive: None,
            way: (Way::Polled, Way::Polled),
            sending: false,
            ended: false,
            unsent: Vec::new(),
            len_bytes: 0,
            flow: FlowControl::new(),
        }
    }

    /// Sends back what is there, at once if that is possible.
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(count) = unless_blocked(socket::recv(self.socket.as_fd(), buffer))? else {
            return Ok(1);
        };
        let mut sent = 0;
        if !self.sending && self.unsent.is_empty() {
            sent =
                unless_blocked(socket::send(self.socket.as_fd(), &buffer[..count]))?.unwrap_or(0);
        }
        if sent < count {
            self.push(&buffer[sent..count]);
        }
        Ok(count)
    }

    fn push(&mut self, data: &[u8]) {
        self.len_bytes += data.len();
        self.unsent.push(data.to_vec());
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

fn is_cancelled(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(os_error::ECANCELED))
}

/// Opens what the arguments ask for and prints where it is.
fn listen(
    mut arguments: impl Iterator<Item = String>,
) -> Result<(OwnedFd, Config), Box<dyn Error>> {
    let mut config = Config::default();
    let (mut host, mut port, mut path) = ("127.0.0.1".to_owned(), 0, None);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} wants a value"))?;
        match option.as_str() {
            "--host" => host = value,
            "--port" => port = value.parse()?,
            "--unix" => path = Some(value),
            "--entries" => config.entries = value.parse()?,
            "--buffers" => config.buffers = value.parse()?,
            "--buffer-size" => config.buffer_size = value.parse()?,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let mut output = io::stdout();
    let listener = if let Some(path) = path {
        let listener = listen_at(&path)?;
        writeln!(output, "{path}")?;
        listener
    } else {
        let listener = TcpListener::bind((host, port))?;
        writeln!(output, "{}", listener.local_addr()?.port())?;
        OwnedFd::from(listener)
    };
    output.flush()?;
    Ok((listener, config))
}

#[cfg(unix)]
fn listen_at(path: &str) -> io::Result<OwnedFd> {
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

#[cfg(not(unix))]
fn listen_at(_path: &str) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}
