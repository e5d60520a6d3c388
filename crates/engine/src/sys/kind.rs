//! Kinds of files.

/// What kind of file a descriptor is open on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    /// A pipe or a FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A terminal, a console, or another character device.
    CharacterDevice,
    /// A regular file, a directory, a block device.
    Other,
}
