//! More of everything than there is room for: submissions, completions, buffers.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use oxloop_engine::Token;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::fd::AsRawFd;

use super::{Brought, NOW, Operation, bench, pattern};

pub(crate) fn more_than_fits_into_the_queues(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { entries: 8, ..config })?;
    let pairs: Vec<_> = (0..500).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    let mut expected = HashMap::new();
    for round in 0..2 {
        for (number, (left, right)) in (0_u32..).zip(&pairs) {
            let data = number.to_le_bytes().to_vec();
            let (fd, buffer) = (left.as_raw_fd(), vec![0; 4]);
            let token = bench.submit(Operation::ReceiveInto { fd, buffer });
            expected.insert(token, data.clone());
            let (fd, buffers) = (right.as_raw_fd(), vec![data]);
            bench.submit(Operation::Send { fd, buffers, skip: 0 });
        }
        assert_eq!(bench.proactor.len(), 1_000);
        let all = bench.all()?;
        assert_eq!(all.len(), 1_000, "round {round}");
        for done in all {
            assert_eq!(done.result, Ok(4));
            if let Brought::Data(data) = done.returned {
                assert_eq!(expected.remove(&done.token), Some(data));
            }
        }
        assert!(expected.is_empty());
    }
    Ok(())
}

/// Receivers that are all ready at once, by ten times what the completion queue holds.
pub(crate) fn more_completions_than_fit(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { entries: 8, buffers: 256, buffer_size: 32, ..config })?;
    let mut pairs: Vec<_> = (0..160).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    let tokens: Vec<_> = pairs
        .iter()
        .map(|(left, _)| bench.submit(Operation::Receive { fd: left.as_raw_fd() }))
        .collect();
    assert!(bench.wait(NOW)?.is_empty());
    for round in 0..3 {
        for (_, right) in &mut pairs {
            right.write_all(b"data")?;
        }
        let mut left = tokens.iter().copied().collect::<HashSet<_>>();
        while !left.is_empty() {
            for done in bench.wait(None)? {
                assert_eq!(done.returned, Brought::Data(b"data".to_vec()), "round {round}");
                assert!(done.more && left.remove(&done.token));
            }
        }
    }
    assert!(bench.wait(NOW)?.is_empty());
    Ok(())
}

pub(crate) fn more_completions_than_fit_when_suspended(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { entries: 8, buffer_size: 32, ..config })?;
    let mut pairs: Vec<_> = (0..160).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    for (left, _) in &pairs {
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    }
    assert!(bench.wait(NOW)?.is_empty());
    for round in 0..4 {
        for (_, right) in &mut pairs {
            right.write_all(b"data")?;
        }
        let mut all = bench.suspend()?;
        while all.len() < pairs.len() {
            all.extend(bench.wait(None)?);
        }
        let tokens: HashSet<_> = all.iter().map(|done| done.token).collect();
        assert_eq!(tokens.len(), pairs.len(), "round {round}");
        assert!(all.iter().all(|done| done.more && done.returned == Brought::Data(b"data".into())));
    }
    assert!(bench.suspend()?.is_empty());
    Ok(())
}

/// Twenty connections with four times as much to receive as there are buffers for.
pub(crate) fn few_buffers_last_to_the_end(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 4, buffer_size: 128, ..config })?;
    let mut pairs: Vec<_> = (0..20).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    let mut received = HashMap::new();
    for (number, (left, _)) in (0_u8..).zip(&pairs) {
        let token = bench.submit(Operation::Receive { fd: left.as_raw_fd() });
        received.insert(token, (number, Vec::new()));
    }
    assert!(bench.wait(NOW)?.is_empty());
    for (number, (_, right)) in (0_u8..).zip(&mut pairs) {
        let mut data = pattern(20_000);
        data[0] = number;
        right.write_all(&data)?;
        right.shutdown(Shutdown::Write)?;
    }
    for done in bench.all()? {
        let (_, so_far) = received.get_mut(&done.token).expect("one of them");
        match done.returned {
            Brought::Data(data) => so_far.extend(data),
            _ => assert_eq!((done.result, done.more), (Ok(0), false)),
        }
    }
    for (number, data) in received.into_values() {
        assert_eq!((data.len(), data[0]), (20_000, number));
        assert!(data[1..] == pattern(20_000)[1..]);
    }
    Ok(())
}

/// Of many with endless data nobody gets two buffers before everybody has had one.
pub(crate) fn one_buffer_goes_round(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 1, buffer_size: 16, ..config })?;
    let mut pairs: Vec<_> = (0..8).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    for (left, right) in &mut pairs {
        right.write_all(&[0; 10_000])?;
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    }
    let mut turns: HashMap<Token, usize> = HashMap::new();
    for _ in 0..80 {
        for done in bench.wait(None)? {
            *turns.entry(done.token).or_default() += 1;
        }
    }
    assert_eq!(turns.len(), 8, "{turns:?}");
    let (least, most) = (turns.values().min(), turns.values().max());
    assert!(most <= least.map(|least| least + 2).as_ref(), "{turns:?}");
    Ok(())
}

/// Few buffers at first, and as many as are needed when many have a little.
pub(crate) fn buffers_grow_with_many_messages(config: Config) -> io::Result<()> {
    const MANY: usize = 300;
    let mut bench = bench(config)?;
    let mut pairs: Vec<_> = (0..MANY).map(|_| UnixStream::pair()).collect::<io::Result<_>>()?;
    for (left, _) in &pairs {
        bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    }
    for round in 0..3 {
        for (_, right) in &mut pairs {
            right.write_all(b"data")?;
        }
        let mut held = Vec::new();
        while held.len() < MANY {
            bench.proactor.wait(&mut bench.completions, None)?;
            assert!(round > 0 || !held.is_empty() || bench.completions.len() <= 16);
            held.extend(bench.completions.drain());
        }
        for completion in held {
            assert_eq!(bench.look(completion).returned, Brought::Data(b"data".to_vec()));
        }
    }
    Ok(())
}

/// One with much to receive does not bring all of it in one turn.
pub(crate) fn buffers_do_not_grow_with_large_messages(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffer_size: 1_024, ..config })?;
    let (left, mut right) = UnixStream::pair()?;
    right.write_all(&pattern(150_000))?;
    right.shutdown(Shutdown::Write)?;
    bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    let mut received = Vec::new();
    let mut more = true;
    while more {
        bench.proactor.wait(&mut bench.completions, None)?;
        assert!(bench.completions.len() <= 33, "{}", bench.completions.len());
        for done in bench.look_at_all() {
            more = done.more;
            if let Brought::Data(data) = done.returned {
                received.extend(data);
            }
        }
    }
    assert!(received == pattern(150_000));
    Ok(())
}

pub(crate) fn chunks_that_are_left_are_given_back(config: Config) -> io::Result<()> {
    let mut bench = bench(Config { buffers: 1, buffer_size: 16, ..config })?;
    let (left, mut right) = UnixStream::pair()?;
    bench.submit(Operation::Receive { fd: left.as_raw_fd() });
    for _ in 0..10 {
        right.write_all(b"x")?;
        bench.proactor.wait(&mut bench.completions, None)?;
        assert_eq!(bench.completions.len(), 1);
    }
    Ok(())
}
