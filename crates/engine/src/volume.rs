//! How much comes at a time, and what is the best way to receive as much.
//!
//! Little is received by the proactor where there is one; more is received when the descriptor is readable, into the
//! loop's buffer, and copied; and a lot into the object that the protocol gets. What surprised us:
//!
//! * How the first data of a connection is received has its price for as long as it lives: a proactor that receives 64 KiB
//!   before it is known how much comes leaves TCP with a larger window (`tcp_rcv_space_adjust` in the kernel), and then
//!   each recv(2) sends an acknowledgement that would else have gone when the data arrived: 16.6 instead of 14.9 µs a message.
//! * malloc(3) maps new memory for everything from 128 KiB on (`M_MMAP_THRESHOLD`, mallopt(3)), and learns better only from
//!   what is freed in that size. An object that is made for 256 KiB and cut to the 64 KiB that came is never freed in
//!   it: so each message costs mmap, mremap and munmap, and the pages are cleared anew, three times the price of the
//!   message itself.

/// How many bytes at a time are so many that they are better received when the descriptor is readable than by a
/// proactor: they are in the processor's cache then when they are used, and that is worth more than a system call.
pub const MUCH: usize = 4096;
/// How many bytes are received at most at a time.
pub const MOST: usize = 256 * 1024;
/// From this many bytes at a time on, the next call receives into an object of its own: less is cheaper to copy
/// than to allocate for.
const LARGE: usize = 64 * 1024;
/// What such an object has room for unless more has come: just less than what malloc(3) maps for itself.
const ROOM: usize = 120 * 1024;
/// After so many times of less than [`MUCH`] a proactor receives for us again.
const FEW: u8 = 16;

/// How much is expected at a time.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Nobody knows: nothing has come yet. As of much, a loop that could receive had better tell of readiness.
    #[default]
    Unknown,
    /// Less than [`MUCH`]: a loop that can receive does.
    Little,
    /// A loop that could receive had better tell of readiness.
    Much,
}

/// How much came of late.
#[derive(Copy, Clone, Default, Debug)]
pub struct Volume {
    /// How many bytes the last time brought.
    last: usize,
    expected: Expected,
    /// How often in succession less than [`MUCH`] came.
    few: u8,
}

impl Volume {
    /// Notes how many bytes came; whether something else is [`expected`](Self::expected) now.
    #[inline]
    pub fn note(&mut self, count: usize) -> bool {
        let before = self.expected;
        self.last = count;
        if count >= MUCH {
            (self.expected, self.few) = (Expected::Much, 0);
        } else {
            self.few = self.few.saturating_add(1);
            if before != Expected::Much || self.few >= FEW {
                self.expected = Expected::Little;
            }
        }
        before != self.expected
    }

    /// How much is expected the next time.
    #[inline]
    pub const fn expected(self) -> Expected {
        self.expected
    }

    /// How many bytes an object should have room for that is made before it is known how many come; `None` where
    /// it is better to make it afterwards.
    #[inline]
    pub const fn room(self) -> Option<usize> {
        match self.last {
            0..LARGE => None,
            LARGE..ROOM => Some(ROOM),
            _ => Some(MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_what_came() {
        let mut volume = Volume::default();
        for (count, room) in [
            (0, None),
            (LARGE - 1, None),
            (LARGE, Some(ROOM)),
            (ROOM, Some(MOST)),
            (MOST, Some(MOST)),
            (LARGE, Some(ROOM)),
            (1, None),
        ] {
            volume.note(count);
            assert_eq!(volume.room(), room, "{count}");
        }
    }

    #[test]
    fn nothing_is_known_before_something_has_come() {
        for (count, expected) in [(1, Expected::Little), (MUCH, Expected::Much)] {
            let mut volume = Volume::default();
            assert_eq!(volume.expected(), Expected::Unknown);
            assert!(volume.note(count));
            assert_eq!(volume.expected(), expected);
        }
    }

    #[test]
    fn much_is_expected_for_a_while() {
        let mut volume = Volume::default();
        assert!(volume.note(MUCH - 1) && !volume.note(MUCH - 1));
        assert!(volume.note(MUCH) && !volume.note(MUCH));
        for _ in 1..FEW {
            assert!(!volume.note(1));
            assert_eq!(volume.expected(), Expected::Much);
        }
        assert!(volume.note(1));
        assert_eq!(volume.expected(), Expected::Little);
    }
}
