//! Kinds of files.

/// What kind of file a descriptor is open on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    /// A pipe or a FIFO.
    Fifo,
    /// A FIFO that has a name, of macOS: what is in it can be read at its writing end, and that its reader has
    /// gone is told there by nothing but a write (asyncio's gh-145030).
    NamedFifo,
    /// A socket.
    Socket,
    /// A terminal, a console, or another character device.
    CharacterDevice,
    /// A regular file, a directory, a block device.
    Other,
}
