//! What is taken back from the kernel: one operation, or all of them between two runs of a loop.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use oxloop_engine::Interest;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;

use super::{Brought, NOW, Operation, bench, elsewhere, pattern, read, refuse_rings, tcp};

pub(crate) fn peers_of_withdrawn_sends_see_the_end(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    for cancel_first in [false, true] {
        let (left, mut right) = tcp()?;
        let (fd, buffers) = (left.as_raw_fd(), vec![vec![0; 30_000_000]]);
        let token = bench.submit(Operation::Send { fd, buffers, skip: 0 });
        assert!(bench.wait(NOW)?.is_empty());
        if cancel_first {
            assert!(bench.proactor.cancel(token));
        }
        let done = bench.proactor.withdraw(token);
        drop(left);
        // With the file in the kernel's hands this would wait for ever.
        right.read_to_end(&mut Vec::new())?;
        let done = match done {
            Some(done) => bench.look(done),
            // What was sent in part.
            None => bench.one_now()?,
        };
        assert_eq!((done.token, done.more), (token, false));
    }
    Ok(())
}

/// A level is asked for by the wait that reports it, whatever was seen before.
pub(crate) fn withdrawing_reports_no_poll_twice(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, _right) = UnixStream::pair()?;
    let (watched, mut peer) = UnixStream::pair()?;
    let readable = |fd| Operation::Poll { fd, interest: Interest::READABLE };
    for (drained, expected) in [(false, 1), (true, 0)] {
        let receive = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        let poll = bench.submit(readable(watched.as_raw_fd()));
        assert!(bench.wait(Some(std::time::Duration::from_nanos(1)))?.is_empty());
        peer.write_all(b"x")?;
        assert!(bench.proactor.withdraw(receive).is_some());
        if drained {
            (&watched).read_exact(&mut [0])?;
        }
        let done = bench.wait(NOW)?;
        assert_eq!(done.iter().filter(|done| done.token == poll).count(), expected, "{done:?}");
        assert!(bench.proactor.withdraw(poll).is_some() && bench.proactor.is_empty());
        if !drained {
            (&watched).read_exact(&mut [0])?;
        }
    }
    Ok(())
}

pub(crate) fn what_is_done_once_is_reported(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let stuck = bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 10] });
    assert!(bench.wait(NOW)?.is_empty());
    // Submitted and not waited for.
    let small = bench.submit(Operation::Send { fd, buffers: vec![b"data".to_vec()], skip: 0 });
    let close = bench.submit(Operation::Close { fd: UnixStream::pair()?.0.into() });
    let done = bench.suspend()?;
    let results: HashSet<_> = done.iter().map(|done| (done.token, done.result)).collect();
    let expected = [(stuck, Err(libc::ECANCELED)), (small, Ok(4)), (close, Ok(0))];
    assert_eq!(results, HashSet::from(expected));
    assert_eq!(read(&mut right, 4)?, b"data");
    assert!(bench.proactor.is_empty());
    let large = bench.submit(Operation::Send { fd, buffers: vec![pattern(5_000_000)], skip: 0 });
    assert!(bench.wait(NOW)?.is_empty());
    let done = bench.suspend()?.remove(0);
    let (token, Ok(gone)) = (done.token, done.result) else { panic!("{done:?}") };
    assert!(token == large && gone > 0 && gone < 5_000_000);
    left.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    right.read_to_end(&mut received)?;
    assert!(received == pattern(5_000_000)[..gone]);
    Ok(())
}

pub(crate) fn submitting_and_cancelling_while_suspended(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let first = bench.submit(Operation::Receive { fd });
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.suspend()?.is_empty());
    let (second, mut bench) = elsewhere(|| {
        assert!(bench.proactor.cancel(first));
        let second = bench.submit(Operation::Receive { fd });
        let third = bench.submit(Operation::Poll { fd, interest: Interest::WRITABLE });
        let done = bench.proactor.withdraw(third).map(|done| bench.look(done).result);
        assert_eq!(done, Some(Err(libc::ECANCELED)));
        Ok((second, bench))
    })?;
    right.write_all(b"data")?;
    let mut all = bench.wait(None)?;
    while all.len() < 2 {
        all.extend(bench.wait(None)?);
    }
    assert_eq!((all[0].token, all[0].result), (first, Err(libc::ECANCELED)));
    assert_eq!((all[1].token, &all[1].returned), (second, &Brought::Data(b"data".to_vec())));
    assert!(bench.suspend()?.is_empty());
    assert!(bench.suspend()?.is_empty());
    Ok(())
}

pub(crate) fn chunks_outlive_their_ring(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 2, buffer_size: 4, ..config })?;
    let (left, mut right) = UnixStream::pair()?;
    bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    right.write_all(b"abcd")?;
    bench.proactor.wait(&mut bench.completions, None)?;
    let held: Vec<_> = bench.completions.drain().collect();
    assert_eq!(held.len(), 1);
    assert!(bench.suspend()?.is_empty());
    elsewhere(|| {
        // There is one buffer left, and it goes round.
        right.write_all(b"efghijkl")?;
        let mut received = Vec::new();
        while received.len() < 8 {
            bench.proactor.wait(&mut bench.completions, None)?;
            assert_eq!(bench.completions.len(), 1);
            let list: Vec<_> = bench.completions.drain().collect();
            for completion in list {
                let Brought::Data(data) = bench.look(completion).returned else { panic!("none") };
                received.extend(data);
            }
        }
        assert_eq!(received, b"efghijkl");
        for completion in held {
            assert_eq!(bench.look(completion).returned, Brought::Data(b"abcd".to_vec()));
        }
        // Both.
        right.write_all(b"mnopqrst")?;
        let mut held = 0;
        while held < 2 {
            bench.proactor.wait(&mut bench.completions, None)?;
            held += bench.completions.drain().map(std::mem::forget).count();
        }
        assert!(bench.suspend()?.is_empty());
        Ok(())
    })
}

pub(crate) fn a_ring_that_cannot_be_had_loses_nothing(config: Config) -> io::Result<()> {
    let mut bench = bench(config)?;
    let (left, mut right) = UnixStream::pair()?;
    bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    assert!(bench.wait(NOW)?.is_empty());
    assert!(bench.suspend()?.is_empty());
    right.write_all(b"data")?;
    let bench = elsewhere(move || {
        refuse_rings(libc::EMFILE)?;
        for _ in 0..2 {
            let error = bench.wait(NOW).expect_err("there is no ring for this thread");
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        }
        assert!(bench.suspend()?.is_empty());
        Ok(bench)
    })?;
    elsewhere(move || {
        let mut bench = bench;
        assert_eq!(bench.one()?.returned, Brought::Data(b"data".to_vec()));
        Ok(())
    })
}
