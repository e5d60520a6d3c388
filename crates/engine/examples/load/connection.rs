//! One connection under load: a message on its way out, and the same on its way back.

use std::io;

use oxloop_engine::sys::fd::{AsFd, OwnedFd};
use oxloop_engine::sys::socket;
use oxloop_engine::{Interest, Timestamp};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, connect};

use crate::options::Mode;

/// How many sends an upload makes before the others have their turn.
const SENDS_PER_TURN: usize = 16;

pub(crate) enum Step {
    Waiting,
    /// The whole message has come back.
    Echoed,
    /// So many messages have gone, of an upload.
    Sent(u64),
}

pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    /// What is registered with the selector.
    pub(crate) interest: Interest,
    /// When the present message, or connecting, began.
    pub(crate) started: Timestamp,
    connecting: bool,
    /// Of the present message, in bytes.
    sent: usize,
    /// Of the present message, in bytes.
    received: usize,
    /// The first message came back as it went; the others are not compared.
    compared: bool,
}

impl Connection {
    /// Begins to connect.
    pub(crate) fn open(peer: &SocketAddrAny) -> io::Result<Self> {
        let started = Timestamp::now();
        let socket = new_socket(peer)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        match connect(&socket, peer) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self::new(socket, started, true)),
            Err(error) => Err(error.into()),
        }
    }

    /// Connects.
    pub(crate) fn open_and_wait(peer: &SocketAddrAny) -> io::Result<Self> {
        let socket = new_socket(peer)?;
        connect(&socket, peer)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self::new(socket, Timestamp::now(), false))
    }

    fn new(socket: OwnedFd, started: Timestamp, connecting: bool) -> Self {
        let interest = Interest::WRITABLE;
        Self { socket, interest, started, connecting, sent: 0, received: 0, compared: false }
    }

    /// What the selector is to watch for after a step.
    pub(crate) fn wanted(&self, mode: Mode, size: usize) -> Interest {
        if mode == Mode::Upload || self.sent < size {
            return Interest::BOTH;
        }
        Interest::READABLE
    }

    /// Begins the next message.
    pub(crate) fn next_message(&mut self, now: Timestamp, message: &[u8]) -> io::Result<()> {
        (self.started, self.sent, self.received) = (now, 0, 0);
        self.send(message)?;
        Ok(())
    }

    pub(crate) fn echo(
        &mut self,
        readiness: Interest,
        message: &[u8],
        buffer: &mut [u8],
    ) -> io::Result<Step> {
        self.finish_connecting()?;
        if readiness.is_writable() && self.sent < message.len() {
            self.send(message)?;
        }
        if readiness.is_readable() {
            let most = buffer.len().min(message.len() - self.received);
            let count = self.receive(&mut buffer[..most])?;
            if !self.compared && buffer[..count] != message[self.received..][..count] {
                return Err(io::Error::other("what came back is not what was sent"));
            }
            self.received += count;
        }
        if self.received < message.len() {
            return Ok(Step::Waiting);
        }
        self.compared = true;
        Ok(Step::Echoed)
    }

    pub(crate) fn upload(
        &mut self,
        readiness: Interest,
        message: &[u8],
        buffer: &mut [u8],
    ) -> io::Result<Step> {
        if readiness.is_readable() {
            self.receive(buffer)?;
        }
        let mut messages = 0;
        if readiness.is_writable() {
            for _ in 0..SENDS_PER_TURN {
                if self.send(message)? == 0 {
                    break;
                }
                if self.sent == message.len() {
                    self.sent = 0;
                    messages += 1;
                }
            }
        }
        Ok(Step::Sent(messages))
    }

    fn finish_connecting(&mut self) -> io::Result<()> {
        if self.connecting {
            self.connecting = false;
            if let Some(error) = socket::take_error(self.socket.as_fd())? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sends what is left of `message`; 0 when the kernel takes nothing now.
    fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        match socket::send(self.socket.as_fd(), &message[self.sent..]) {
            Ok(count) => {
                self.sent += count;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match socket::recv(self.socket.as_fd(), buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

fn new_socket(peer: &SocketAddrAny) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(peer.address_family(), SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    if peer.address_family() != AddressFamily::UNIX {
        socket::set_nodelay(socket.as_fd())?;
    }
    Ok(socket)
}
