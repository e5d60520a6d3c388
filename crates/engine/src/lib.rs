//! The event loop engine of oxloop.
