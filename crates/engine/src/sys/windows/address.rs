//! Addresses as Winsock writes them.
#![allow(unsafe_code)] // the bytes of a socket address

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::mem::{offset_of, zeroed};
use std::net::{SocketAddrV4, SocketAddrV6};

use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, AF_UNIX, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6, SOCKADDR_STORAGE, SOCKADDR_UN,
    WSAEAFNOSUPPORT, WSAENAMETOOLONG,
};

use crate::Address;

/// How many bytes the longest address has.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "128")]
const ROOM: i32 = size_of::<SOCKADDR_STORAGE>() as i32;

/// An address, or room for one.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    storage: SOCKADDR_STORAGE,
    len: i32,
}

impl Debug for Name {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.address().fmt(formatter)
    }
}

impl Name {
    /// Room for any address.
    pub(crate) const fn empty() -> Self {
        // SAFETY: zeros are an address of no family.
        Self { storage: unsafe { zeroed() }, len: ROOM }
    }

    /// The address as the kernel wants it. WSAEAFNOSUPPORT for one of an unknown family and for a
    /// Unix socket without a name, WSAENAMETOOLONG for a path.
    pub(crate) fn new(address: &Address) -> io::Result<Self> {
        match address {
            Address::V4(address) => Ok(Self::v4(*address)),
            Address::V6(address) => Ok(Self::v6(address)),
            Address::UnixPath(path) => Self::unix(path),
            _ => Err(io::Error::from_raw_os_error(WSAEAFNOSUPPORT)),
        }
    }

    /// The address of no network: what a socket of the family of `address` is bound to so that the
    /// system chooses.
    pub(crate) fn any(address: &Address) -> io::Result<Self> {
        let mut any = Self::new(address)?;
        let family = any.storage.ss_family;
        any.storage = Self::empty().storage;
        any.storage.ss_family = family;
        Ok(any)
    }

    fn v4(address: SocketAddrV4) -> Self {
        // SAFETY: zeros are an address.
        let mut name: SOCKADDR_IN = unsafe { zeroed() };
        name.sin_family = AF_INET;
        name.sin_port = address.port().to_be();
        name.sin_addr.S_un.S_addr = u32::from_ne_bytes(address.ip().octets());
        Self::of(name)
    }

    fn v6(address: &SocketAddrV6) -> Self {
        // SAFETY: zeros are an address.
        let mut name: SOCKADDR_IN6 = unsafe { zeroed() };
        name.sin6_family = AF_INET6;
        name.sin6_port = address.port().to_be();
        name.sin6_flowinfo = address.flowinfo();
        name.sin6_addr.u.Byte = address.ip().octets();
        name.Anonymous.sin6_scope_id = address.scope_id();
        Self::of(name)
    }

    fn unix(path: &[u8]) -> io::Result<Self> {
        // SAFETY: zeros are an address.
        let mut name: SOCKADDR_UN = unsafe { zeroed() };
        name.sun_family = AF_UNIX;
        // One byte is left for the NUL.
        if path.len() >= name.sun_path.len() {
            return Err(io::Error::from_raw_os_error(WSAENAMETOOLONG));
        }
        for (place, byte) in name.sun_path.iter_mut().zip(path) {
            *place = i8::from_ne_bytes([*byte]);
        }
        Ok(Self::of(name))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 128")]
    fn of<N: Copy>(name: N) -> Self {
        const { assert!(size_of::<N>() <= size_of::<SOCKADDR_STORAGE>()) };
        let mut result = Self::empty();
        // SAFETY: there is room for it, and the alignment is that of any address.
        unsafe { (&raw mut result.storage).cast::<N>().write_unaligned(name) };
        result.len = size_of::<N>() as i32;
        result
    }

    /// Where the address is, for the kernel to read.
    pub(crate) const fn as_ptr(&self) -> *const SOCKADDR {
        (&raw const self.storage).cast()
    }

    /// How many bytes it has.
    pub(crate) const fn len(&self) -> i32 {
        self.len
    }

    /// Where the kernel writes an address, and how long that is: before the call how much room
    /// there is.
    pub(crate) const fn room(&mut self) -> (*mut SOCKADDR, *mut i32) {
        self.len = ROOM;
        ((&raw mut self.storage).cast(), &raw mut self.len)
    }

    /// What the kernel wrote; `None` for nothing.
    pub(crate) fn address(&self) -> Option<Address> {
        let len = usize::try_from(self.len).unwrap_or(0);
        if len < size_of_val(&self.storage.ss_family) {
            return None;
        }
        let start = &raw const self.storage;
        Some(match self.storage.ss_family {
            // SAFETY: the storage is as large as any address, and initialised.
            AF_INET => Address::V4(v4(unsafe { &*start.cast() })),
            // SAFETY: as above.
            AF_INET6 => Address::V6(v6(unsafe { &*start.cast() })),
            // SAFETY: as above.
            AF_UNIX => unix(unsafe { &*start.cast() }, len),
            // A stream tells of no sender, and leaves the family of nothing.
            0 => return None,
            _ => Address::Other,
        })
    }
}

fn v4(name: &SOCKADDR_IN) -> SocketAddrV4 {
    // SAFETY: all forms of the address are the same four bytes.
    let bytes = unsafe { name.sin_addr.S_un.S_addr }.to_ne_bytes();
    SocketAddrV4::new(bytes.into(), u16::from_be(name.sin_port))
}

fn v6(name: &SOCKADDR_IN6) -> SocketAddrV6 {
    // SAFETY: all forms of these fields are of numbers.
    let (bytes, scope) = unsafe { (name.sin6_addr.u.Byte, name.Anonymous.sin6_scope_id) };
    SocketAddrV6::new(bytes.into(), u16::from_be(name.sin6_port), name.sin6_flowinfo, scope)
}

fn unix(name: &SOCKADDR_UN, len: usize) -> Address {
    let path = &name.sun_path
        [..len.saturating_sub(offset_of!(SOCKADDR_UN, sun_path)).min(name.sun_path.len())];
    let path: Vec<u8> =
        path.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    if path.is_empty() { Address::UnixUnnamed } else { Address::UnixPath(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() -> io::Result<()> {
        let addresses = [
            Address::V4("127.0.0.1:80".parse().expect("an address")),
            Address::V6(SocketAddrV6::new("fe80::1".parse().expect("an address"), 443, 7, 3)),
            Address::UnixPath(b"C:/a/path".to_vec()),
        ];
        for address in addresses {
            assert_eq!(Name::new(&address)?.address(), Some(address));
        }
        Ok(())
    }

    #[test]
    fn what_is_no_address() {
        let nowhere = Name::new(&Address::UnixUnnamed).expect_err("it has no name");
        assert_eq!(nowhere.raw_os_error(), Some(WSAEAFNOSUPPORT));
        let long = Name::new(&Address::UnixPath(vec![b'x'; 108])).expect_err("it is too long");
        assert_eq!(long.raw_os_error(), Some(WSAENAMETOOLONG));
        assert_eq!(Name::empty().address(), None);
    }
}
