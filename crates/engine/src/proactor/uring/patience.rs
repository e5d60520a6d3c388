//! Polls whose owners read all there is, or else say that they have not.
//!
//! They go on by themselves: the kernel tells of changes, of what comes after the owner has read, that is. Whether something
//! was left after all (a stream of Unix sockets is read up to the next message with descriptors, one of TCP up to urgent data,
//! and the end of what the peer sends may have come with data) is asked by poll(2), of all that were told since, in one call:
//! before a wait that sleeps, when an owner or the kernel has said so, and now and then. To submit each again for that, as
//! other polls are, costs four times as much.
#![allow(unsafe_code)] // poll(2)

use std::mem;
use std::time::Duration;

use super::super::{Completion, Completions, Lent, LentMut};
use super::Uring;
use super::in_flight::{Work, poll_bits, readiness};
use crate::Token;

/// So many waits in a row, of those that do not sleep, may go by without asking.
const MOST_MISSED: u8 = 7;

/// The patient polls that may be ready although no change will tell.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Those that were told of, and were not seen to be unready since: all that have a number in
    /// [`told_by`](super::in_flight::InFlight::told_by), and some that are the kernel's no longer.
    told: Vec<Token>,
    /// The number of this wait, of which only those that are not long ago are compared.
    wait: u8,
    /// The last wait that asked.
    asked: u8,
    /// Whether the next wait is to ask in any case.
    hurried: bool,
    /// What poll(2) is asked with: here, because it is needed time and again.
    polls: Vec<libc::pollfd>,
}

impl<B: Lent, M: LentMut> Uring<B, M> {
    pub(in super::super) fn set_patient(&mut self, token: Token) {
        if let Some(poll) = self.in_flight.get_mut(token) {
            poll.patient = true;
        }
    }

    pub(in super::super) const fn hurry(&mut self) {
        self.patience.hurried = true;
    }

    pub(in super::super) fn pause_poll(&mut self, token: Token) -> bool {
        let Some(poll) = self.in_flight.get_mut(token).filter(|poll| poll.patient) else {
            return false;
        };
        poll.paused = true;
        true
    }

    pub(in super::super) fn resume_poll(&mut self, token: Token) {
        let Some(poll) = self.in_flight.get_mut(token) else { return };
        if !mem::take(&mut poll.paused) {
            return;
        }
        if !poll.resting {
            if poll.told_by.replace(self.patience.wait).is_none() {
                self.patience.told.push(token);
            }
            self.hurry();
        } else if !self.resting.contains(&token) {
            self.resting.push(token);
        }
    }

    /// A patient poll has seen a change: the `bits` of poll(2).
    pub(super) fn changed(
        &mut self,
        token: Token,
        bits: i32,
        more: bool,
        completions: &mut Completions<B, M>,
    ) {
        let Some(poll) = self.in_flight.get_mut(token) else { return };
        let Work::Poll { interest, .. } = poll.work else { return };
        if poll.paused {
            // Each further change would end a sleep for nothing.
            if more {
                self.unwanted.push(token);
            }
        } else {
            let wait = self.patience.wait;
            let told_by = poll.told_by.replace(wait);
            if told_by.is_none() {
                self.patience.told.push(token);
            }
            if told_by != Some(wait) {
                let readiness = readiness(bits, interest);
                completions.list.push(Completion::ready(token, poll.owner, readiness));
            }
            if bits & !i32::from(libc::POLLIN) != 0 {
                // What comes after the data has come: no change will tell.
                self.hurry();
            }
        }
        if !more {
            self.rest(token, completions);
        }
    }

    /// Reports patient polls that are still ready, if it is time to ask; whether there are any.
    #[inline]
    pub(super) fn ask_again(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Completions<B, M>,
    ) -> bool {
        if self.patience.told.is_empty() {
            return false;
        }
        let patience = &mut self.patience;
        patience.wait = patience.wait.wrapping_add(1);
        let is_due = patience.wait.wrapping_sub(patience.asked) > MOST_MISSED;
        let asks = mem::take(&mut patience.hurried) || is_due;
        let asks = asks || timeout != Some(Duration::ZERO) && !self.ring.has_work();
        asks && self.ask(completions)
    }

    fn ask(&mut self, completions: &mut Completions<B, M>) -> bool {
        let Self { patience, in_flight, unwanted, .. } = self;
        let Patience { told, wait, asked, polls, .. } = patience;
        *asked = *wait;
        polls.clear();
        told.retain(|token| {
            let Some(poll) = in_flight.get_mut(*token) else { return false };
            let Work::Poll { fd, interest } = poll.work else { return false };
            // Of what is submitted again the kernel tells.
            if poll.resting || poll.paused || poll.cancelled {
                poll.told_by = None;
                return false;
            }
            polls.push(libc::pollfd { fd, events: poll_bits(interest), revents: 0 });
            true
        });
        if polls.is_empty() {
            return false;
        }
        // SAFETY: as many entries are there; the call does not sleep.
        let count = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 0) };
        if count < 0 {
            // There are more of them than RLIMIT_NOFILE is now, or no memory: those are submitted again.
            unwanted.extend_from_slice(told);
        }
        let before = completions.list.len();
        let mut polls = polls.iter();
        told.retain(|token| {
            let bits = polls.next().map_or(0, |poll| poll.revents) & !libc::POLLNVAL;
            let Some(poll) = in_flight.get_mut(*token) else { return false };
            let Work::Poll { interest, .. } = poll.work else { return false };
            poll.told_by = (bits != 0).then_some(*wait);
            if bits != 0 {
                let readiness = readiness(bits.into(), interest);
                completions.list.push(Completion::ready(*token, poll.owner, readiness));
            }
            bits != 0
        });
        completions.list.len() > before
    }
}
