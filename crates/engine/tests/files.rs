//! Regular files: their size, where they are read, and what of them a socket takes.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};

use oxloop_engine::sys::fd::{AsFd, of_file};
use oxloop_engine::sys::file::{send, set_position, size};
use oxloop_engine::sys::pipe::pipe;
use oxloop_engine::sys::socket;

/// A file of `count` bytes, gone when it is closed.
fn file(name: &str, count: usize) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("oxloop-{}-{name}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    let data: Vec<u8> = (0..count).map(|index| index.to_le_bytes()[0]).collect();
    file.write_all(&data)?;
    Ok(file)
}

#[test]
fn parts_of_a_file() -> io::Result<()> {
    let mut file = file("parts", 300)?;
    assert_eq!(size(of_file(&file))?, 300);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let left = TcpStream::connect(listener.local_addr()?)?;
    let (mut right, _) = listener.accept()?;
    assert_eq!(send(left.as_fd(), of_file(&file), 250, 10)?, 10);
    assert_eq!(send(left.as_fd(), of_file(&file), 295, 10)?, 5);
    assert_eq!(send(left.as_fd(), of_file(&file), 300, 10)?, 0);
    assert_eq!(send(left.as_fd(), of_file(&file), 1000, 10)?, 0);
    assert_eq!(file.stream_position()?, 300, "sending leaves it alone");
    set_position(of_file(&file), 7)?;
    assert_eq!(file.stream_position()?, 7);
    drop(left);
    let mut received = Vec::new();
    right.read_to_end(&mut received)?;
    assert_eq!(received, [250, 251, 252, 253, 254, 255, 0, 1, 2, 3, 39, 40, 41, 42, 43]);
    Ok(())
}

#[test]
fn a_socket_without_room() -> io::Result<()> {
    let file = file("room", 1 << 20)?;
    let (left, _right) = socket::pair()?;
    let error = loop {
        match send(left.as_fd(), of_file(&file), 0, 1 << 20) {
            Ok(0) => panic!("that is not the end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    Ok(())
}

#[test]
fn what_is_no_regular_file() -> io::Result<()> {
    let (reader, _writer) = pipe()?;
    assert_eq!(size(reader.as_fd())?, 0);
    assert!(set_position(reader.as_fd(), 0).is_err());
    let (left, _right) = socket::pair()?;
    assert!(send(left.as_fd(), reader.as_fd(), 0, 10).is_err());
    Ok(())
}
