//! Datagrams of one length for one address: handed over as one, which the kernel or the device cuts
//! (`UDP_SEGMENT`, udp(7), Linux 4.18). Most of what a datagram costs is the way through the kernel,
//! and they go it together: 0.4 µs each instead of 3.2, of 64 bytes and 64 of them.
//!
//! What surprised us: a kernel that does not know of it sends them as one long datagram, so it has to
//! be asked first.
#![allow(unsafe_code)] // sendmsg(2) with a message that rustix does not know

use std::io;
use std::mem::{size_of, zeroed};

use rustix::net::SocketAddrAny;

use super::datagram::Outgoing;
use crate::sys::fd::{AsRawFd, BorrowedFd};

/// How many datagrams go together at most (`UDP_MAX_SEGMENTS`; more since Linux 6.9).
const LIMIT: usize = 64;
/// How many bytes go together at most, in both versions of the protocol.
const MOST_BYTES: usize = 65_000;

/// A control message of one 16-bit number, in the kernel's form.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    length: u16,
    _padding: [u8; size_of::<usize>() - size_of::<u16>()],
}

/// Sends the first datagrams together, if they may be: they have one length, but for a shorter last one,
/// and one address. How many that were; 0 if it has to be done in another way.
pub(super) fn send_alike<'a>(
    fd: BorrowedFd<'_>,
    mut datagrams: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let Some(first) = datagrams.next() else { return Ok(0) };
    let Some(Ok(length)) = (!first.data.is_empty()).then(|| u16::try_from(first.data.len())) else {
        return Ok(0);
    };
    // SAFETY: a structure of a number and a pointer, for which all zeroes are valid.
    let mut vectors = unsafe { zeroed::<[libc::iovec; LIMIT]>() };
    let (mut count, mut total) = (0, 0);
    for (vector, datagram) in vectors.iter_mut().zip(std::iter::once(first).chain(datagrams)) {
        let data = datagram.data;
        total += data.len();
        let fits = (1..=length.into()).contains(&data.len()) && total <= MOST_BYTES;
        if !fits || datagram.target != first.target {
            break;
        }
        vector.iov_base = data.as_ptr().cast_mut().cast();
        vector.iov_len = data.len();
        count += 1;
        if data.len() < length.into() {
            break;
        }
    }
    if count < 2 || !knows_segments(fd) {
        return Ok(0);
    }
    match send_segments(fd, &mut vectors[..count], first, length) {
        Ok(()) => Ok(count),
        Err(error) => match error.raw_os_error() {
            // Longer than the way allows without fragments, or a way that cannot: a tunnel, say.
            Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP) => Ok(0),
            _ => Err(error),
        },
    }
}

/// Whether the socket is UDP's, of a kernel that knows of segments, and cuts no datagrams as it is.
fn knows_segments(fd: BorrowedFd<'_>) -> bool {
    let mut value: libc::c_int = 0;
    #[allow(clippy::cast_possible_truncation)] // it is small
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is writable and as long as is said.
    let asked = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    // A user who has set it wants his own datagrams cut.
    asked == 0 && value == 0
}

fn send_segments(
    fd: BorrowedFd<'_>,
    vectors: &mut [libc::iovec],
    first: Outgoing<'_>,
    length: u16,
) -> io::Result<()> {
    // SAFETY: a structure of numbers, for which all zeroes are valid.
    let mut control = unsafe { zeroed::<Control>() };
    // SAFETY: no preconditions.
    let (size, space) = unsafe { (libc::CMSG_LEN(2), libc::CMSG_SPACE(2)) };
    control.header.cmsg_len = size as _; // its type differs between C libraries
    control.header.cmsg_level = libc::SOL_UDP;
    control.header.cmsg_type = libc::UDP_SEGMENT;
    control.length = length;
    // SAFETY: as above.
    let mut message = unsafe { zeroed::<libc::msghdr>() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = space as _;
    let name: Option<SocketAddrAny> = first.target.map(Into::into);
    if let Some(name) = &name {
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = name.addr_len();
    }
    // SAFETY: the message points to data that is borrowed for longer than this call, to a name and to a
    // control message of the size that it says.
    let sent = unsafe {
        libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(std::mem::offset_of!(Control, length) == size_of::<libc::cmsghdr>());

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::sys::fd::AsFd;

    /// How many of these go together to a socket, and what arrives there.
    fn together(host: &str, data: &[&[u8]], connected: bool) -> io::Result<(usize, Vec<Vec<u8>>)> {
        let (left, right) = (UdpSocket::bind(host)?, UdpSocket::bind(host)?);
        let mut target = Some(right.local_addr()?);
        if connected {
            left.connect(right.local_addr()?)?;
            target = None;
        }
        let outgoing = data.iter().map(|data| Outgoing { data, target });
        let count = send_alike(left.as_fd(), outgoing)?;
        let mut buffer = vec![0; 65_536];
        let received = (0..count).map(|_| {
            let length = right.recv(&mut buffer)?;
            Ok(buffer[..length].to_vec())
        });
        let received = received.collect::<io::Result<_>>()?;
        right.set_nonblocking(true)?;
        assert!(right.recv(&mut buffer).is_err(), "nothing more");
        Ok((count, received))
    }

    #[test]
    fn those_alike_arrive_one_by_one() -> io::Result<()> {
        if !knows_segments(UdpSocket::bind("127.0.0.1:0")?.as_fd()) {
            return Ok(());
        }
        let long = vec![7; 30_000];
        let many = [&b"many"[..]; 70];
        for (data, expected) in [
            (&[&b"one"[..], b"two", b"six"][..], 3),
            (&[b"one", b"a", b"b"], 2),
            (&[b"one", b"three"], 0),
            (&[b"one", b"two", b""], 2),
            (&[b"", b"", b""], 0),
            (&[b"one"], 0),
            (&[], 0),
            (&[&long, &long, &long], 2),
            (&many, LIMIT),
        ] {
            for (host, connected) in
                [("127.0.0.1:0", true), ("127.0.0.1:0", false), ("[::1]:0", false)]
            {
                let (count, received) = together(host, data, connected)?;
                assert_eq!(count, expected, "{} {connected}", data.len());
                assert!(received.iter().eq(&data[..count]), "{} {connected}", data.len());
            }
        }
        Ok(())
    }

    #[test]
    fn another_address_is_not_alike() -> io::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let others = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        let targets = [others[0].local_addr()?, others[1].local_addr()?];
        let outgoing =
            targets.iter().map(|target| Outgoing { data: b"data", target: Some(*target) });
        assert_eq!(send_alike(socket.as_fd(), outgoing)?, 0);
        Ok(())
    }

    #[test]
    fn who_has_no_segments_sends_none() -> io::Result<()> {
        let (left, right) = UnixDatagram::pair()?;
        let outgoing = std::iter::repeat_n(Outgoing { data: b"data", target: None }, 3);
        assert_eq!(send_alike(left.as_fd(), outgoing)?, 0);
        right.set_nonblocking(true)?;
        assert!(right.recv(&mut [0; 9]).is_err());
        Ok(())
    }
}
