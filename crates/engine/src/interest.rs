//! What is waited for on a file descriptor, and what it turned out to be ready for.
//!
//! The bits are those of Python's `selectors.EVENT_READ` and `selectors.EVENT_WRITE`.

/// A set of directions: reading, writing, both or neither.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct Interest(u8);

impl Interest {
    /// Neither direction.
    pub const NONE: Self = Self(0);
    /// Reading, which includes accepting.
    pub const READABLE: Self = Self(1);
    /// Writing, which includes the end of connecting.
    pub const WRITABLE: Self = Self(2);
    /// Both directions.
    pub const BOTH: Self = Self(3);

    /// The set whose bits are those of `selectors.EVENT_READ | selectors.EVENT_WRITE`; other bits
    /// are ignored.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 3)
    }

    /// The bits of `selectors.EVENT_READ` (1) and `selectors.EVENT_WRITE` (2).
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every direction of `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self` and `other` together.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` less the directions of `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The directions that are in both.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is no direction in the set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether reading is in the set.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READABLE)
    }

    /// Whether writing is in the set.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::Interest;

    #[test]
    fn algebra() {
        assert_eq!(Interest::READABLE.with(Interest::WRITABLE), Interest::BOTH);
        assert_eq!(Interest::BOTH.without(Interest::READABLE), Interest::WRITABLE);
        assert_eq!(Interest::BOTH.and(Interest::READABLE), Interest::READABLE);
        assert!(Interest::BOTH.contains(Interest::READABLE));
        assert!(!Interest::READABLE.contains(Interest::BOTH));
        assert!(Interest::NONE.is_empty() && !Interest::WRITABLE.is_empty());
        assert_eq!(Interest::from_bits(0xfe), Interest::WRITABLE);
        assert_eq!(Interest::BOTH.bits(), 3);
    }
}
