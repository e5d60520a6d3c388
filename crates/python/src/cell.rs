//! Interior mutability for the state of a loop and of its transports.
//!
//! A loop's state belongs to the thread that runs it. Python may call from another thread all the same
//! (a mistake that asyncio reports in debug mode only), so the state must stay sound whoever calls. No borrow
//! is ever held across a call into Python. With a GIL that is enough: one thread at a time holds the
//! interpreter, and only such a call could hand it to another. Without one, a cell has a lock ([`owned`]).
//! What surprised us: *dropping* a Python object is such a call (`__del__`, weak reference callbacks), so values
//! taken out of a cell are dropped after its borrow.

#![allow(unsafe_code)] // `Sync` by the argument above

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(not(Py_GIL_DISABLED))]
pub(crate) use attached::{LoopCell, Shared, WeakShared};
#[cfg(Py_GIL_DISABLED)]
pub(crate) use owned::{LoopCell, Shared, WeakShared};

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
    #[inline]
    pub(crate) fn take(&self) -> T
    where
        T: Default,
    {
        self.replace(T::default())
    }

    #[inline]
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        *self.borrow()
    }

    #[inline]
    pub(crate) fn set(&self, value: T) {
        drop(self.replace(value));
    }
}

/// With a GIL.
#[cfg(not(Py_GIL_DISABLED))]
mod attached {
    use std::cell::{Ref, RefCell, RefMut};

    /// A pointer to what several parts of a loop hold.
    pub(crate) use std::rc::{Rc as Shared, Weak as WeakShared};

    /// A `RefCell` that can stand in a Python object.
    #[derive(Default)]
    pub(crate) struct LoopCell<T>(RefCell<T>);

    // SAFETY: every access happens while attached to an interpreter with a GIL, so no two threads are inside
    // at the same time.
    unsafe impl<T> Sync for LoopCell<T> {}
    // SAFETY: what the cells hold is reference counted by the interpreter or plain data.
    unsafe impl<T> Send for LoopCell<T> {}

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
    }
}

/// Without a GIL: whoever borrows owns the cell until the borrow ends, and other threads wait.
#[cfg(Py_GIL_DISABLED)]
mod owned {
    use std::cell::{Cell, Ref, RefCell, RefMut};
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use pyo3::Python;

    /// A pointer to what several parts of a loop hold.
    pub(crate) use std::sync::{Arc as Shared, Weak as WeakShared};

    /// A `RefCell` that can stand in a Python object.
    ///
    /// The lock is one that its thread may take again (two shared borrows of one cell may overlap). A thread
    /// that finds it taken detaches from the interpreter while it waits, so that a thread that stops all others
    /// (the garbage collector's) does not wait for it in turn. Borrows last for a few instructions.
    #[derive(Default)]
    pub(crate) struct LoopCell<T> {
        /// [`this_thread`] of the owner; 0 for none.
        owner: AtomicUsize,
        /// How many borrows the owner has; its alone to read and write.
        depth: Cell<usize>,
        value: RefCell<T>,
    }

    // SAFETY: `value` and `depth` are used by the thread in `owner` alone, which release and acquire order.
    unsafe impl<T> Sync for LoopCell<T> {}
    // SAFETY: what the cells hold is reference counted by the interpreter, atomically, or plain data.
    unsafe impl<T> Send for LoopCell<T> {}

    /// A number that tells threads that live at the same time apart.
    #[inline]
    fn this_thread() -> usize {
        thread_local!(static PLACE: u8 = const { 0 });
        PLACE.with(|place| std::ptr::from_ref(place).addr())
    }

    impl<T> LoopCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self { owner: AtomicUsize::new(0), depth: Cell::new(0), value: RefCell::new(value) }
        }

        /// A shared borrow, to be dropped before anything calls into Python.
        #[inline]
        pub(crate) fn borrow(&self) -> Borrowed<'_, T, Ref<'_, T>> {
            let held = self.acquire();
            Borrowed { value: self.value.borrow(), _held: held }
        }

        /// An exclusive borrow, to be dropped before anything calls into Python.
        #[inline]
        pub(crate) fn borrow_mut(&self) -> Borrowed<'_, T, RefMut<'_, T>> {
            let held = self.acquire();
            Borrowed { value: self.value.borrow_mut(), _held: held }
        }

        /// A shared borrow if nobody holds one, or this thread a shared one: for the garbage collector, which
        /// may run at any allocation, while the other threads stand still wherever they are.
        pub(crate) fn try_borrow(&self) -> Option<Borrowed<'_, T, Ref<'_, T>>> {
            let held = self.try_acquire()?;
            let value = self.value.try_borrow().ok()?;
            Some(Borrowed { value, _held: held })
        }

        #[inline]
        pub(crate) fn replace(&self, value: T) -> T {
            let _held = self.acquire();
            self.value.replace(value)
        }

        #[inline]
        fn acquire(&self) -> Held<'_, T> {
            self.try_acquire().unwrap_or_else(|| self.wait())
        }

        #[inline]
        fn try_acquire(&self) -> Option<Held<'_, T>> {
            let thread = this_thread();
            if self.owner.load(Ordering::Relaxed) != thread {
                self.owner
                    .compare_exchange(0, thread, Ordering::Acquire, Ordering::Relaxed)
                    .ok()?;
            }
            self.depth.set(self.depth.get() + 1);
            Some(Held(self))
        }

        #[cold]
        fn wait(&self) -> Held<'_, T> {
            Python::attach(|py| {
                loop {
                    py.detach(thread::yield_now);
                    if let Some(held) = self.try_acquire() {
                        return held;
                    }
                }
            })
        }
    }

    /// The lock of a cell, taken.
    struct Held<'a, T>(&'a LoopCell<T>);

    impl<T> Drop for Held<'_, T> {
        #[inline]
        fn drop(&mut self) {
            let depth = self.0.depth.get() - 1;
            self.0.depth.set(depth);
            if depth == 0 {
                self.0.owner.store(0, Ordering::Release);
            }
        }
    }

    /// A borrow of what is in a cell: `value`, then the lock, are given back in this order.
    pub(crate) struct Borrowed<'a, T, R> {
        value: R,
        _held: Held<'a, T>,
    }

    impl<T, R: Deref<Target = T>> Deref for Borrowed<'_, T, R> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            &self.value
        }
    }

    impl<T, R: DerefMut<Target = T>> DerefMut for Borrowed<'_, T, R> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            &mut self.value
        }
    }
}
