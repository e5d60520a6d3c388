//! Interior mutability for the state of a loop and of its transports.
//!
//! A loop's state belongs to the thread that runs it. Python may call from another thread all the same
//! (a mistake that asyncio reports in debug mode only), so the state must stay sound whoever calls: with
//! the GIL, one thread at a time holds the interpreter, and no borrow is ever held across a call into
//! Python, which is where the GIL could change hands. What surprised us: *dropping* a Python object is such
//! a call (`__del__`, weak reference callbacks), so values taken out of a cell are dropped after its borrow.

#![allow(unsafe_code)] // `Sync` by the argument above

use std::cell::{Ref, RefCell, RefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// A `RefCell` that can stand in a Python object.
#[derive(Default)]
pub(crate) struct LoopCell<T>(RefCell<T>);

// SAFETY: every access happens while attached to an interpreter with a GIL (the module declares that it
// needs one), so no two threads are inside at the same time.
unsafe impl<T> Sync for LoopCell<T> {}
// SAFETY: what the cells hold is reference counted by the interpreter or plain data.
unsafe impl<T> Send for LoopCell<T> {}

/// The mark of an object whose fields have been written.
///
/// `CPython` 3.11 and 3.12 allocate the `__dict__` of a new object after they have shown it to the garbage
/// collector, and that allocation can start a collection: `__traverse__` then meets an object that is still
/// all zeroes, and must not look at its fields. Every class that has both a `__dict__` (its own or a Python
/// subclass's) and a `__traverse__` carries this mark, which reads as unset then.
pub(crate) struct Made(AtomicBool);

impl Made {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Whether the object that this is a field of has been made.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T> LoopCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// A shared borrow, to be dropped before anything calls into Python.
    #[inline]
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        self.0.borrow()
    }

    /// An exclusive borrow, to be dropped before anything calls into Python.
    #[inline]
    pub(crate) fn borrow_mut(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// A shared borrow if nobody holds an exclusive one: for the garbage collector, which may run at any
    /// allocation.
    pub(crate) fn try_borrow(&self) -> Option<Ref<'_, T>> {
        self.0.try_borrow().ok()
    }

    #[inline]
    pub(crate) fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }

    #[inline]
    pub(crate) fn take(&self) -> T
    where
        T: Default,
    {
        self.0.take()
    }

    #[inline]
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        *self.0.borrow()
    }

    #[inline]
    pub(crate) fn set(&self, value: T) {
        drop(self.0.replace(value));
    }
}
