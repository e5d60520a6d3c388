//! How operations come back from the kernel before they have ended by themselves: one of them, all
//! for a while, all for good.
//!
//! What surprised us: the completion of an operation that was cancelled is queued when its file has
//! been let go, but not by the call that cancels: by the one that takes completions. So one call
//! does both, and waits for as many completions as there are operations to come back. And to cancel
//! everything by one entry (`IORING_ASYNC_CANCEL_ANY`) takes time that grows with the square of
//! what there is: 6 ms for a thousand operations. By their names it is one.

use std::io;
use std::mem;
use std::time::Duration;

use super::super::completion::hand_back;
use super::super::{Completion, Completions, Lent, LentMut, Returned};
use super::Uring;
use crate::Token;

/// How long to wait until the kernel is asked once more to cancel.
const CANCEL_AGAIN: Duration = Duration::from_millis(10);
/// So many names of operations that have ended may lie about.
const DEAD: usize = 64;

impl<B: Lent, M: LentMut> Uring<B, M> {
    pub(in super::super) fn withdraw(&mut self, token: Token) -> Option<Completion<B, M>> {
        if self.process.is_other() {
            self.forget();
        }
        if self.in_flight.get(token)?.resting {
            return self.end_resting(token);
        }
        self.cancel(token);
        if self.ring.refuses() {
            return None;
        }
        let mut completions = Completions { list: mem::take(&mut self.early) };
        self.collect(&mut completions);
        while self.is_lent(token) {
            if !self.unwanted.contains(&token) {
                self.unwanted.push(token);
            }
            // What cannot be asked now is asked the next time round.
            let _ = self.ask_to_cancel(usize::MAX);
            if self.ring.settle(1, CANCEL_AGAIN).is_err() {
                break;
            }
            self.collect(&mut completions);
        }
        self.early = completions.list;
        // The next wait asks whether they are ready then: once, as any does.
        self.early.retain(|early| !matches!(early.returned, Returned::Readiness(_)));
        self.hurry();
        hand_back(&mut self.early, token)
    }

    /// Ends an operation that is not the kernel's.
    fn end_resting(&mut self, token: Token) -> Option<Completion<B, M>> {
        // Where it had been cancelled before. Any other list may have names of the dead in it.
        self.ended.retain(|(ended, _)| *ended != token);
        if self.resting.last() == Some(&token) {
            self.resting.pop();
        }
        let mut completions = Completions { list: mem::take(&mut self.early) };
        self.finish(token, -libc::ECANCELED, &mut completions);
        self.early = completions.list;
        // A loop that does not run may watch, and cease to watch, as often as it likes.
        if self.resting.len() > 2 * self.in_flight.len() + DEAD {
            self.resting.retain(|token| self.in_flight.get(*token).is_some());
        }
        hand_back(&mut self.early, token)
    }

    pub(in super::super) fn suspend(
        &mut self,
        completions: &mut Completions<B, M>,
    ) -> io::Result<()> {
        self.clear(completions);
        self.catch_up(completions);
        self.begin()?;
        let reclaimed = self.reclaim(completions);
        // As in `withdraw`.
        completions.list.retain(|seen| !matches!(seen.returned, Returned::Readiness(_)));
        self.hurry();
        reclaimed?;
        (self.suspended, self.peeks) = (true, 0);
        Ok(())
    }

    pub(in super::super) fn close(mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        self.clear(completions);
        self.end(completions)
    }

    /// In a child of the process that made the ring: nothing is the kernel's here, as it works for
    /// the parent.
    #[cold]
    pub(super) fn forget(&mut self) {
        let tokens: Vec<_> = self.in_flight.iter().map(|(token, _)| token).collect();
        for token in tokens {
            let Some(operation) = self.in_flight.get_mut(token) else { continue };
            if mem::replace(&mut operation.resting, true) {
                continue;
            }
            if operation.goes_on() && !operation.cancelled {
                self.resting.push(token);
            } else {
                self.ended.push((token, libc::ECANCELED));
            }
        }
        self.lent = 0;
        self.unwanted.clear();
        self.suspended = true;
    }

    fn is_lent(&self, token: Token) -> bool {
        self.in_flight.get(token).is_some_and(|operation| !operation.resting)
    }

    /// Hands what is done once to the kernel: it was submitted before the end of the run.
    fn begin(&mut self) -> io::Result<()> {
        let mut once = Vec::new();
        self.resting.retain(|token| match self.in_flight.get(*token) {
            Some(operation) if operation.goes_on() => true,
            Some(_) => {
                once.push(*token);
                false
            }
            None => false,
        });
        if once.is_empty() {
            return Ok(());
        }
        let result = self.claim();
        if result.is_ok() {
            // What does not fit begins with the next wait.
            let _ = self.start(&mut once, usize::MAX);
        }
        self.resting.append(&mut once);
        result
    }

    /// Takes back everything that is the kernel's. What goes on rests then, unless it was
    /// cancelled.
    fn reclaim(&mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        if self.lent > 0 {
            if self.ring.refuses() {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            self.collect(completions);
        }
        let before = self.resting.len();
        self.unwanted.clear();
        while self.lent > 0 {
            if self.unwanted.is_empty() {
                let lent = self.in_flight.iter().filter(|(_, operation)| !operation.resting);
                self.unwanted.extend(lent.map(|(token, _)| token));
            }
            // The newest first, and no more at once: the kernel looks for each among those that are
            // cancelled and not collected yet.
            let most = self.unwanted.len().min(self.config.entries as usize);
            // What finds no place is asked the next time round.
            let _ = self.ask_to_cancel(most);
            self.ring.settle(most, CANCEL_AGAIN)?;
            self.collect(completions);
        }
        // They will be submitted in their old order.
        self.resting[before..].reverse();
        self.unwanted.clear();
        self.finish_ended(completions);
        Ok(())
    }

    /// Cancels everything and waits until the kernel has no buffer of ours.
    fn end(&mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        self.catch_up(completions);
        let tokens: Vec<_> = self.in_flight.iter().map(|(token, _)| token).collect();
        for token in tokens {
            self.cancel(token);
        }
        self.finish_ended(completions);
        self.reclaim(completions)
    }
}

impl<B: Lent, M: LentMut> Drop for Uring<B, M> {
    fn drop(&mut self) {
        let mut completions = Completions::new();
        if self.end(&mut completions).is_err() {
            self.buffers.leak();
            mem::forget(mem::take(&mut self.in_flight));
        }
        drop(completions);
    }
}
