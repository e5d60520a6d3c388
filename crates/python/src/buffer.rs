//! Memory of Python objects: reading what a user wants to send, writing into a protocol's own buffer.

#![allow(unsafe_code)] // the buffer protocol

use std::mem::MaybeUninit;
use std::ptr;

use oxloop_engine::proactor::Lent;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::cell::LoopCell;
use crate::ffi::Ref;

/// A contiguous view of an object's memory, held until it is dropped.
///
/// The exporter keeps the memory in place as long as the view lives, but it may change its contents.
/// Invariant: like every reference of ours, a view is dropped by an attached thread.
pub(crate) struct View {
    /// Boxed, because exporters may keep pointers into it.
    view: Box<ffi::Py_buffer>,
}

// SAFETY: used by attached threads only, as the objects are that contain it.
unsafe impl Send for View {}
// SAFETY: see above.
unsafe impl Sync for View {}

impl View {
    /// A view for reading; `TypeError` (Python's own) for an object without contiguous memory.
    pub(crate) fn readable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::new(object, ffi::PyBUF_SIMPLE)
    }

    /// A view for writing; `BufferError` for read-only memory.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::new(object, ffi::PyBUF_WRITABLE)
    }

    fn new(object: &Bound<'_, PyAny>, flags: i32) -> PyResult<Self> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: fills in the view, or returns -1 with an exception.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } < 0 {
            return Err(
                PyErr::take(object.py()).unwrap_or_else(|| PyBufferError::new_err("no buffer"))
            );
        }
        // SAFETY: it was filled in.
        Ok(Self { view: unsafe { Box::from_raw(Box::into_raw(view).cast()) } })
    }

    pub(crate) fn len(&self) -> usize {
        self.view.len.cast_unsigned()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.view.len == 0 {
            return &[];
        }
        // SAFETY: `buf` points to `len` bytes as long as the view is held.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast(), self.len()) }
    }

    /// The memory of a writable view.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.view.len == 0 || self.view.readonly != 0 {
            return &mut [];
        }
        // SAFETY: as above, and the exporter granted write access.
        unsafe { std::slice::from_raw_parts_mut(self.view.buf.cast(), self.len()) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the view was filled in by PyObject_GetBuffer and is released once.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) }
    }
}

/// Memory of ours as an object, for C code that reads it or writes to it during one call.
///
/// `memoryview` would do the same with two allocations. Invariant: it shows memory only inside of
/// [`lend`](Self::lend) and [`lend_mut`](Self::lend_mut), and is passed to functions of the standard library in C
/// alone, which take their view at once and give it back before they return.
#[pyclass(frozen, module = "oxloop._native")]
pub(crate) struct Window {
    memory: LoopCell<Memory>,
}

/// What a window shows.
#[derive(Clone, Copy)]
struct Memory {
    start: *mut u8,
    length: usize,
    read_only: bool,
}

/// Nothing at all.
const NOTHING: Memory =
    Memory { start: ptr::NonNull::dangling().as_ptr(), length: 0, read_only: true };

impl Window {
    pub(crate) fn new() -> Self {
        Self { memory: LoopCell::new(NOTHING) }
    }

    /// Shows `data` for the time of `call`, to be read.
    #[inline]
    pub(crate) fn lend<R>(&self, data: &[u8], call: impl FnOnce() -> R) -> R {
        let start = data.as_ptr().cast_mut();
        self.show(Memory { start, length: data.len(), read_only: true }, call)
    }

    /// Shows `data` for the time of `call`, to be written to.
    #[inline]
    pub(crate) fn lend_mut<R>(&self, data: &mut [u8], call: impl FnOnce() -> R) -> R {
        let start = data.as_mut_ptr();
        self.show(Memory { start, length: data.len(), read_only: false }, call)
    }

    fn show<R>(&self, memory: Memory, call: impl FnOnce() -> R) -> R {
        self.memory.set(memory);
        let result = call();
        self.memory.set(NOTHING);
        result
    }
}

#[pymethods]
impl Window {
    /// # Safety
    /// Called by the interpreter, with a view to be filled in.
    unsafe fn __getbuffer__(
        slf: &Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: i32,
    ) -> PyResult<()> {
        let Memory { start, length, read_only } = slf.get().memory.get();
        // SAFETY: the memory is that of the slice that is lent now, or none; by the type's invariant the view is
        // given back while it still is. For a writable view of read-only memory there is an error.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                start.cast(),
                length.cast_signed(),
                i32::from(read_only),
                flags,
            )
        };
        if filled < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}

/// Bytes that are on their way out: an immutable object held by reference, or a snapshot.
pub(crate) enum Chunk {
    /// The memory of exactly a `bytes` object, which nobody can change or move while it is held.
    Bytes { _object: Ref, start: *const u8, length: usize },
    /// A copy of memory that its owner may change after the call.
    Copied(Vec<u8>),
}

// SAFETY: a chunk is used and dropped by attached threads only, see `View`.
unsafe impl Send for Chunk {}
// SAFETY: see above; the memory is immutable.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// What is to be sent of `object` from `sent` on: the object itself if it cannot change, and then counted
    /// from its beginning, or a copy of the rest. The second value is how much of the chunk has gone.
    pub(crate) fn rest(object: &Bound<'_, PyAny>, data: &[u8], sent: usize) -> (Self, usize) {
        if object.is_exact_instance_of::<PyBytes>() {
            let chunk =
                Self::Bytes { _object: object.into(), start: data.as_ptr(), length: data.len() };
            return (chunk, sent);
        }
        (Self::Copied(data[sent..].to_vec()), 0)
    }
}

// SAFETY: `bytes` never move or change, and a vector's memory is on the heap; the object is held.
unsafe impl Lent for Chunk {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

impl AsRef<[u8]> for Chunk {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            // SAFETY: the object is held, and `bytes` never move or change.
            Self::Bytes { start, length, .. } => unsafe {
                std::slice::from_raw_parts(*start, *length)
            },
            Self::Copied(bytes) => bytes,
        }
    }
}
