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
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// `struct _pthread_cleanup_buffer` of `pthread.h`.
#[repr(C)]
struct CleanupBuffer {
    routine: extern "C" fn(*mut c_void),
    argument: *mut c_void,
    cancel_type: c_int,
    previous: *mut Self,
}

unsafe extern "C" {
    fn _pthread_cleanup_push(
        buffer: *mut CleanupBuffer,
        routine: extern "C" fn(*mut c_void),
        argument: *mut c_void,
    );
    fn _pthread_cleanup_pop(buffer: *mut CleanupBuffer, execute: c_int);
}

/// As long as it lives, this thread sleeps forever when it is to exit.
///
/// To be dropped in the reverse order of making, as variables of functions are.
pub struct Stay {
    /// Raw, as the thread refers to it.
    buffer: *mut MaybeUninit<CleanupBuffer>,
    /// It is the thread's that has made it.
    _thread: PhantomData<*mut ()>,
}

impl Stay {
    /// For the calling thread.
    #[must_use]
    pub fn new() -> Self {
        let buffer = Box::into_raw(Box::new(MaybeUninit::uninit()));
        // SAFETY: the buffer stays where it is until it is taken out.
        unsafe { _pthread_cleanup_push(buffer.cast(), sleep, std::ptr::null_mut()) };
        Self { buffer, _thread: PhantomData }
    }
}

impl Default for Stay {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // SAFETY: it was put in by this thread, and all later ones have been taken out; nothing refers to it then.
        unsafe {
            _pthread_cleanup_pop(self.buffer.cast(), 0);
            drop(Box::from_raw(self.buffer));
        }
    }
}

extern "C" fn sleep(_argument: *mut c_void) {
    loop {
        // SAFETY: returns after a signal handler only.
        unsafe { libc::pause() };
    }
}
