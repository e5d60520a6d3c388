//! Addresses as the kernel writes them.
//!
//! What surprised us: a Unix socket's path may fill its field without a NUL, and Linux then reports
//! a length past the end of `sockaddr_un` (unix(7), "BUGS"); and only that length tells the socket
//! without a name from the one whose abstract name is empty. macOS cuts a path that has no room, but
//! says how long it was, which may be twice as long as a `sockaddr_un` (XNU, `unp_bind` and
//! `accept`). Rustix, as of 1.1, panics at the first and the last and mixes up the second, hence the
//! bytes are read here.
#![allow(unsafe_code)] // the bytes of a socket address

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::net::{SocketAddrV4, SocketAddrV6};
use std::slice;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrLen, SocketAddrStorage};
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use super::HAS_ABSTRACT_NAMES;
use crate::Address;

pub(crate) fn from_kernel(address: &SocketAddrAny) -> Address {
    match address.address_family() {
        AddressFamily::INET => SocketAddrV4::try_from(address.clone()).map(Address::V4),
        AddressFamily::INET6 => SocketAddrV6::try_from(address.clone()).map(Address::V6),
        AddressFamily::UNIX => Ok(unix(bytes_of(address))),
        _ => Ok(Address::Other),
    }
    .unwrap_or(Address::Other)
}

/// Where the kernel writes an address: with room for the longest there is, 255 bytes on macOS and
/// FreeBSD (`SOCK_MAXADDRLEN`).
type Room = MaybeUninit<[libc::sockaddr_storage; 2]>;

/// What `call` returns, and the address that it has had written where it is told; `None` if there is
/// none.
pub(super) fn told<T>(
    call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> io::Result<T>,
) -> io::Result<(T, Option<Address>)> {
    let mut room = Room::uninit();
    let name = room.as_mut_ptr().cast::<libc::sockaddr>();
    // Not every call writes one, nor a length, where there is no address.
    // SAFETY: it lies in the room.
    unsafe { (&raw mut (*name).sa_family).write(0) };
    #[expect(clippy::cast_possible_truncation, reason = "it is small")]
    let mut len = size_of::<Room>() as libc::socklen_t;
    let result = call(name, &raw mut len)?;
    let len = (len as usize).min(size_of::<Room>());
    // SAFETY: it is initialised, by the kernel or above.
    let family = i32::from(unsafe { (*name).sa_family });
    if len < offset_of!(libc::sockaddr, sa_data) || family == libc::AF_UNSPEC {
        return Ok((result, None));
    }
    // SAFETY: the kernel has written as many bytes.
    let address = unsafe {
        if family == libc::AF_UNIX {
            unix(slice::from_raw_parts(name.cast(), len))
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "it is small")]
            let len = len.min(size_of::<SocketAddrStorage>()) as SocketAddrLen;
            from_kernel(&SocketAddrAny::read(room.as_ptr().cast(), len))
        }
    };
    Ok((result, Some(address)))
}

/// The address as the kernel wants it. EAFNOSUPPORT for one of an unknown family and for a Unix
/// socket without a name, which nothing can be sent to; ENAMETOOLONG, EINVAL for a bad path.
#[allow(dead_code)] // only the proactor has addresses to write
pub(crate) fn to_kernel(address: &Address) -> io::Result<SocketAddrAny> {
    Ok(match address {
        Address::V4(address) => (*address).into(),
        Address::V6(address) => (*address).into(),
        Address::UnixPath(path) => SocketAddrUnix::new(path.as_slice())?.into(),
        Address::UnixAbstract(name) if HAS_ABSTRACT_NAMES => abstract_name(name)?,
        _ => return Err(Errno::AFNOSUPPORT.into()),
    })
}

#[allow(dead_code)] // as above
#[expect(clippy::cast_possible_truncation, reason = "families and lengths of addresses are small")]
fn abstract_name(name: &[u8]) -> io::Result<SocketAddrAny> {
    // SAFETY: zeros are an address, of no family.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let place = address.sun_path.get_mut(1..=name.len()).ok_or(Errno::NAMETOOLONG)?;
    for (place, byte) in place.iter_mut().zip(name) {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
    let mut storage = MaybeUninit::<SocketAddrStorage>::zeroed();
    let len = offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    // SAFETY: the storage is large enough for any address, and zeros are no less initialised.
    Ok(unsafe {
        storage.as_mut_ptr().cast::<libc::sockaddr_un>().write(address);
        SocketAddrAny::new(storage, len as SocketAddrLen)
    })
}

fn bytes_of(address: &SocketAddrAny) -> &[u8] {
    // SAFETY: a `SocketAddrAny` is a `sockaddr_storage` of which `addr_len` bytes are initialised.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.addr_len() as usize) }
}

/// Reads a `sockaddr_un`, family and all.
fn unix(address: &[u8]) -> Address {
    let name = address.get(offset_of!(libc::sockaddr_un, sun_path)..).unwrap_or_default();
    match name {
        [0, name @ ..] if HAS_ABSTRACT_NAMES => Address::UnixAbstract(name.to_vec()),
        [] | [0, ..] => Address::UnixUnnamed,
        _ => {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            Address::UnixPath(name[..end].to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, SocketAddrV6};

    use rustix::net::{SocketType, bind, socket};

    use super::*;
    use crate::sys::fd::AsFd;
    use crate::sys::socket::local_address;

    fn name_after_binding(name: &SocketAddrUnix) -> std::io::Result<Address> {
        let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        bind(&bound, name)?;
        local_address(bound.as_fd())
    }

    #[test]
    fn internet() {
        let v4: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        assert_eq!(from_kernel(&v4.into()), Address::from(v4));
        let v6 = SocketAddrV6::new("fe80::1".parse().expect("an address"), 443, 7, 3);
        assert_eq!(from_kernel(&v6.into()), Address::V6(v6));
    }

    #[test]
    fn no_name() -> std::io::Result<()> {
        let (left, _right) = std::os::unix::net::UnixStream::pair()?;
        assert_eq!(local_address(left.as_fd())?, Address::UnixUnnamed);
        Ok(())
    }

    #[test]
    fn lengths_that_the_kernel_says() -> io::Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "it is small")]
        const FAMILY: libc::sa_family_t = libc::AF_UNIX as libc::sa_family_t;
        let path = [b'x'; 200];
        let write = |said: usize| {
            told(|name, len| {
                // SAFETY: there is room for more.
                unsafe {
                    (*name).sa_family = FAMILY;
                    let start = name.cast::<u8>().add(offset_of!(libc::sockaddr_un, sun_path));
                    start.copy_from_nonoverlapping(path.as_ptr(), path.len());
                    len.write(u32::try_from(said).expect("a small number"));
                }
                Ok(7)
            })
        };
        let start = offset_of!(libc::sockaddr_un, sun_path);
        let all = Some(Address::UnixPath(path.to_vec()));
        assert_eq!(write(start + path.len())?, (7, all));
        assert_eq!(write(start + 3)?, (7, Some(Address::UnixPath(path[..3].to_vec()))));
        assert_eq!(write(start)?, (7, Some(Address::UnixUnnamed)));
        assert_eq!(write(0)?, (7, None));
        assert_eq!(told(|_, _| Ok(7))?, (7, None));
        Ok(())
    }

    #[test]
    fn paths_up_to_the_longest() -> std::io::Result<()> {
        const LONGEST: usize =
            size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path);
        let directory = std::env::temp_dir();
        let start = format!("{}/oxloop-{}-", directory.display(), std::process::id());
        for length in [start.len() + 1, LONGEST - 1, LONGEST] {
            let path = format!("{start:x<length$}");
            let address = SocketAddrUnix::new(path.as_str())?;
            let name = name_after_binding(&address);
            std::fs::remove_file(&path)?;
            assert_eq!(name?, Address::UnixPath(path.into_bytes()));
        }
        Ok(())
    }

    #[test]
    fn abstract_names() {
        if !HAS_ABSTRACT_NAMES {
            return;
        }
        let name = format!("oxloop\0{}", std::process::id()).into_bytes();
        let bytes = [&[1, 0, 0][..], &name].concat();
        assert_eq!(unix(&bytes), Address::UnixAbstract(name));
        assert_eq!(unix(&[1, 0, 0]), Address::UnixAbstract(Vec::new()));
        assert_eq!(unix(&[1, 0]), Address::UnixUnnamed);
        assert_eq!(unix(&[]), Address::UnixUnnamed);
    }

    #[test]
    fn there_and_back() -> io::Result<()> {
        let v4: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        let v6 = SocketAddrV6::new("fe80::1".parse().expect("an address"), 443, 7, 3);
        let mut addresses =
            vec![v4.into(), Address::V6(v6), Address::UnixPath(b"/a/path".to_vec())];
        if HAS_ABSTRACT_NAMES {
            addresses.push(Address::UnixAbstract(b"a name".to_vec()));
        }
        for address in addresses {
            assert_eq!(from_kernel(&to_kernel(&address)?), address);
        }
        let nowhere = to_kernel(&Address::UnixUnnamed).expect_err("it has no name");
        assert_eq!(nowhere.raw_os_error(), Some(libc::EAFNOSUPPORT));
        let long = to_kernel(&Address::UnixPath(vec![b'x'; 200])).expect_err("it is too long");
        assert_eq!(long.raw_os_error(), Some(libc::ENAMETOOLONG));
        Ok(())
    }
}
