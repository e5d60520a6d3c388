//! Safe wrappers round the few interpreter calls that `PyO3` has no (fast enough) form for.
//!
//! Two things here cost a loop most of its time when they are done the general way, and are therefore
//! done by hand: dropping a reference (`Py<T>` asks a thread-local on each drop whether it may, see
//! [`Ref`]) and receiving a call (`PyO3` builds a tuple for every `*args`, see [`FastMethod`]).

#![allow(unsafe_code)] // the interpreter's C API

use std::ffi::{CStr, c_char};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

/// A strong reference that is dropped with a plain decrement.
///
/// Invariant: a `Ref` is only dropped by a thread that is attached to the interpreter. All of them live in
/// Python objects (dropped by their deallocators), in queues that such objects own, or on the stack of a
/// function that was handed a `Python` token; the inbox, whose values other threads push, is emptied by
/// the loop's own thread or by the loop's deallocator.
pub(crate) struct Ref<T = PyAny>(ManuallyDrop<Py<T>>);

impl<T> Ref<T> {
    /// Borrows the object for as long as the interpreter is held.
    #[inline]
    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, T> {
        self.0.bind(py)
    }

    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(ManuallyDrop::new(self.0.clone_ref(py)))
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Hands the reference over to `PyO3`.
    #[inline]
    pub(crate) fn into_py(self) -> Py<T> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }

    #[inline]
    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, T> {
        self.into_py().into_bound(py)
    }
}

impl<T> From<Py<T>> for Ref<T> {
    #[inline]
    fn from(object: Py<T>) -> Self {
        Self(ManuallyDrop::new(object))
    }
}

impl<T> From<Bound<'_, T>> for Ref<T> {
    #[inline]
    fn from(object: Bound<'_, T>) -> Self {
        Self(ManuallyDrop::new(object.unbind()))
    }
}

impl<T> From<&Bound<'_, T>> for Ref<T> {
    #[inline]
    fn from(object: &Bound<'_, T>) -> Self {
        Self(ManuallyDrop::new(object.clone().unbind()))
    }
}

impl<T> Deref for Ref<T> {
    type Target = Py<T>;

    #[inline]
    fn deref(&self) -> &Py<T> {
        &self.0
    }
}

impl<T> Drop for Ref<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the reference is owned, and by the type's invariant this thread is attached.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

/// A `("context",)` whose string is not interned, once one was met.
static CONTEXT_NAMES: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// The arguments of a call that arrived by vectorcall: borrowed, nothing copied.
pub(crate) struct Arguments<'a, 'py> {
    py: Python<'py>,
    /// Positional values, then the values of the keywords.
    values: &'a [*mut ffi::PyObject],
    positional: usize,
    keywords: *mut ffi::PyObject,
}

impl<'a, 'py> Arguments<'a, 'py> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.positional
    }

    /// The positional arguments from `first` on.
    #[inline]
    fn rest(&self, first: usize) -> &'a [Bound<'py, PyAny>] {
        let slots = &self.values[first..self.positional];
        // SAFETY: as in `value`.
        unsafe { std::slice::from_raw_parts(slots.as_ptr().cast(), slots.len()) }
    }

    /// The parameters `names`, by position or by keyword, then `*args` and the keyword `context`.
    #[inline]
    pub(crate) fn parse<const N: usize>(
        &self,
        function: &str,
        names: [&str; N],
    ) -> PyResult<Parsed<'a, 'py, N>> {
        if self.positional >= N && self.has_only_context() {
            let context = (!self.keywords.is_null()).then(|| self.value(self.positional));
            let required = std::array::from_fn(|index| self.value(index));
            return Ok(Parsed { required, rest: self.rest(N), context });
        }
        self.parse_keywords(function, names)
    }

    /// Whether there is no keyword, or only the one that asyncio's tasks and futures pass.
    ///
    /// Python code passes a tuple of interned strings; `_asyncio` one of its own, of a string that it did not
    /// intern before 3.12: that tuple is remembered.
    #[inline]
    fn has_only_context(&self) -> bool {
        if self.keywords.is_null() || self.keywords == CONTEXT_NAMES.load(Relaxed) {
            return true;
        }
        // SAFETY: a tuple of strings, borrowed for the call.
        let (length, first) = unsafe {
            (ffi::PyTuple_GET_SIZE(self.keywords), ffi::PyTuple_GET_ITEM(self.keywords, 0))
        };
        length == 1
            && (first == intern!(self.py, "context").as_ptr() || self.is_named_context(first))
    }

    #[cold]
    fn is_named_context(&self, name: *mut ffi::PyObject) -> bool {
        // SAFETY: a string, borrowed for the call.
        let name = unsafe { Bound::from_borrowed_ptr(self.py, name) };
        let found = name.eq("context").unwrap_or(false);
        if found && CONTEXT_NAMES.load(Relaxed).is_null() {
            // SAFETY: a tuple, kept for good, so that no other can get its address.
            unsafe { ffi::Py_INCREF(self.keywords) };
            CONTEXT_NAMES.store(self.keywords, Relaxed);
        }
        found
    }

    #[cold]
    fn parse_keywords<const N: usize>(
        &self,
        function: &str,
        names: [&str; N],
    ) -> PyResult<Parsed<'a, 'py, N>> {
        let mut required: [Option<&'a Bound<'py, PyAny>>; N] =
            std::array::from_fn(|index| (index < self.positional).then(|| self.value(index)));
        let mut context = None;
        for (index, keyword) in self.keyword_names()?.into_iter().enumerate() {
            let value = self.value(self.positional + index);
            if keyword == "context" {
                context = Some(value);
            } else if let Some(place) = names.iter().position(|name| *name == keyword) {
                if required[place].replace(value).is_some() {
                    return Err(PyTypeError::new_err(format!(
                        "{function}() got multiple values for argument '{keyword}'"
                    )));
                }
            } else {
                return Err(PyTypeError::new_err(format!(
                    "{function}() got an unexpected keyword argument '{keyword}'"
                )));
            }
        }
        let missing: Vec<&str> = names
            .iter()
            .zip(&required)
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() {
            return Err(missing_arguments(function, &missing));
        }
        let none = &[];
        let rest = if self.positional > N { self.rest(N) } else { none };
        let required = required.map(|value| value.expect("nothing is missing"));
        Ok(Parsed { required, rest, context })
    }

    /// `TypeError` if there is any argument.
    #[inline]
    pub(crate) fn none(&self, function: &str) -> PyResult<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        Err(PyTypeError::new_err(format!(
            "{function}() takes 1 positional argument but {} were given",
            self.values.len() + 1
        )))
    }

    /// The keywords as a dict, for functions that are not called often.
    pub(crate) fn keywords(&self) -> PyResult<Option<Bound<'py, PyDict>>> {
        if self.keywords.is_null() {
            return Ok(None);
        }
        let keywords = PyDict::new(self.py);
        for (index, name) in self.keyword_names()?.into_iter().enumerate() {
            keywords.set_item(name, self.value(self.positional + index))?;
        }
        Ok(Some(keywords))
    }

    /// The only argument, by position or by its name; `TypeError` unless it is given, and nothing else.
    #[inline]
    pub(crate) fn single(&self, function: &str, name: &str) -> PyResult<&'a Bound<'py, PyAny>> {
        if self.keywords.is_null() {
            return self.only(function, name);
        }
        for (index, keyword) in self.keyword_names()?.into_iter().enumerate() {
            if keyword != name {
                return Err(PyTypeError::new_err(format!(
                    "{function}() got an unexpected keyword argument '{keyword}'"
                )));
            }
            if self.positional == 0 {
                return Ok(self.value(index));
            }
        }
        Err(PyTypeError::new_err(format!("{function}() got multiple values for argument '{name}'")))
    }

    /// The only positional argument; `TypeError` unless it was given, and nothing else by position.
    pub(crate) fn only(&self, function: &str, name: &str) -> PyResult<&'a Bound<'py, PyAny>> {
        match self.positional {
            1 => Ok(self.value(0)),
            0 => Err(missing_arguments(function, &[name])),
            given => Err(PyTypeError::new_err(format!(
                "{function}() takes 2 positional arguments but {} were given",
                given + 1
            ))),
        }
    }

    /// The parameter `first`, and `second` if it is given, by position or by keyword.
    pub(crate) fn one_or_two(
        &self,
        function: &str,
        [first, second]: [&str; 2],
    ) -> PyResult<(&'a Bound<'py, PyAny>, Option<&'a Bound<'py, PyAny>>)> {
        if self.positional > 2 {
            return Err(PyTypeError::new_err(format!(
                "{function}() takes from 2 to 3 positional arguments but {} were given",
                self.positional + 1
            )));
        }
        let mut values: [Option<&'a Bound<'py, PyAny>>; 2] =
            std::array::from_fn(|index| (index < self.positional).then(|| self.value(index)));
        for (index, keyword) in self.keyword_names()?.into_iter().enumerate() {
            let problem = match [first, second].iter().position(|name| *name == keyword) {
                None => "an unexpected keyword argument",
                Some(place) => match values[place].replace(self.value(self.positional + index)) {
                    None => continue,
                    Some(_) => "multiple values for argument",
                },
            };
            return Err(PyTypeError::new_err(format!("{function}() got {problem} '{keyword}'")));
        }
        match values {
            [Some(value), other] => Ok((value, other)),
            _ => Err(missing_arguments(function, &[first])),
        }
    }

    /// The names of the keywords that were given.
    pub(crate) fn keyword_names(&self) -> PyResult<Vec<String>> {
        if self.keywords.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: when it is not NULL it is a tuple of strings, borrowed for the call.
        let names = unsafe { Bound::from_borrowed_ptr(self.py, self.keywords) };
        names.extract()
    }

    /// Calls `callable` with these arguments and one keyword more.
    pub(crate) fn forward(
        &self,
        callable: &Bound<'py, PyAny>,
        name: &Bound<'py, PyTuple>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut values = Vec::with_capacity(self.values.len() + 2);
        values.push(ptr::null_mut());
        values.extend_from_slice(self.values);
        values.push(value.as_ptr());
        // SAFETY: as in `call`; the names are those of this call and the new one, in the order of the values.
        unsafe {
            let names = if self.keywords.is_null() {
                name.clone().into_any()
            } else {
                let names = ffi::PySequence_Concat(self.keywords, name.as_ptr());
                Bound::from_owned_ptr_or_err(self.py, names)?
            };
            let result = ffi::PyObject_Vectorcall(
                callable.as_ptr(),
                values.as_ptr().add(1),
                self.positional | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                names.as_ptr(),
            );
            Bound::from_owned_ptr_or_err(self.py, result)
        }
    }

    /// The value at `index`, positional or keyword.
    #[inline]
    fn value(&self, index: usize) -> &'a Bound<'py, PyAny> {
        let slot: &'a *mut ffi::PyObject = &self.values[index];
        // SAFETY: the interpreter keeps arguments alive during the call, none is NULL, and `Bound` has the
        // layout of a pointer (it is `repr(transparent)` over `Py`).
        unsafe { &*ptr::from_ref(slot).cast::<Bound<'py, PyAny>>() }
    }
}

/// What [`Arguments::parse`] found.
pub(crate) struct Parsed<'a, 'py, const N: usize> {
    pub(crate) required: [&'a Bound<'py, PyAny>; N],
    pub(crate) rest: &'a [Bound<'py, PyAny>],
    pub(crate) context: Option<&'a Bound<'py, PyAny>>,
}

#[cold]
fn missing_arguments(function: &str, names: &[&str]) -> PyErr {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let (list, plural) = match quoted.as_slice() {
        [one] => (one.clone(), ""),
        [first, second] => (format!("{first} and {second}"), "s"),
        many => {
            let (last, head) = many.split_last().expect("at least one name is missing");
            (format!("{}, and {last}", head.join(", ")), "s")
        }
    };
    PyTypeError::new_err(format!(
        "{function}() missing {} required positional argument{plural}: {list}",
        names.len()
    ))
}

/// What a fast method is in Rust: `self`, the borrowed arguments, a new reference.
pub(crate) type FastFunction =
    for<'py> fn(&Bound<'py, PyAny>, &Arguments<'_, 'py>) -> PyResult<Ref>;

/// A method that is called with `METH_FASTCALL | METH_KEYWORDS`, past `PyO3`'s argument parsing.
pub(crate) struct FastMethod {
    pub(crate) name: &'static CStr,
    pub(crate) doc: &'static CStr,
    /// Made by [`fast_method!`] from a [`FastFunction`].
    pub(crate) entry: ffi::PyCFunctionFastWithKeywords,
}

/// A [`FastMethod`] from its Python name, its documentation and a [`FastFunction`].
macro_rules! fast_method {
    ($name:literal, $function:path, $doc:literal) => {{
        #[allow(unsafe_code)]
        unsafe extern "C" fn entry(
            this: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            positional: pyo3::ffi::Py_ssize_t,
            keywords: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: the interpreter calls a METH_FASTCALL | METH_KEYWORDS method with exactly these.
            unsafe { $crate::ffi::enter_fast($function, this, values, positional, keywords) }
        }
        $crate::ffi::FastMethod { name: $name, doc: $doc, entry }
    }};
}
pub(crate) use fast_method;

/// Calls `function` with the arguments of a vectorcall; a panic becomes a `RuntimeError`.
///
/// # Safety
/// To be called by the interpreter only, with the arguments of a `METH_FASTCALL | METH_KEYWORDS` method.
#[inline]
pub(crate) unsafe fn enter_fast(
    function: FastFunction,
    this: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter only calls a method from an attached thread.
    let py = unsafe { Python::assume_attached() };
    let positional = positional.cast_unsigned();
    // SAFETY: NULL or a tuple.
    let named = if keywords.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(keywords) } };
    let total = positional + named.cast_unsigned();
    let values = if total == 0 {
        &[]
    } else {
        // SAFETY: `values` has that many entries, borrowed for the call.
        unsafe { std::slice::from_raw_parts(values, total) }
    };
    let arguments = Arguments { py, values, positional, keywords };
    // SAFETY: `this` is borrowed for the call and `Bound` has the layout of a pointer.
    let this = unsafe { &*ptr::from_ref(&this).cast::<Bound<'_, PyAny>>() };
    match catch_unwind(AssertUnwindSafe(|| function(this, &arguments))) {
        Ok(Ok(value)) => value.into_py().into_ptr(),
        Ok(Err(error)) => {
            error.restore(py);
            ptr::null_mut()
        }
        Err(_) => {
            PyRuntimeError::new_err("oxloop: internal error").restore(py);
            ptr::null_mut()
        }
    }
}

/// Puts `methods` into `class` as method descriptors, which the interpreter calls by vectorcall.
pub(crate) fn add_fast_methods(
    class: &Bound<'_, PyType>,
    methods: impl IntoIterator<Item = FastMethod>,
) -> PyResult<()> {
    for method in methods {
        let definition = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: method.name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: method.entry },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: method.doc.as_ptr(),
        }));
        // SAFETY: the definition lives as long as the process (a class is made once), and the entry point
        // has the signature that the flags say.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(
                class.py(),
                ffi::PyDescr_NewMethod(class.as_type_ptr(), definition),
            )?
        };
        let name = method.name.to_str().unwrap_or_default();
        class.setattr(name, descriptor)?;
    }
    Ok(())
}

/// The most positional arguments that [`call`] and [`call_method`] take.
const MAX_ARGUMENTS: usize = 6;

/// Calls `callable` by vectorcall.
#[inline]
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[&Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut stack = [ptr::null_mut(); MAX_ARGUMENTS + 1];
    for (slot, argument) in stack[1..].iter_mut().zip(arguments) {
        *slot = argument.as_ptr();
    }
    debug_assert!(arguments.len() <= MAX_ARGUMENTS);
    // SAFETY: the slots hold borrowed references for the duration of the call, slot 0 may be used by the
    // callee (PY_VECTORCALL_ARGUMENTS_OFFSET), and the result is a new reference or NULL with an exception.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            stack.as_ptr().add(1),
            arguments.len() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// Calls the method `name` of `object` by vectorcall, without a bound method in between.
#[inline]
pub(crate) fn call_method<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: &[&Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut stack = [ptr::null_mut(); MAX_ARGUMENTS + 2];
    stack[1] = object.as_ptr();
    for (slot, argument) in stack[2..].iter_mut().zip(arguments) {
        *slot = argument.as_ptr();
    }
    debug_assert!(arguments.len() <= MAX_ARGUMENTS);
    // SAFETY: as in `call`.
    unsafe {
        let result = ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            stack.as_ptr().add(1),
            (arguments.len() + 1) | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// Calls `callable` with at most one positional argument and one that is passed by keyword.
#[inline]
pub(crate) fn call_keyword<'py>(
    callable: &Bound<'py, PyAny>,
    positional: Option<&Bound<'py, PyAny>>,
    names: &Bound<'py, PyTuple>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut stack = [ptr::null_mut(); 3];
    let given = usize::from(positional.is_some());
    if let Some(positional) = positional {
        stack[1] = positional.as_ptr();
    }
    stack[1 + given] = value.as_ptr();
    // SAFETY: as in `call`; `names` is a tuple of one string.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            stack.as_ptr().add(1),
            given | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            names.as_ptr(),
        );
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// Whether `callback` is one of the two by which asyncio's own tasks (in C) go on: a task's next step, or its
/// wake-up by a future. The code that schedules those drops the handle at once.
///
/// They are known by the names that the interpreter gives them: a static class `TaskStepMethWrapper` (of the
/// module `_asyncio` from 3.12 on, where it is a heap class made from a specification), and a built-in method
/// `task_wakeup` (a class `TaskWakeupMethWrapper` in 3.9). A class of the user's can have neither: Python
/// classes are heap classes, and their `tp_name` has no module.
#[inline]
pub(crate) fn is_task_callback(callback: &Bound<'_, PyAny>) -> bool {
    static STEP: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
    static WAKEUP: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
    let class = callback.get_type_ptr();
    if class == STEP.load(Relaxed) {
        return true;
    }
    // SAFETY: a built-in function has a method definition, with a name.
    unsafe {
        if class == &raw mut ffi::PyCFunction_Type {
            let function = callback.as_ptr().cast::<ffi::PyCFunctionObject>();
            let name = (*(*function).m_ml).ml_name;
            if name == WAKEUP.load(Relaxed) {
                return true;
            }
            let found = CStr::from_ptr(name) == c"task_wakeup";
            if found {
                WAKEUP.store(name.cast_mut(), Relaxed);
            }
            return found;
        }
    }
    is_step_class(class, &STEP)
}

#[cold]
fn is_step_class(class: *mut ffi::PyTypeObject, known: &AtomicPtr<ffi::PyTypeObject>) -> bool {
    // SAFETY: a class has a name and flags.
    let (name, is_heap) = unsafe {
        (CStr::from_ptr((*class).tp_name), (*class).tp_flags & ffi::Py_TPFLAGS_HEAPTYPE != 0)
    };
    match (name.to_bytes(), is_heap) {
        (b"TaskStepMethWrapper", false) | (b"_asyncio.TaskStepMethWrapper", true) => {
            known.store(class, Relaxed);
        }
        (b"TaskWakeupMethWrapper", false) => {}
        _ => return false,
    }
    true
}

/// A copy of the current context: what `contextvars.copy_context()` returns.
#[inline]
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Ref> {
    // SAFETY: a new reference or NULL with an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()).map(Ref::from) }
}

/// Runs `body` inside `context`, as `context.run` does.
#[inline]
pub(crate) fn run_in_context<R>(
    context: &Bound<'_, PyAny>,
    body: impl FnOnce() -> PyResult<R>,
) -> PyResult<R> {
    let py = context.py();
    // SAFETY: PyContext_Enter checks that it is given a context.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let result = body();
    // SAFETY: the context was entered above.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    result
}

/// `send(None)` for an iterator: what it yielded, or what it returned.
pub(crate) enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
}

/// Resumes an awaitable's iterator with `None`.
pub(crate) fn send_none<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = iterator.py();
    // SAFETY: an iterator has the slot or the check below fails; the result is a new reference, NULL with an
    // exception, or NULL without one (a StopIteration that carries nothing).
    let yielded = unsafe {
        match (*ffi::Py_TYPE(iterator.as_ptr())).tp_iternext {
            Some(next) => next(iterator.as_ptr()),
            None => {
                return call_method(iterator, intern!(py, "send"), &[py.None().bind(py)])
                    .map(Sent::Yielded)
                    .or_else(|error| returned(py, error));
            }
        }
    };
    if !yielded.is_null() {
        // SAFETY: a new reference.
        return Ok(Sent::Yielded(unsafe { Bound::from_owned_ptr(py, yielded) }));
    }
    match PyErr::take(py) {
        None => Ok(Sent::Returned(py.None().into_bound(py))),
        Some(error) => returned(py, error),
    }
}

/// Reads the value out of a `StopIteration`; any other exception stays one.
pub(crate) fn returned(py: Python<'_>, error: PyErr) -> PyResult<Sent<'_>> {
    if error.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) {
        return error.value(py).getattr(intern!(py, "value")).map(Sent::Returned);
    }
    Err(error)
}

/// A number that changes whenever an attribute of the object's class, or of one of its bases, is set; 0 while the
/// interpreter has given none.
#[inline]
pub(crate) fn class_version(object: &Bound<'_, PyAny>) -> u32 {
    // SAFETY: every object has a class.
    unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_version_tag }
}

/// A copy of `context`: `context.copy()`.
#[inline]
pub(crate) fn copy_of_context(context: &Bound<'_, PyAny>) -> PyResult<Ref> {
    // SAFETY: a new reference or NULL with an exception; the argument's class is checked.
    unsafe {
        Bound::from_owned_ptr_or_err(context.py(), ffi::PyContext_Copy(context.as_ptr()))
            .map(Ref::from)
    }
}

/// Hides a new object from the garbage collector, until [`show_if_shared`].
///
/// The caller owns the only reference that counts, or shows what the object refers to in its stead.
#[inline]
pub(crate) fn hide(object: &Bound<'_, PyAny>) {
    // SAFETY: an object whose class takes part in garbage collection, tracked or not.
    unsafe { ffi::PyObject_GC_UnTrack(object.as_ptr().cast()) }
}

/// Shows a hidden object to the garbage collector again, if somebody beside the caller refers to it: then it
/// may be part of a cycle.
#[inline]
pub(crate) fn show_if_shared<T>(object: &Ref<T>) {
    // SAFETY: as above; only a hidden object is tracked again.
    unsafe {
        if ffi::Py_REFCNT(object.as_ptr()) > 1 && ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0 {
            ffi::PyObject_GC_Track(object.as_ptr().cast());
        }
    }
}

/// Whether the object is hidden and the caller's reference is the only one, so that the caller may show to the
/// garbage collector what the object refers to.
#[inline]
pub(crate) fn is_hidden<T>(object: &Ref<T>) -> bool {
    // SAFETY: reads the state of a live object whose class takes part in garbage collection.
    unsafe {
        ffi::Py_REFCNT(object.as_ptr()) == 1 && ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0
    }
}

/// Whether `object` may be called.
#[inline]
pub(crate) fn is_callable(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: always succeeds.
    unsafe { ffi::PyCallable_Check(object.as_ptr()) != 0 }
}

/// A descriptor that somebody else owns; `None` for a negative number, which a closed file object reports.
///
/// Nothing says that it is still open, or the file that it was: the kernel then answers `EBADF`, or acts on
/// the other file, as it does for Python's own `os` functions.
pub(crate) fn borrow_fd<'a>(fd: i32) -> Option<std::os::fd::BorrowedFd<'a>> {
    // SAFETY: it is not -1; the callers use it for system calls at once.
    (fd >= 0).then(|| unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) })
}

/// Runs `body` with no exception set, and sets the one that was again: for destructors, which the interpreter
/// calls in the middle of anything.
pub(crate) fn keep_exception<R>(py: Python<'_>, body: impl FnOnce() -> R) -> R {
    let pending = PyErr::take(py);
    let result = body();
    if let Some(pending) = pending {
        pending.restore(py);
    }
    result
}

/// `threading.get_ident()`.
pub(crate) fn thread_ident(_py: Python<'_>) -> u64 {
    // SAFETY: has no preconditions.
    unsafe { PyThread_get_thread_ident() as u64 }
}

unsafe extern "C" {
    /// `unsigned long PyThread_get_thread_ident(void)` of `pythread.h`.
    fn PyThread_get_thread_ident() -> std::ffi::c_ulong;
}

unsafe extern "C" {
    /// `int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size)` of `bytesobject.h`, which the bindings hide.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// A `bytes` object of at most `capacity` bytes into which `fill` has written as many as it returns.
pub(crate) fn bytes_filled(
    py: Python<'_>,
    capacity: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> PyResult<io::Result<Bound<'_, PyAny>>> {
    // SAFETY: with NULL the contents are left uninitialised; NULL means MemoryError.
    let object = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyBytes_FromStringAndSize(ptr::null(), capacity.cast_signed()),
        )?
    };
    // SAFETY: the object has that much memory, and nobody else has seen it yet.
    let memory = unsafe {
        std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(object.as_ptr()).cast(), capacity)
    };
    let filled = match fill(memory) {
        Ok(filled) => filled.min(capacity),
        Err(error) => return Ok(Err(error)),
    };
    let mut resized = object.into_ptr();
    // SAFETY: the object is ours alone; on failure it is released and the pointer set to NULL.
    unsafe {
        _PyBytes_Resize(&raw mut resized, filled.cast_signed());
        Bound::from_owned_ptr_or_err(py, resized).map(Ok)
    }
}

/// A `bytes` object with a copy of `data`.
#[inline]
pub(crate) fn bytes<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the interpreter copies `data`; NULL means MemoryError.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), data.len().cast_signed()),
        )
    }
}

/// `object.__setattr__` and `object.__delattr__` (for `None`).
pub(crate) fn set_attribute(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: borrowed references; NULL deletes.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}

unsafe extern "C" {
    /// `PyObject **_PyObject_GetDictPtr(PyObject *object)` of `cpython/object.h`, which the bindings leave out.
    fn _PyObject_GetDictPtr(object: *mut ffi::PyObject) -> *mut *mut ffi::PyObject;
}

/// Whether any attribute has been set on the object itself: a method of its class may have been replaced then.
#[inline]
pub(crate) fn has_own_attributes(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: NULL for an object that has no dictionary, else the place of its dictionary, which can be NULL as long as
    // it is empty.
    unsafe {
        let place = _PyObject_GetDictPtr(object.as_ptr());
        !place.is_null() && !(*place).is_null() && ffi::PyDict_Size(*place) > 0
    }
}

/// -1 as an object: what `get_buffer` is called with.
pub(crate) fn minus_one(py: Python<'_>) -> Bound<'_, PyAny> {
    pyo3::types::PyInt::new(py, -1).into_any()
}

/// Casts without a check in release builds.
#[inline]
pub(crate) fn cast_known<'a, 'py, T: pyo3::PyTypeInfo>(
    object: &'a Bound<'py, PyAny>,
) -> &'a Bound<'py, T> {
    debug_assert!(object.is_instance_of::<T>());
    // SAFETY: only called where the class of `object` was fixed when it was stored beside the function
    // that calls this, or by a method descriptor, which checks `self`.
    unsafe { object.cast_unchecked::<T>() }
}

/// `None`, for the end of a flow.
pub(crate) fn none() -> Ref {
    Python::attach(|py| py.None().into())
}
