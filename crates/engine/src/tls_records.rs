//! Where a TLS record ends (RFC 8446, section 5.1): five bytes of header, then as many as the header says.
//!
//! To ask a TLS library for data when there is no whole record is to ask for an error, and one that becomes an
//! exception costs more than decrypting a small message. So the boundaries are followed here.

/// The length of a record's header.
const HEADER: usize = 5;

/// No record is longer: 2^14 bytes and what encryption adds (2048 at most, RFC 5246, section 6.2.3).
const LONGEST: usize = (1 << 14) + 2048;

/// Follows a stream of records.
#[derive(Clone, Copy, Default, Debug)]
pub struct Records {
    header: [u8; HEADER],
    /// How much of the header has come.
    known: usize,
    /// How much of the record is still to come, once its header has.
    missing: usize,
    /// How much has come of the last record, if that is not complete.
    partial: usize,
    /// What came is no record: nothing is known of boundaries any more.
    lost: bool,
}

impl Records {
    /// `data` has come.
    pub fn see(&mut self, mut data: &[u8]) {
        while !self.lost
            && let Some((first, rest)) = data.split_first()
        {
            if self.known == HEADER {
                let count = self.missing.min(data.len());
                self.missing -= count;
                self.partial += count;
                data = &data[count..];
            } else {
                self.header[self.known] = *first;
                self.known += 1;
                self.partial += 1;
                data = rest;
                self.read_header();
            }
            if self.known == HEADER && self.missing == 0 {
                self.known = 0;
                self.partial = 0;
            }
        }
    }

    fn read_header(&mut self) {
        if self.known < HEADER {
            return;
        }
        let [kind, major, _, high, low] = self.header;
        self.missing = usize::from(u16::from_be_bytes([high, low]));
        // From change_cipher_spec to heartbeat.
        if !(20..=24).contains(&kind) || major != 3 || self.missing > LONGEST {
            self.lost = true;
            self.partial = 0;
        }
    }

    /// Whether there is a whole record in the last `pending` bytes of what has come, or may be.
    pub const fn any_in(&self, pending: usize) -> bool {
        pending > self.partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: [u8; 8] = [23, 3, 3, 0, 3, 1, 2, 3];

    #[test]
    fn records_are_found_however_they_are_cut() {
        let stream = [RECORD, RECORD].concat();
        for first in 0..=stream.len() {
            let mut records = Records::default();
            records.see(&stream[..first]);
            let whole = first / RECORD.len();
            assert_eq!(records.any_in(first), whole > 0, "{first}");
            // What is left of an incomplete one is none.
            assert!(!records.any_in(first % RECORD.len()));
            records.see(&stream[first..]);
            assert!(records.any_in(1));
        }
    }

    #[test]
    fn an_empty_record_is_one() {
        let mut records = Records::default();
        records.see(&[22, 3, 1, 0]);
        assert!(!records.any_in(4));
        records.see(&[0]);
        assert!(records.any_in(5));
    }

    #[test]
    fn of_anything_else_nothing_is_known() {
        for header in [*b"GET /", [23, 2, 3, 0, 1], [23, 3, 3, 255, 255], [128, 3, 1, 0, 1]] {
            let mut records = Records::default();
            records.see(&header);
            assert!(records.any_in(1));
            records.see(&RECORD);
            assert!(records.any_in(1));
            assert!(!records.any_in(0));
        }
    }
}
