//! What asyncio's tasks, which are written in C, look like from here.

use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::ffi;
use pyo3::prelude::*;

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
        let flags = ffi::PyType_GetFlags(class);
        (CStr::from_ptr((*class).tp_name), flags & ffi::Py_TPFLAGS_HEAPTYPE != 0)
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
