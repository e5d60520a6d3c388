//! What the kernel says of operations, and what their owners are told.
#![allow(unsafe_code)] // descriptors that the kernel made

use std::io;
use std::mem;

use io_uring::cqueue;

use super::super::{Completion, Completions, Lent, LentMut, Returned};
use super::Uring;
use super::in_flight::{Work, is_readiness, readiness};
use crate::Token;
use crate::sys::fd::{FromRawFd, OwnedFd};

impl<B: Lent, M: LentMut> Uring<B, M> {
    /// Takes what the kernel has completed.
    pub(super) fn collect(&mut self, completions: &mut Completions<B, M>) {
        loop {
            while let Some(entry) = self.ring.take() {
                self.complete(&entry, completions);
            }
            // What cannot be moved up now is moved up by the next wait.
            if !self.ring.take_overflow().unwrap_or(false) {
                break;
            }
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry, completions: &mut Completions<B, M>) {
        let token = Token::from_u64(entry.user_data());
        // Of a request to cancel, which may have come too late.
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        let result = entry.result();
        let more = cqueue::more(entry.flags());
        if !more {
            operation.resting = true;
            self.lent -= 1;
        }
        let returned = match operation.work {
            Work::Accept { .. } if result >= 0 => {
                // SAFETY: the kernel has made the descriptor for us.
                Returned::Connection(unsafe { OwnedFd::from_raw_fd(result) })
            }
            Work::Accept { .. } if result == -libc::ECONNABORTED => {
                return self.rest(token, completions);
            }
            Work::Receive { .. } => {
                let buffer = cqueue::buffer_select(entry.flags());
                match buffer.map(|buffer| self.buffers.take(buffer, length(result))) {
                    Some(chunk) if result > 0 => {
                        operation.served = true;
                        Returned::Chunk(chunk)
                    }
                    chunk => {
                        // Some kernels take a buffer for the end of the stream, too.
                        if let Some(chunk) = chunk {
                            self.buffers.recycle(chunk);
                        }
                        return self.end_receiving(token, result, completions);
                    }
                }
            }
            Work::Poll { .. } if operation.patient && is_readiness(result) => {
                return self.changed(token, result, more, completions);
            }
            Work::Poll { interest, .. } if is_readiness(result) => {
                let readiness = readiness(result, interest);
                if more && !operation.edge {
                    return; // told already: a level soon
                }
                operation.edge = readiness.is_empty();
                if operation.edge {
                    if !more {
                        self.rest(token, completions);
                    }
                    return;
                }
                if more {
                    self.unwanted.push(token); // a level again
                }
                Returned::Readiness(readiness)
            }
            // Not by its owner: the proactor is suspended, or the thread that submitted it is gone.
            _ if result == -libc::ECANCELED && operation.goes_on() => {
                return self.rest(token, completions);
            }
            _ => return self.finish(token, result, completions),
        };
        let moved = match returned {
            Returned::Chunk(ref chunk) => chunk.len(),
            _ => 0,
        };
        let owner = operation.owner;
        let completion = Completion { token, owner, result: Ok(moved), returned, more: true };
        completions.list.push(completion);
        if !more {
            self.rest(token, completions);
        }
    }

    /// A receive that brought nothing: the end, an error, or no buffer to be had.
    fn end_receiving(&mut self, token: Token, result: i32, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        match -result {
            libc::ECANCELED => self.rest(token, completions),
            libc::ENOBUFS if operation.cancelled => {
                self.finish(token, -libc::ECANCELED, completions);
            }
            libc::ENOBUFS if operation.served => self.sated.push(token),
            libc::ENOBUFS => self.starved.push(token),
            _ => self.finish(token, result, completions),
        }
    }

    /// Lets an operation that is to go on be submitted again, unless it was cancelled.
    pub(super) fn rest(&mut self, token: Token, completions: &mut Completions<B, M>) {
        match self.in_flight.get(token) {
            Some(operation) if !operation.cancelled => self.resting.push(token),
            _ => self.finish(token, -libc::ECANCELED, completions),
        }
    }

    /// Reports the last completion of an operation.
    pub(super) fn finish(
        &mut self,
        token: Token,
        result: i32,
        completions: &mut Completions<B, M>,
    ) {
        let Some(operation) = self.in_flight.remove(token) else { return };
        let owner = operation.owner;
        let result = match usize::try_from(result) {
            Ok(count) => Ok(count),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        let returned = operation.finish(&result);
        completions.list.push(Completion { token, owner, result, returned, more: false });
    }

    /// Reports what ended without the kernel.
    #[inline]
    pub(super) fn finish_ended(&mut self, completions: &mut Completions<B, M>) {
        if !self.ended.is_empty() {
            for (token, error) in mem::take(&mut self.ended) {
                self.finish(token, -error, completions);
            }
        }
    }
}

fn length(result: i32) -> usize {
    usize::try_from(result).unwrap_or(0)
}
