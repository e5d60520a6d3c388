//! A proactor that is tested, and what its tests bring along.
//!
//! `tests/contract` and `tests/proactor` share it.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use oxloop_engine::proactor::{self, Config, Proactor, Returned, Setup};
use oxloop_engine::sys::fd::{AsRawFd, OwnedFd, RawFd};
use oxloop_engine::{Address, Interest, Token};

pub(crate) type Buffer = Vec<u8>;
pub(crate) type Operation = proactor::Operation<Buffer, Buffer>;
pub(crate) type Completion = proactor::Completion<Buffer, Buffer>;

pub(crate) const NOW: Option<Duration> = Some(Duration::ZERO);
pub(crate) const OWNER: Token = Token::reserved(7);

/// A completion, its chunk copied and given back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) token: Token,
    pub(crate) result: Result<usize, i32>,
    pub(crate) returned: Brought,
    pub(crate) more: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Brought {
    Nothing,
    Data(Buffer),
    Datagram(Buffer, Option<Address>),
    Buffers(Vec<Buffer>),
    Readiness(Interest),
    Connection(RawFd),
}

/// A proactor, and what it said and nobody has asked for yet.
pub(crate) struct Bench {
    pub(crate) proactor: Proactor<Buffer, Buffer>,
    pub(crate) completions: proactor::Completions<Buffer, Buffer>,
    pub(crate) connections: Vec<OwnedFd>,
}

impl Bench {
    pub(crate) fn of(proactor: Proactor<Buffer, Buffer>) -> Self {
        Self { proactor, completions: proactor::Completions::new(), connections: Vec::new() }
    }

    pub(crate) fn submit(&mut self, operation: Operation) -> Token {
        self.proactor.submit(OWNER, operation)
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Done>> {
        self.proactor.wait(&mut self.completions, timeout)?;
        Ok(self.look_at_all())
    }

    /// How long the shortest of so many waits for a silent socket takes, as the machine may be busy; none is early.
    pub(crate) fn shortest_wait(
        &mut self,
        fd: RawFd,
        timeout: Duration,
        rounds: u32,
    ) -> io::Result<Duration> {
        let mut least = Duration::MAX;
        for round in 0..rounds {
            // With something to submit, and without.
            if round % 2 == 0 {
                self.submit(Operation::ReceiveInto { fd, buffer: vec![0] });
            }
            let start = Instant::now();
            assert!(self.wait(Some(timeout))?.is_empty());
            let elapsed = start.elapsed();
            assert!(elapsed >= timeout, "{elapsed:?} is early");
            least = least.min(elapsed);
        }
        Ok(least)
    }

    pub(crate) fn suspend(&mut self) -> io::Result<Vec<Done>> {
        self.proactor.suspend(&mut self.completions)?;
        Ok(self.look_at_all())
    }

    pub(crate) fn look_at_all(&mut self) -> Vec<Done> {
        let list: Vec<_> = self.completions.drain().collect();
        list.into_iter().map(|completion| self.look(completion)).collect()
    }

    pub(crate) fn look(&mut self, completion: Completion) -> Done {
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
    pub(crate) fn one(&mut self) -> io::Result<Done> {
        let mut all = self.wait(None)?;
        assert_eq!(all.len(), 1, "{all:?}");
        Ok(all.remove(0))
    }

    /// Ends an operation; its last completion, which comes now or with the next wait.
    pub(crate) fn withdraw(&mut self, token: Token) -> io::Result<Done> {
        if let Some(done) = self.proactor.withdraw(token) {
            return Ok(self.look(done));
        }
        let mut all = self.wait(NOW)?;
        let place = all.iter().position(|done| done.token == token && !done.more);
        Ok(all.remove(place.unwrap_or_else(|| panic!("{all:?}"))))
    }

    /// Waits until every operation has completed.
    pub(crate) fn all(&mut self) -> io::Result<Vec<Done>> {
        let mut all = Vec::new();
        while !self.proactor.is_empty() {
            all.extend(self.wait(None)?);
        }
        Ok(all)
    }
}

/// What the kernel may fall back upon, where there is a choice.
pub(crate) const SETUPS: &[Setup] = if cfg!(target_os = "linux") {
    &[Setup::Deferred, Setup::Cooperative, Setup::Plain]
} else {
    &[Setup::Deferred]
};

/// Whether there is something to test; prints why, if not.
pub(crate) fn is_available() -> bool {
    let reason = proactor::probe().err();
    reason.inspect(|reason| println!("skipped: {reason}")).is_none()
}

/// One test per function, on every setup.
macro_rules! on_every_setup {
    ($group:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() -> std::io::Result<()> {
            if !$crate::bench::is_available() {
                return Ok(());
            }
            for setup in $crate::bench::SETUPS.iter().copied() {
                println!("{setup:?}");
                $group::$name(Config { setup, ..Config::default() })?;
            }
            Ok(())
        })*
    };
}
pub(crate) use on_every_setup;

pub(crate) fn bench(config: Config) -> io::Result<Bench> {
    Proactor::new(config).map(Bench::of).map_err(io::Error::other)
}

/// Runs something on a thread of its own.
pub(crate) fn elsewhere<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// A connection, its first end non-blocking.
pub(crate) fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let left = TcpStream::connect(listener.local_addr()?)?;
    let (right, _) = listener.accept()?;
    left.set_nodelay(true)?;
    right.set_nodelay(true)?;
    left.set_nonblocking(true)?;
    Ok((left, right))
}

pub(crate) fn read(stream: &mut impl Read, count: usize) -> io::Result<Buffer> {
    let mut data = vec![0; count];
    stream.read_exact(&mut data)?;
    Ok(data)
}

/// Bytes of which each tells where it belongs.
pub(crate) fn pattern(count: usize) -> Buffer {
    (0..count)
        .map(|place| (place % 251).to_le_bytes()[0] ^ (place / 251).to_le_bytes()[0])
        .collect()
}
