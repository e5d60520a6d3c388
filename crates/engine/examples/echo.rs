//! An echo server on the bare engine: what a turn of a loop looks like without an interpreter.
//!
//! ```text
//! echo [--host ADDRESS] [--port PORT] [--unix PATH] [--selector epoll|kqueue|poll|select]
//! ```
//!
//! Prints the port (or the path) that it listens on, on one line, and serves until it is killed.
//! Port 0, the default, asks the system for a free one.

use std::error::Error;
use std::io::{self, IoSlice, Write};
use std::net::TcpListener;
use std::time::Duration;

use oxloop_engine::sys::fd::{AsFd, AsRawFd, OwnedFd};
use oxloop_engine::sys::{os_error, socket};
use oxloop_engine::{
    Engine, Events, FlowControl, Interest, Selector, SelectorKind, Slots, Timestamp, Token,
    WriteQueue,
};

/// As many as a listener's backlog at most: other connections want their turn, too.
const ACCEPTS_PER_TURN: usize = 100;
/// How long to wait for free descriptors when there are none, as asyncio does.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);
const BUFFER_SIZE: usize = 256 * 1024;
const LISTENER: Token = Token::reserved(0);

/// What the engine schedules.
enum Work {
    Listen,
    Accept,
    Serve(Token, Interest),
}

struct Connection {
    socket: OwnedFd,
    /// What is registered with the selector.
    interest: Interest,
    unsent: WriteQueue<Vec<u8>>,
    flow: FlowControl,
}

struct Server {
    engine: Engine<Work>,
    selector: Selector,
    listener: OwnedFd,
    connections: Slots<Connection>,
    buffer: Box<[u8]>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (listener, kind) = listen(std::env::args().skip(1))?;
    let mut server = Server {
        engine: Engine::new(),
        selector: Selector::new(kind)?,
        listener,
        connections: Slots::new(),
        buffer: vec![0; BUFFER_SIZE].into(),
    };
    server.engine.ready.push(Work::Listen);
    let mut events = Events::with_capacity(1024);
    loop {
        server.turn(&mut events)?;
    }
}

impl Server {
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.engine.timeout(Timestamp::now(), false);
        self.selector.wait(events, timeout)?;
        for event in events.iter() {
            self.engine.ready.push(match event.token {
                LISTENER => Work::Accept,
                token => Work::Serve(token, event.readiness),
            });
        }
        if !self.engine.timers.is_empty() {
            self.engine.expire(Timestamp::now());
        }
        for _ in 0..self.engine.batch_len() {
            match self.engine.ready.pop() {
                Some(Work::Listen) => {
                    let listener = self.listener.as_raw_fd();
                    self.selector.register(listener, LISTENER, Interest::READABLE)?;
                }
                Some(Work::Accept) => self.accept()?,
                Some(Work::Serve(token, readiness)) => self.serve(token, readiness)?,
                None => break,
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            match socket::accept(self.listener.as_fd()) {
                Ok((socket, _peer)) => self.admit(socket)?,
                Err(error) => match error.raw_os_error() {
                    Some(
                        os_error::EMFILE | os_error::ENFILE | os_error::ENOBUFS | os_error::ENOMEM,
                    ) => {
                        self.selector.deregister(self.listener.as_raw_fd())?;
                        let later = Timestamp::from_seconds(
                            Timestamp::now().as_seconds() + ACCEPT_RETRY_DELAY.as_secs_f64(),
                        );
                        self.engine.timers.insert(later, Work::Listen);
                        return Ok(());
                    }
                    // Nobody is left, or somebody has gone before being served.
                    _ => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn admit(&mut self, socket: OwnedFd) -> io::Result<()> {
        // A Unix socket has no such option, and needs none.
        let _ = socket::set_nodelay(socket.as_fd());
        let number = socket.as_raw_fd();
        let token = self.connections.insert(Connection {
            socket,
            interest: Interest::READABLE,
            unsent: WriteQueue::new(),
            flow: FlowControl::new(),
        });
        self.selector.register(number, token, Interest::READABLE)
    }

    fn serve(&mut self, token: Token, readiness: Interest) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        let number = connection.socket.as_raw_fd();
        // An error and the end of the stream are the same to an echo: the peer has gone.
        if connection.step(readiness, &mut self.buffer).unwrap_or(false) {
            let wanted = connection.wanted();
            if wanted != connection.interest {
                connection.interest = wanted;
                self.selector.modify(number, token, wanted)?;
            }
        } else {
            self.selector.deregister(number)?;
            drop(self.connections.remove(token));
        }
        Ok(())
    }
}

impl Connection {
    /// Moves bytes; false when the peer has sent its last.
    fn step(&mut self, readiness: Interest, buffer: &mut [u8]) -> io::Result<bool> {
        if readiness.is_writable() {
            self.flush()?;
        }
        if readiness.is_readable() && !self.flow.is_paused() {
            let Some(count) = unless_blocked(socket::recv(self.socket.as_fd(), buffer))? else {
                return Ok(true);
            };
            if count == 0 {
                return Ok(false);
            }
            self.send(&buffer[..count])?;
        }
        Ok(true)
    }

    /// Sends at once what the kernel takes, and queues the rest.
    fn send(&mut self, data: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if self.unsent.is_empty() {
            sent = unless_blocked(socket::send(self.socket.as_fd(), data))?.unwrap_or(0);
        }
        if sent < data.len() {
            self.unsent.push(data[sent..].to_vec());
            self.flow.on_growth(self.unsent.len_bytes());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); 16];
        let count = self.unsent.slices(&mut slices);
        let sent = socket::send_vectored(self.socket.as_fd(), &slices[..count]);
        if let Some(sent) = unless_blocked(sent)? {
            self.unsent.advance(sent, drop);
            self.flow.on_shrink(self.unsent.len_bytes());
        }
        Ok(())
    }

    fn wanted(&self) -> Interest {
        let read = if self.flow.is_paused() { Interest::NONE } else { Interest::READABLE };
        let write = if self.unsent.is_empty() { Interest::NONE } else { Interest::WRITABLE };
        read.with(write)
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

/// Opens what the arguments ask for and prints where it is.
fn listen(
    mut arguments: impl Iterator<Item = String>,
) -> Result<(OwnedFd, SelectorKind), Box<dyn Error>> {
    let (mut host, mut port, mut path) = ("127.0.0.1".to_owned(), 0, None);
    let mut kind = SelectorKind::best();
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} wants a value"))?;
        match option.as_str() {
            "--host" => host = value,
            "--port" => port = value.parse()?,
            "--unix" => path = Some(value),
            "--selector" => {
                let known = SelectorKind::available().iter().find(|kind| kind.name() == value);
                kind = *known.ok_or("no such selector here")?;
            }
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
        listener.set_nonblocking(true)?;
        writeln!(output, "{}", listener.local_addr()?.port())?;
        OwnedFd::from(listener)
    };
    output.flush()?;
    Ok((listener, kind))
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
