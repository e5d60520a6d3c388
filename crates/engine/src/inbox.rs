//! The one door through which other threads reach a loop: a queue and one coalesced wake-up.
//!
//! A wake-up is a system call, so a push makes one only while the loop sleeps, and of all the
//! pushes during one sleep only the first. What surprised us: the wake-up itself may arrive after
//! the sleep that it was meant for (the pushing thread may be descheduled between claiming it and
//! making it). That is one needless turn of the loop and nothing worse.
//!
//! # Why no wake-up is lost
//!
//! There are two flags. `pending` is set by a push after its payload is in the queue, and cleared
//! by the loop, both under the queue's lock, so that `pending` is true exactly while the queue is
//! not empty, except inside the lock. `sleeping` is set by the loop in `prepare_sleep` and cleared
//! by `finish_sleep` or by the push that claims the wake-up.
//!
//! * A push *stores* `pending`, then *loads* `sleeping`.
//! * `prepare_sleep` *stores* `sleeping`, then *loads* `pending`.
//!
//! All four are `SeqCst`, so they have one order that all threads agree on. If the push loaded
//! `sleeping == false`, its load came before the loop's store, hence its store of `pending` came
//! before the loop's load of it, and the loop, seeing it, does not sleep. (Unless the loop has
//! cleared `pending` in between, but then it has drained the payload.) If the push loaded
//! `sleeping == true`, it tries to swap it to false. Either it succeeds and wakes the loop, or
//! somebody else has: another push, which then makes the wake-up, or the loop in `finish_sleep`,
//! which is awake and looks at `pending` again before it next sleeps. The wake-up is level
//! triggered: it ends a wait that begins after it, too. So after every push the loop either does
//! not sleep, or is woken, or drains the payload anyway.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Waker;

/// Payloads from any thread to the loop's.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    /// Whether the queue holds something. Written only under the lock; read without it.
    pending: AtomicBool,
    /// Whether the loop is about to wait or waiting, and nobody has claimed its wake-up yet.
    sleeping: AtomicBool,
    waker: Waker,
}

#[derive(Debug)]
struct Queue<T> {
    payloads: VecDeque<T>,
    /// Set once by `close`: nothing is accepted any more.
    closed: bool,
}

impl<T> Inbox<T> {
    /// An open, empty inbox that wakes the loop by `waker`.
    pub const fn new(waker: Waker) -> Self {
        Self {
            queue: Mutex::new(Queue { payloads: VecDeque::new(), closed: false }),
            pending: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            waker,
        }
    }

    /// Hands `payload` to the loop and wakes it if it sleeps. From any thread.
    ///
    /// # Errors
    /// Gives the payload back once the inbox is closed.
    pub fn push(&self, payload: T) -> Result<(), T> {
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(payload);
            }
            queue.payloads.push_back(payload);
            self.pending.store(true, Ordering::SeqCst);
        }
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    /// Whether something waits in the inbox: one load, for the loop to ask every turn.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Moves everything that waits to the back of `target`, oldest first. For the loop's thread.
    pub fn drain_into(&self, target: &mut VecDeque<T>) {
        if !self.is_pending() {
            return;
        }
        let mut queue = self.lock();
        self.pending.store(false, Ordering::SeqCst);
        if target.is_empty() {
            // Neither copies nor allocates: the two buffers take turns.
            std::mem::swap(&mut queue.payloads, target);
        } else {
            target.append(&mut queue.payloads);
        }
    }

    /// Shows what waits in the inbox to `visit`, until that fails: for a garbage collector, which must not wait
    /// for a thread that is pushing. Shows nothing then.
    ///
    /// # Errors
    /// What `visit` failed with.
    pub fn try_for_each<E>(&self, visit: impl FnMut(&T) -> Result<(), E>) -> Result<(), E> {
        let Ok(queue) = self.queue.try_lock() else { return Ok(()) };
        queue.payloads.iter().try_for_each(visit)
    }

    /// Announces that the loop is going to wait. False when something waits in the inbox: then the
    /// loop must not block, and has not been announced as sleeping. For the loop's thread.
    #[must_use = "the loop must not block when something is pending"]
    pub fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            self.finish_sleep();
            return false;
        }
        true
    }

    /// Ends what [`prepare_sleep`](Self::prepare_sleep) announced. For the loop's thread.
    #[inline]
    pub fn finish_sleep(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Closes the inbox for good and gives back what was in it, for the caller to drop.
    #[must_use = "dropping the payloads is the caller's act"]
    pub fn close(&self) -> Vec<T> {
        let mut queue = self.lock();
        queue.closed = true;
        self.pending.store(false, Ordering::SeqCst);
        std::mem::take(&mut queue.payloads).into()
    }

    /// Whether the inbox was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Wakes the loop, asleep or not: if it is not, its next wait ends at once.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// What ends the loop's wait; the loop registers its file descriptor and drains it.
    pub const fn waker(&self) -> &Waker {
        &self.waker
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // No payload is dropped, and nothing else can panic, while the lock is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_closing() -> std::io::Result<()> {
        let inbox = Inbox::new(Waker::new()?);
        assert!(!inbox.is_pending());
        assert_eq!(inbox.push(1), Ok(()));
        assert_eq!(inbox.push(2), Ok(()));
        assert!(inbox.is_pending());
        assert!(!inbox.prepare_sleep());
        let mut target = VecDeque::new();
        inbox.drain_into(&mut target);
        assert_eq!(inbox.push(3), Ok(()));
        inbox.drain_into(&mut target);
        assert_eq!(target, [1, 2, 3]);
        assert!(!inbox.is_pending());
        assert_eq!(inbox.push(4), Ok(()));
        assert_eq!(inbox.close(), [4]);
        assert!(!inbox.is_pending() && inbox.is_closed());
        assert_eq!(inbox.push(5), Err(5));
        Ok(())
    }
}
