//! A load generator for stream servers, single-threaded, on the bare engine.
//!
//! ```text
//! load (--connect HOST:PORT | --unix PATH) [--mode echo|connect|upload] [--connections N]
//!      [--size BYTES] [--seconds S] [--warmup S] [--pin CPU] [--selector KIND]
//! ```
//!
//! * `echo`: each connection sends a message, waits until all of it has come back, sends the next.
//! * `connect`: each operation connects, has one message echoed, and closes.
//! * `upload`: each connection sends without pause; what comes back is thrown away.
//!
//! Prints one line of JSON: `messages` completed within `seconds` after the warm-up, their `rate`
//! per second, `p50_us` and `p99_us` of their latency in microseconds (null for `upload`), the
//! `errors`, and `cpu_seconds`, what this process itself used meanwhile. The content of the first
//! message of every connection is compared; a difference is an error.
//!
//! For Unix: it pins itself to a processor and reads the clock of its own time there.

#[cfg(unix)]
mod connection;
#[cfg(unix)]
mod generator;
#[cfg(unix)]
mod latency;
#[cfg(unix)]
mod options;

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    generator::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("there is a load generator for Unix alone");
}
