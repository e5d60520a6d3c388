//! How operations come back from the kernel before they have ended by themselves: one of them, or all
//! for good.
//!
//! What surprised us: nothing has to come back for a thread to end, or for another one to wait. What is
//! under way by a port belongs to no thread, and closing a descriptor closes it for its peer,
//! whatever is under way. So `suspend` only looks at what has ended.

use std::io;
use std::mem;
use std::time::Duration;

use super::super::completion::hand_back;
use super::super::{Completion, Completions, Lent, LentMut, Returned};
use super::Iocp;
use super::in_flight::InFlight;
use crate::Token;
use crate::sys::os_error;

/// How long to wait until the kernel is asked once more to cancel.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);
/// So many names of operations that have ended may lie about.
const DEAD: usize = 64;

impl<B: Lent, M: LentMut> Iocp<B, M> {
    pub(in super::super) fn withdraw(&mut self, token: Token) -> Option<Completion<B, M>> {
        self.in_flight.get(token)?;
        self.cancel(token);
        let mut completions = Completions { list: mem::take(&mut self.early) };
        let mut woken = false;
        while self.is_lent(token) {
            match self.gather(&mut completions, Some(CANCEL_AGAIN)) {
                Ok(now) => woken |= now,
                Err(_) => break,
            }
            if let Some(operation) = self.in_flight.get_mut(token).filter(|one| !one.resting) {
                operation.ask_to_cancel();
            }
        }
        if !self.is_lent(token) {
            self.end_resting(token, &mut completions);
        }
        self.early = completions.list;
        self.wake_again(woken);
        // Those polls rest, and the next wait asks whether they are ready then: once, as any does.
        self.early.retain(|early| !matches!(early.returned, Returned::Readiness(_)));
        hand_back(&mut self.early, token)
    }

    /// Ends an operation that is not the kernel's, if it has not ended yet.
    fn end_resting(&mut self, token: Token, completions: &mut Completions<B, M>) {
        // Any other list may have names of the dead in it.
        self.cancelled.retain(|cancelled| *cancelled != token);
        if self.resting.last() == Some(&token) {
            self.resting.pop();
        }
        self.finish(token, Err(os_error::ECANCELED), completions);
        // A loop that does not run may watch, and cease to watch, as often as it likes.
        if self.resting.len() > 2 * self.in_flight.len() + DEAD {
            self.resting.retain(|token| self.in_flight.get(*token).is_some());
        }
    }

    pub(in super::super) fn suspend(
        &mut self,
        completions: &mut Completions<B, M>,
    ) -> io::Result<()> {
        self.clear(completions);
        completions.list.append(&mut self.early);
        self.finish_cancelled(completions);
        self.start_once(completions);
        let woken = self.gather(completions, Some(Duration::ZERO))?;
        self.wake_again(woken);
        // As in `withdraw`.
        completions.list.retain(|seen| !matches!(seen.returned, Returned::Readiness(_)));
        self.suspended = true;
        for token in mem::take(&mut self.resting) {
            if !self.guard(token) {
                self.resting.push(token);
            }
        }
        Ok(())
    }

    /// Guards an operation that goes on and rests: its socket may be closed, and the number be another one's, before
    /// somebody waits. Whether it is guarded, and rests no longer.
    pub(super) fn guard(&mut self, token: Token) -> bool {
        let Some(operation) = self.in_flight.get_mut(token) else { return false };
        if operation.guarded {
            return true;
        }
        if operation.cancelled || !operation.resting || !operation.operation.goes_on() {
            return false;
        }
        let guarded = operation.guard(&mut self.kernel, token);
        if guarded {
            self.lend(token);
        }
        guarded
    }

    /// Has what is guarded rest again, to be started, and ends what has lost its descriptor.
    #[cold]
    pub(super) fn resume(&mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        let guarded = |(token, one): (Token, &InFlight<B, M>)| one.guarded.then_some(token);
        let tokens: Vec<_> = self.in_flight.iter().filter_map(guarded).collect();
        let mut woken = false;
        for token in tokens {
            while let Some(operation) = self.in_flight.get_mut(token).filter(|one| one.guarded) {
                operation.ask_to_cancel();
                woken |= self.gather(completions, Some(CANCEL_AGAIN))?;
            }
        }
        self.suspended = false;
        self.wake_again(woken);
        Ok(())
    }

    pub(in super::super) fn close(mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        self.clear(completions);
        self.end(completions)
    }

    /// Ends the next wait, for which a wake-up was meant that has come in another call.
    fn wake_again(&self, woken: bool) {
        if woken {
            self.kernel.port.wake();
        }
    }

    fn is_lent(&self, token: Token) -> bool {
        self.in_flight.get(token).is_some_and(|operation| !operation.resting)
    }

    /// Starts what is done once: it was submitted before the end of the run.
    fn start_once(&mut self, completions: &mut Completions<B, M>) {
        let all = mem::take(&mut self.resting);
        let goes_on = |one: &InFlight<B, M>| one.operation.goes_on();
        let goes_on = |token: &Token| self.in_flight.get(*token).is_some_and(goes_on);
        let (rests, once): (Vec<_>, Vec<_>) = all.into_iter().partition(goes_on);
        self.resting = rests;
        for token in once {
            self.start_one(token, completions);
        }
    }

    /// Cancels everything and waits until the kernel has no buffer of ours.
    fn end(&mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        completions.list.append(&mut self.early);
        let tokens: Vec<_> = self.in_flight.iter().map(|(token, _)| token).collect();
        for token in &tokens {
            self.cancel(*token);
        }
        self.finish_cancelled(completions);
        while !self.lent.is_empty() {
            self.gather(completions, Some(CANCEL_AGAIN))?;
            for token in &tokens {
                if let Some(operation) = self.in_flight.get_mut(*token).filter(|one| !one.resting) {
                    operation.ask_to_cancel();
                }
            }
        }
        self.finish_cancelled(completions);
        Ok(())
    }
}

impl<B: Lent, M: LentMut> Drop for Iocp<B, M> {
    fn drop(&mut self) {
        let mut completions = Completions::new();
        if self.end(&mut completions).is_err() {
            mem::forget(mem::take(&mut self.buffers));
            mem::forget(mem::take(&mut self.in_flight));
        }
        drop(completions);
    }
}
