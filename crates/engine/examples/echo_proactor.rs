//! The echo server once more, on the proactor: no readiness, only what is complete.
//!
//! ```text
//! echo_proactor [--host ADDRESS] [--port PORT] [--unix PATH]
//!               [--entries N] [--buffers N] [--buffer-size BYTES]
//! ```
//!
//! Prints the port (or the path) that it listens on, on one line, and serves until it is killed.

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use oxloop_engine::proactor::{Completion, Completions, Config, Operation, Proactor, Returned};
use oxloop_engine::sys::socket;
use oxloop_engine::{FlowControl, Slots, Token};

const LISTENER: Token = Token::reserved(0);

type Buffer = Vec<u8>;

struct Connection {
    socket: OwnedFd,
    /// The receive that goes on; `None` while the flow is paused or the peer has sent its last.
    receive: Option<Token>,
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
}

fn main() -> Result<(), Box<dyn Error>> {
    let (listener, config) = listen(std::env::args().skip(1))?;
    let mut proactor = Proactor::new(config)?;
    proactor.submit(LISTENER, Operation::Accept { fd: listener.as_raw_fd() });
    let mut server = Server { proactor, connections: Slots::new() };
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
                let fd = socket.as_raw_fd();
                let token = self.connections.insert(Connection::new(socket));
                let receive = self.proactor.submit(token, Operation::Receive { fd });
                if let Some(connection) = self.connections.get_mut(token) {
                    connection.receive = Some(receive);
                }
            }
            Returned::Chunk(chunk) => {
                if let Some(connection) = self.connections.get_mut(owner) {
                    let data = self.proactor.bytes(&chunk).to_vec();
                    connection.len_bytes += data.len();
                    connection.unsent.push(data);
                }
                self.proactor.recycle(chunk);
            }
            Returned::Buffers(buffers) => {
                if let Some(connection) = self.connections.get_mut(owner) {
                    connection.sending = false;
                    connection.len_bytes -= buffers.iter().map(Vec::len).sum::<usize>();
                    connection.ended |= result.is_err();
                }
            }
            _ if owner == LISTENER => return result.map(drop),
            // The last completion of a receive: the end of the stream, an error, or a pause.
            _ => {
                if let Some(connection) = self.connections.get_mut(owner).filter(|_| !more) {
                    connection.receive = None;
                    let paused = connection.flow.is_paused() && result.is_err();
                    connection.ended |= !paused;
                }
            }
        }
        self.advance(owner);
        Ok(())
    }

    /// Submits what a connection is to do next.
    fn advance(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let fd = connection.socket.as_raw_fd();
        if !connection.sending && !connection.unsent.is_empty() {
            let rest = connection.unsent.split_off(connection.unsent.len().min(1024));
            let buffers = std::mem::replace(&mut connection.unsent, rest);
            self.proactor.submit(token, Operation::Send { fd, buffers, skip: 0 });
            connection.sending = true;
        }
        connection.flow.on_growth(connection.len_bytes);
        connection.flow.on_shrink(connection.len_bytes);
        let (paused, ended) = (connection.flow.is_paused(), connection.ended);
        match connection.receive {
            Some(receive) if paused || ended => {
                self.proactor.cancel(receive);
            }
            None if ended && !connection.sending => drop(self.connections.remove(token)),
            None if !ended && !paused => {
                let receive = self.proactor.submit(token, Operation::Receive { fd });
                connection.receive = Some(receive);
            }
            _ => {}
        }
    }
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            receive: None,
            sending: false,
            ended: false,
            unsent: Vec::new(),
            len_bytes: 0,
            flow: FlowControl::new(),
        }
    }
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
        let listener = UnixListener::bind(&path)?;
        writeln!(output, "{path}")?;
        OwnedFd::from(listener)
    } else {
        let listener = TcpListener::bind((host, port))?;
        writeln!(output, "{}", listener.local_addr()?.port())?;
        OwnedFd::from(listener)
    };
    output.flush()?;
    Ok((listener, config))
}
