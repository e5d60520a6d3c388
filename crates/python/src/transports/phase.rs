//! How far a transport has come.

/// The phases of a transport's life, of which it only ever leaves one for a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// Nothing is read any more; what was written goes out. Begun by `close`, `abort` and every fatal error.
    Closing,
    /// `connection_lost` is queued, or was called.
    Lost,
}

impl Phase {
    /// Whether the transport is closing, or has gone further.
    #[inline]
    pub(super) fn is_closing(self) -> bool {
        self >= Self::Closing
    }

    #[inline]
    pub(super) fn is_lost(self) -> bool {
        self == Self::Lost
    }

    /// Begins to close; false if that had begun before.
    pub(super) fn close(&mut self) -> bool {
        let is_new = *self == Self::Open;
        *self = (*self).max(Self::Closing);
        is_new
    }

    /// Loses the connection; false if it was lost before.
    pub(super) fn lose(&mut self) -> bool {
        std::mem::replace(self, Self::Lost) != Self::Lost
    }
}
