//! The Python methods that transports have word for word. `PyO3` makes methods of a class, not of a trait: so they are
//! written once as macros.

/// What every endpoint has.
macro_rules! endpoint_methods {
    ($transport:ident) => {
        #[pymethods]
        impl $transport {
            /// The current protocol.
            fn get_protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
                self.protocol(py)
            }

            /// What `close` and `abort` queue.
            fn _call_connection_lost(
                slf: &Bound<'_, Self>,
                exc: &Bound<'_, PyAny>,
            ) -> PyResult<()> {
                endpoint::lost(slf, exc)
            }

            #[getter]
            fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
                self.state.borrow().life.extra.bind(py).clone()
            }

            #[getter]
            fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
                self.core.bind(py).clone()
            }

            #[getter]
            fn _protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
                self.protocol(py)
            }
        }
    };
}

/// What those of sockets have besides: they read and write.
macro_rules! socket_methods {
    ($transport:ident) => {
        #[pymethods]
        impl $transport {
            /// Close: what is buffered is sent, then `connection_lost(None)` is called. Nothing is received any more.
            fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
                endpoint::close(slf)
            }

            /// Whether the transport is closing or closed.
            fn is_closing(slf: &Bound<'_, Self>) -> PyResult<bool> {
                Self::send_kept(slf)?; // an error of which would close it
                Ok(slf.get().state.borrow().life.phase.is_closing())
            }

            /// Whether the transport receives.
            fn is_reading(&self) -> bool {
                endpoint::is_reading(self)
            }

            /// Receive nothing until `resume_reading()`. Idempotent.
            fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
                endpoint::pause(slf)
            }

            /// Set the buffer sizes in bytes above which the protocol is told to pause writing, and at or below which
            /// to resume. Raises `ValueError` unless high >= low >= 0.
            #[pyo3(signature = (high=None, low=None))]
            fn set_write_buffer_limits(
                slf: &Bound<'_, Self>,
                #[pyo3(from_py_with = limit)] high: Option<isize>,
                #[pyo3(from_py_with = limit)] low: Option<isize>,
            ) -> PyResult<()> {
                endpoint::set_limits(slf, high, low)
            }

            /// The limits in bytes: (low, high).
            fn get_write_buffer_limits(&self) -> (usize, usize) {
                self.state.borrow().life.flow.limits()
            }

            /// The number of bytes that have been written and not yet sent.
            fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
                Self::send_kept(slf)?;
                Ok(endpoint::State::size(&*slf.get().state.borrow()))
            }

            #[getter]
            fn _sock_fd(&self) -> RawFd {
                self.state.borrow().socket.raw_fd()
            }

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                Self::send_kept(slf)?;
                Ok(slf.get().text())
            }
        }
    };
}

pub(in crate::transports) use {endpoint_methods, socket_methods};
