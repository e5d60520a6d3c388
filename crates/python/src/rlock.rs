//! A lock for Python code, like `threading.RLock`: its thread may take it again, and whoever waits for it has
//! detached from the interpreter.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use crate::ffi;

/// The lock, free at first.
#[derive(Default)]
pub(crate) struct RLock {
    owner: Mutex<Owner>,
    freed: Condvar,
}

/// Who has the lock.
#[derive(Default)]
struct Owner {
    /// `threading.get_ident()`, of no meaning while `depth` is 0.
    thread: u64,
    depth: usize,
}

impl RLock {
    /// Waits until the lock is free, or this thread's, and takes it.
    pub(crate) fn acquire(&self, py: Python<'_>) -> Acquired<'_> {
        let thread = ffi::thread_ident(py);
        let taken = |owner: &Owner| owner.depth > 0 && owner.thread != thread;
        let take = |mut owner: MutexGuard<'_, Owner>| {
            owner.thread = thread;
            owner.depth += 1;
        };
        let owner = self.owner();
        if taken(&owner) {
            drop(owner);
            py.detach(|| {
                let wait = self.freed.wait_while(self.owner(), |owner| taken(owner));
                take(wait.unwrap_or_else(PoisonError::into_inner));
            });
        } else {
            take(owner);
        }
        Acquired(self)
    }

    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock, taken until this is dropped.
pub(crate) struct Acquired<'a>(&'a RLock);

impl Drop for Acquired<'_> {
    fn drop(&mut self) {
        let mut owner = self.0.owner();
        owner.depth -= 1;
        if owner.depth == 0 {
            self.0.freed.notify_one();
        }
    }
}
