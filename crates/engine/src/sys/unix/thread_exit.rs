//! Threads that somebody else ends, by `pthread_exit(3)`, while they are in our functions.
//!
//! `CPython` before 3.14 does so: an interpreter that ends stops its daemon threads when they next ask for the GIL, in the
//! middle of Python code that a loop has called, say. glibc makes an unwinding of it, which would run the destructors of all
//! functions of ours on the stack, without the GIL, and fail at the first `catch_unwind`. From 3.14 on the interpreter lets
//! such threads sleep until the process has ended, and so do we.
//!
//! The unwinding asks for cleanup handlers (`pthread_cleanup_push(3)`) before each step, whether the frame of the
//! handler's buffer is left by it. What surprised us: a buffer that is in no frame at all always is. So ours is on the heap, and its
//! handler runs first of all. The functions are those that the macros of old compilers call.
#![allow(unsafe_code)] // glibc's cleanup handlers

use std::ffi::{c_int, c_void};
use std::ptr;

/// `struct _pthread_cleanup_buffer` of `pthread.h`.
#[repr(C)]
struct CleanupBuffer {
    routine: extern "C" fn(*mut c_void),
    argument: *mut c_void,
    cancel_type: c_int,
    previous: *mut Self,
}

const EMPTY: CleanupBuffer = CleanupBuffer {
    routine: sleep,
    argument: ptr::null_mut(),
    cancel_type: 0,
    previous: ptr::null_mut(),
};

unsafe extern "C" {
    fn _pthread_cleanup_push(
        buffer: *mut CleanupBuffer,
        routine: extern "C" fn(*mut c_void),
        argument: *mut c_void,
    );
    fn _pthread_cleanup_pop(buffer: *mut CleanupBuffer, execute: c_int);
}

/// As long as it lives, its thread sleeps forever when it is to exit.
///
/// Several of them may end in any order: with greenlets the functions of a thread do.
pub struct Stay {
    /// In the thread's list.
    buffer: *mut CleanupBuffer,
}

impl Stay {
    /// For the calling thread.
    #[must_use]
    pub fn new() -> Self {
        let buffer = Box::into_raw(Box::new(EMPTY));
        // SAFETY: the buffer stays where it is until it is taken out.
        unsafe { _pthread_cleanup_push(buffer, sleep, ptr::null_mut()) };
        Self { buffer }
    }
}

impl Default for Stay {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // The list gives back its first alone: what is done with is marked, and taken out as soon as it is that.
        // SAFETY: this thread's list has the buffer, and what is taken out nothing refers to.
        unsafe {
            (*self.buffer).argument = self.buffer.cast();
            loop {
                let first = first();
                if first.is_null() || (*first).argument != first.cast() {
                    break;
                }
                _pthread_cleanup_pop(first, 0);
                drop(Box::from_raw(first));
            }
        }
    }
}

/// The first of the thread's list, as one that is put before it is told.
fn first() -> *mut CleanupBuffer {
    let mut probe = EMPTY;
    let buffer = &raw mut probe;
    // SAFETY: it is taken out before it goes.
    unsafe {
        _pthread_cleanup_push(buffer, sleep, ptr::null_mut());
        _pthread_cleanup_pop(buffer, 0);
        (*buffer).previous
    }
}

/// Sleeps, unless its buffer, which is the argument then, is done with.
extern "C" fn sleep(argument: *mut c_void) {
    while argument.is_null() {
        // SAFETY: returns after a signal handler only.
        unsafe { libc::pause() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_and_drop() {
        for first in [0, 1] {
            let mut stays = vec![Stay::new(), Stay::new()];
            drop(stays.remove(first));
            stays.push(Stay::new());
            drop(stays.remove(0));
        }
    }

    /// Ends as threads of the interpreter do, by `pthread_exit(3)` in any case. It has nothing to drop itself.
    extern "C-unwind" fn run(_argument: *mut c_void) -> *mut c_void {
        make_and_drop();
        // SAFETY: nothing of this function is left.
        unsafe { libc::pthread_exit(ptr::null_mut()) }
    }

    #[test]
    fn a_thread_that_has_dropped_all_of_them_may_exit() {
        // SAFETY: the ABIs are the same but for unwinding, and the thread is waited for.
        let results = unsafe {
            let run: extern "C" fn(*mut c_void) -> *mut c_void =
                std::mem::transmute(run as extern "C-unwind" fn(*mut c_void) -> *mut c_void);
            let mut thread = std::mem::zeroed();
            let made = libc::pthread_create(&raw mut thread, ptr::null(), run, ptr::null_mut());
            (made, libc::pthread_join(thread, ptr::null_mut()))
        };
        assert_eq!(results, (0, 0));
    }
}
