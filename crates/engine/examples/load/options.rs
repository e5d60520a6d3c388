//! The command line.

use std::error::Error;
use std::net::ToSocketAddrs;
use std::str::FromStr;

use oxloop_engine::SelectorKind;
use rustix::net::{SocketAddrAny, SocketAddrUnix};

/// What each connection does.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Mode {
    Echo,
    Connect,
    Upload,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Connect => "connect",
            Self::Upload => "upload",
        }
    }
}

pub(crate) struct Options {
    pub(crate) peer: SocketAddrAny,
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    /// Of a message, in bytes.
    pub(crate) size: usize,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    /// The processor to stay on.
    pub(crate) pin: Option<usize>,
    pub(crate) selector: SelectorKind,
}

impl Options {
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut peer = None;
        let (mut mode, mut pin, mut selector) = (Mode::Echo, None, SelectorKind::best());
        let (mut connections, mut size, mut seconds, mut warmup) = (1, 1024, 3.0, 0.5);
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option} wants a value"))?;
            match option.as_str() {
                "--connect" => peer = value.to_socket_addrs()?.next().map(SocketAddrAny::from),
                "--unix" => peer = Some(SocketAddrUnix::new(value)?.into()),
                "--connections" => connections = at_least(1, &value)?,
                "--size" => size = at_least(1, &value)?,
                "--seconds" => seconds = at_least(0.0, &value)?,
                "--warmup" => warmup = at_least(0.0, &value)?,
                "--pin" => pin = Some(value.parse()?),
                "--mode" => {
                    let modes = [Mode::Echo, Mode::Connect, Mode::Upload];
                    let known = modes.into_iter().find(|mode| mode.name() == value);
                    mode = known.ok_or("the modes are echo, connect and upload")?;
                }
                "--selector" => {
                    let known = SelectorKind::available().iter().find(|kind| kind.name() == value);
                    selector = *known.ok_or("no such selector here")?;
                }
                _ => return Err(format!("unknown option {option}").into()),
            }
        }
        let peer = peer.ok_or("--connect HOST:PORT or --unix PATH is wanted")?;
        Ok(Self { peer, mode, connections, size, seconds, warmup, pin, selector })
    }
}

fn at_least<N>(least: N, value: &str) -> Result<N, Box<dyn Error>>
where
    N: FromStr<Err: Error + 'static> + Copy + PartialOrd + std::fmt::Display,
{
    let number = value.parse()?;
    if number < least {
        return Err(format!("{value} is less than {least}").into());
    }
    Ok(number)
}
