//! The Python binding of oxloop.
