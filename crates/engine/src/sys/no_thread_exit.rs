//! Where a thread that is ended from elsewhere is gone at once, and nothing of ours runs: all systems but those with glibc.

/// As long as it lives, this thread may be ended.
pub struct Stay;

impl Stay {
    /// For the calling thread.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Default for Stay {
    fn default() -> Self {
        Self::new()
    }
}
