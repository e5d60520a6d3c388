//! What the contract, which is every system's, says nothing of.

use std::net::UdpSocket;

use windows_sys::Win32::Foundation::GENERIC_WRITE;
use windows_sys::Win32::Storage::FileSystem::PIPE_ACCESS_INBOUND;
use windows_sys::Win32::System::Pipes::{PIPE_READMODE_MESSAGE, PIPE_TYPE_MESSAGE, PIPE_WAIT};

use super::*;
use crate::Interest;
use crate::sys::fd::AsRawFd;
use crate::sys::pipe;

const OWNER: Token = Token::reserved(7);

fn iocp() -> io::Result<Iocp<Vec<u8>, Vec<u8>>> {
    Iocp::new(Config::default()).map_err(io::Error::other)
}

#[test]
fn what_others_have_begun_is_not_ours() -> io::Result<()> {
    let (mut iocp, mut completions) = (iocp()?, Completions::new());
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let (fd, interest) = (socket.as_raw_fd(), Interest::READABLE);
    iocp.submit(OWNER, Operation::Poll { fd, interest });
    for nobody in [0, 0x10, usize::MAX] {
        iocp.kernel.port.end(std::ptr::without_provenance(nobody));
        iocp.wait(&mut completions, Some(Duration::ZERO))?;
        assert!(completions.is_empty());
    }
    socket.send_to(b"a", socket.local_addr()?)?;
    iocp.wait(&mut completions, None)?;
    assert_eq!(completions.len(), 1);
    Ok(())
}

/// Wine lets any end choose how it reads; Windows lets only those that may write attributes.
#[test]
fn long_messages_come_in_parts() -> io::Result<()> {
    let (mut iocp, mut completions) = (iocp()?, Completions::new());
    let mode = PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT;
    let (reader, writer) = pipe::ends(PIPE_ACCESS_INBOUND, mode, GENERIC_WRITE)?;
    let message: Vec<u8> = (0..100).collect();
    let buffers = vec![message.clone()];
    iocp.submit(OWNER, Operation::Write { fd: writer.as_raw_fd(), buffers, skip: 0 });
    let mut received: Vec<u8> = Vec::new();
    while received.len() < message.len() {
        let (fd, buffer) = (reader.as_raw_fd(), vec![0; 40]);
        let read = iocp.submit(OWNER, Operation::Read { fd, buffer });
        while iocp.in_flight.get(read).is_some() {
            iocp.wait(&mut completions, None)?;
            for completion in completions.drain().filter(|completion| completion.token == read) {
                let Returned::Buffer(buffer) = completion.returned else { panic!("no buffer") };
                received.extend(&buffer[..completion.result?]);
            }
        }
    }
    assert_eq!(received, message);
    Ok(())
}
