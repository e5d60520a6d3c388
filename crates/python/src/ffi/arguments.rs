//! The arguments of a call that arrived by vectorcall, read where the interpreter put them.

use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

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
    /// The arguments of a `METH_FASTCALL | METH_KEYWORDS` method.
    ///
    /// # Safety
    /// They are what the interpreter passed, and it still lends them for `'a`.
    #[inline]
    pub(super) unsafe fn new(
        py: Python<'py>,
        values: *const *mut ffi::PyObject,
        positional: ffi::Py_ssize_t,
        keywords: *mut ffi::PyObject,
    ) -> Self {
        let positional = positional.cast_unsigned();
        // SAFETY: NULL or a tuple.
        let named = if keywords.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(keywords) } };
        let total = positional + named.cast_unsigned();
        let values = if total == 0 {
            &[]
        } else {
            // SAFETY: `values` has that many entries.
            unsafe { std::slice::from_raw_parts(values, total) }
        };
        Self { py, values, positional, keywords }
    }

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
