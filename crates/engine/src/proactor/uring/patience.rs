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
    /// Those that were told of, and were not seen to be unready since: all that are marked as
    /// [`told`](super::in_flight::InFlight::told), and some that are gone.
    told: Vec<Token>,
    /// How many waits in a row have not asked.
    missed: u8,
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
        if poll.resting {
            if !self.resting.contains(&token) {
                self.resting.push(token);
            }
        } else if !mem::replace(&mut poll.told, true) {
            self.patience.told.push(token);
        }
        self.hurry();
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
        } else if mem::replace(&mut poll.told, true) {
            // The owner may have read it by now, and would wait for it if the descriptor blocks.
            self.hurry();
        } else {
            self.patience.told.push(token);
            let readiness = readiness(bits, interest);
            completions.list.push(Completion::ready(token, poll.owner, readiness));
            self.patience.hurried |= is_last(bits);
        }
        if !more {
            self.rest(token, completions);
        }
    }

    /// Reports patient polls that are still ready, if it is time to ask. Whether the wait may not sleep now: there are some,
    /// or what has come is to be looked at first.
    #[inline]
    pub(super) fn ask_again(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Completions<B, M>,
    ) -> bool {
        if self.patience.told.is_empty() {
            return false;
        }
        let sleeps = timeout != Some(Duration::ZERO);
        let looks = sleeps && self.ring.has_work();
        let patience = &mut self.patience;
        if mem::take(&mut patience.hurried) || patience.missed == MOST_MISSED || sleeps && !looks {
            patience.missed = 0;
            return self.ask(completions);
        }
        patience.missed += 1;
        looks
    }

    fn ask(&mut self, completions: &mut Completions<B, M>) -> bool {
        let Self { patience, in_flight, unwanted, .. } = self;
        let Patience { told, hurried, polls, .. } = patience;
        polls.clear();
        told.retain(|token| {
            let Some(poll) = in_flight.get_mut(*token) else { return false };
            // Of what is submitted again the kernel tells.
            poll.told = !(poll.resting || poll.paused || poll.cancelled);
            if let Work::Poll { fd, interest } = poll.work
                && poll.told
            {
                let events = poll_bits(interest) | libc::POLLRDHUP;
                polls.push(libc::pollfd { fd, events, revents: 0 });
            }
            poll.told
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
            let bits = i32::from(polls.next().map_or(0, |poll| poll.revents & !libc::POLLNVAL));
            let Some(poll) = in_flight.get_mut(*token) else { return false };
            poll.told = bits != 0;
            if let Work::Poll { interest, .. } = poll.work
                && poll.told
            {
                let readiness = readiness(bits, interest);
                completions.list.push(Completion::ready(*token, poll.owner, readiness));
                *hurried |= is_last(bits);
            }
            poll.told
        });
        completions.list.len() > before
    }
}

/// Whether nothing comes after what there is to read: the end, or an error, of which no change will tell.
const fn is_last(bits: i32) -> bool {
    bits & !(libc::POLLIN as i32) != 0
}
