//! How the system numbers its errors.

/// Whether the number of an error is one of Windows, and not an errno.
pub const IS_WINERROR: bool = false;
