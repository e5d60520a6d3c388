//! Looking without a ring.
//!
//! A loop that has a few callbacks to run and then ends, as `asyncio.run` of something short is,
//! never sleeps, and has little to look at: the descriptor by which other threads wake it. To make
//! a ring for it would cost twenty times what poll(2) does, and to hand the ring's operations out
//! and take them back five times. So the first looks after a suspension are poll(2)'s, until a wait
//! sleeps, or something else than polls is to be done, or the run turns out to be a long one: a
//! look at a ring with nothing to submit needs no system call at all.
#![allow(unsafe_code)] // poll(2)

use super::super::{Completion, Completions, Lent, LentMut};
use super::Uring;
use super::in_flight::{Work, poll_bits, readiness};

/// After so many looks the run is a long one.
const MOST_PEEKS: u8 = 8;
/// How many descriptors are looked at, at most.
const MOST_POLLS: usize = 8;

impl<B: Lent, M: LentMut> Uring<B, M> {
    /// Reports the polls that are ready, if there is nothing else to do; whether that is so.
    #[cold]
    pub(super) fn peek(&mut self, completions: &mut Completions<B, M>) -> bool {
        let starving = !self.starved.is_empty() || !self.sated.is_empty();
        let little = self.resting.len() <= MOST_POLLS && !starving;
        if self.peeks >= MOST_PEEKS || !little {
            return false;
        }
        let mut polls = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MOST_POLLS];
        for (token, poll) in self.resting.iter().zip(&mut polls) {
            let Some(in_flight) = self.in_flight.get(*token) else { continue };
            let Work::Poll { fd, interest } = in_flight.work else { return false };
            if !interest.is_empty() && !in_flight.paused {
                // A number below zero, which poll(2) would skip, is an error for the ring to tell.
                if fd < 0 {
                    return false;
                }
                (poll.fd, poll.events) = (fd, poll_bits(interest));
            }
        }
        if !self.resting.is_empty() {
            let count = self.resting.len() as libc::nfds_t;
            // SAFETY: as many entries are there; the call does not sleep.
            let ready = unsafe { libc::poll(polls.as_mut_ptr(), count, 0) };
            let bad = polls.iter().any(|poll| poll.revents & libc::POLLNVAL != 0);
            if ready < 0 || bad {
                return false;
            }
        }
        self.peeks += 1;
        for (token, poll) in self.resting.iter().zip(&polls) {
            let Some(in_flight) = self.in_flight.get(*token) else { continue };
            let Work::Poll { interest, .. } = in_flight.work else { continue };
            let readiness = readiness(poll.revents.into(), interest);
            if poll.revents != 0 {
                completions.list.push(Completion::ready(*token, in_flight.owner, readiness));
            }
        }
        true
    }
}
