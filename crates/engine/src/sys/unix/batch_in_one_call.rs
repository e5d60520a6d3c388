//! Many datagrams in one system call: recvmmsg(2), sendmmsg(2), or as segments of one.
#![allow(unsafe_code)] // rustix has no recvmmsg, and no sendmmsg for Android

use std::io;
use std::mem::{MaybeUninit, zeroed};

use rustix::net::SocketAddrAny;

use super::address::from_kernel;
use super::datagram::Outgoing;
use super::segments::send_alike;
use crate::Address;
use crate::sys::fd::{AsRawFd, BorrowedFd};

/// How many datagrams one call receives at most.
const LIMIT: usize = 32;

/// The same as the kernel wants it.
#[allow(clippy::cast_possible_truncation)] // it is small
const COUNT: libc::c_uint = LIMIT as libc::c_uint;

#[allow(clippy::cast_possible_truncation)] // it is small
const NAME_SIZE: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// Room for the largest datagram of the internet protocols.
const SIZE: usize = 64 * 1024;

/// Where datagrams land. Of its memory, only what they have filled is ever touched.
#[derive(Debug)]
pub struct Batch {
    memory: Box<[u8]>,
    names: Box<[MaybeUninit<libc::sockaddr_storage>; LIMIT]>,
    /// The lengths of the datagrams and of the senders' names; of those of the last call.
    lengths: Vec<(usize, libc::socklen_t)>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// How many datagrams one call receives at most.
    pub const LIMIT: usize = LIMIT;

    /// An empty batch.
    pub fn new() -> Self {
        Self {
            memory: vec![0; LIMIT * SIZE].into_boxed_slice(),
            names: Box::new([MaybeUninit::uninit(); LIMIT]),
            lengths: Vec::with_capacity(LIMIT),
        }
    }

    /// Receives what waits, at least one datagram; how many there are. What was received before is
    /// gone then.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.lengths.clear();
        // SAFETY: both are structures of numbers and pointers, for which all zeroes are valid.
        let (mut vectors, mut headers) =
            unsafe { (zeroed::<[libc::iovec; LIMIT]>(), zeroed::<[libc::mmsghdr; LIMIT]>()) };
        let slots = self.memory.chunks_exact_mut(SIZE).zip(self.names.iter_mut());
        for ((vector, header), (memory, name)) in
            vectors.iter_mut().zip(headers.iter_mut()).zip(slots)
        {
            vector.iov_base = memory.as_mut_ptr().cast();
            vector.iov_len = SIZE;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_SIZE;
        }
        // SAFETY: each header points to memory and a name of the sizes that it says, which are
        // borrowed exclusively; no timeout.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                COUNT,
                libc::MSG_DONTWAIT as _, // the type of the flags differs between C libraries
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.lengths.extend(
            headers[..count]
                .iter()
                .map(|header| (header.msg_len as usize, header.msg_hdr.msg_namelen)),
        );
        Ok(count)
    }

    /// What the socket had to say after these: nothing, as the kernel keeps it for the next call (recvmmsg(2)).
    #[allow(clippy::unused_self)] // elsewhere there is something
    pub const fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    /// The datagram `index` of those that the last call received.
    pub fn data(&self, index: usize) -> &[u8] {
        let (length, _) = self.lengths[index];
        &self.memory[index * SIZE..][..length.min(SIZE)]
    }

    /// Who has sent it; `None` for a socket without a name.
    pub fn sender(&self, index: usize) -> Option<Address> {
        let (_, length) = self.lengths[index];
        if length == 0 {
            return None;
        }
        // SAFETY: the kernel has written as many bytes, or fewer where it says that there would
        // have been more; `read` takes a length that fits.
        let address = unsafe {
            SocketAddrAny::read(self.names[index].as_ptr().cast(), length.min(NAME_SIZE))
        };
        Some(from_kernel(&address))
    }
}

/// Sends the first datagrams, [`Batch::LIMIT`] of them or those alike: how many went, in their order.
/// An error is that of the first one; that of another ends the call before it, and is what the next
/// call says.
pub fn send_many<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>> + Clone,
) -> io::Result<usize> {
    match send_alike(fd, datagrams.clone())? {
        0 => send_each(fd, datagrams),
        count => Ok(count),
    }
}

/// sendmmsg(2).
fn send_each<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    // SAFETY: both are structures of numbers and pointers, for which all zeroes are valid.
    let (mut vectors, mut headers) =
        unsafe { (zeroed::<[libc::iovec; LIMIT]>(), zeroed::<[libc::mmsghdr; LIMIT]>()) };
    let mut names = [const { None::<SocketAddrAny> }; LIMIT];
    let mut count: libc::c_uint = 0;
    let slots = vectors.iter_mut().zip(headers.iter_mut()).zip(names.iter_mut());
    for (((vector, header), name), datagram) in slots.zip(datagrams) {
        vector.iov_base = datagram.data.as_ptr().cast_mut().cast();
        vector.iov_len = datagram.data.len();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(target) = datagram.target {
            let target = name.insert(target.into());
            header.msg_hdr.msg_name = target.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = target.addr_len();
        }
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: each of the first `count` headers points to data that the kernel only reads, and that is
    // borrowed for longer than this call, and perhaps to a name that lives in this function.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _, // their type differs between C libraries
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
