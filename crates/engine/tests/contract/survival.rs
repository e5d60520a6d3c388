//! Data that comes through whatever is done to its receivers, in an order drawn by lot.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream;

use oxloop_engine::Token;
use oxloop_engine::proactor::Config;
use oxloop_engine::sys::{fd::AsRawFd, os_error, pipe::pipe};

use super::{Brought, NOW, Operation, bench, elsewhere, pattern, tcp};

/// Numbers that look as if they had been drawn, and are the same ones each time.
struct Lot(u32);

impl Lot {
    fn draw(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % below
    }
}

pub(crate) fn streams_survive_everything(config: Config) -> io::Result<()> {
    const STREAMS: usize = 12;
    const LENGTH: usize = 20_000;
    let mut bench = bench(Config { entries: 8, buffers: 8, buffer_size: 256, ..config })?;
    let pairs: Vec<_> = (0..STREAMS).map(|_| tcp()).collect::<io::Result<_>>()?;
    let data = pattern(LENGTH);
    let mut lot = Lot(1);
    let receive = |stream: usize| Operation::Receive { fd: pairs[stream].0.as_raw_fd() };
    let mut newest: Vec<_> = (0..STREAMS).map(|stream| bench.submit(receive(stream))).collect();
    let mut streams: HashMap<Token, usize> = newest.iter().copied().zip(0..).collect();
    let (mut sent, mut received) = ([0; STREAMS], vec![Vec::new(); STREAMS]);
    while received.iter().any(|so_far| so_far.len() < LENGTH) {
        for _ in 0..lot.draw(6) {
            let stream = lot.draw(STREAMS);
            let end = (sent[stream] + lot.draw(900)).min(LENGTH);
            let mut peer: &TcpStream = &pairs[stream].1;
            peer.write_all(&data[sent[stream]..end])?;
            sent[stream] = end;
        }
        let stream = lot.draw(STREAMS);
        let mut all = Vec::new();
        match lot.draw(5) {
            0 => all = bench.suspend()?,
            1 => {
                all = bench.suspend()?;
                let more;
                (bench, more) = elsewhere(|| {
                    let mut more = bench.wait(NOW)?;
                    more.extend(bench.suspend()?);
                    Ok((bench, more))
                })?;
                all.extend(more);
            }
            2 if bench.proactor.withdraw(newest[stream]).is_some() => {
                // The kernel has let go: nothing overtakes what the old one has brought.
                newest[stream] = bench.submit(receive(stream));
                streams.insert(newest[stream], stream);
            }
            3 => drop(bench.proactor.cancel(newest[stream])),
            _ => {}
        }
        all.extend(bench.wait(NOW)?);
        for done in all {
            let stream = streams[&done.token];
            match done.returned {
                Brought::Data(data) => received[stream].extend(data),
                _ => assert_eq!((done.result, done.more), (Err(os_error::ECANCELED), false)),
            }
            if !done.more && newest[stream] == done.token {
                newest[stream] = bench.submit(receive(stream));
                streams.insert(newest[stream], stream);
            }
        }
    }
    assert!(received.iter().all(|received| *received == data));
    Ok(())
}

/// What reads from a pipe is taken back, again and again.
pub(crate) fn pipes_survive_withdrawals(config: Config) -> io::Result<()> {
    const LENGTH: usize = 20_000;
    let mut bench = bench(config)?;
    let (reader, writer) = pipe()?;
    let data = pattern(LENGTH);
    let mut lot = Lot(2);
    let (mut reading, mut writing) = (None, None);
    let (mut sent, mut received) = (0, Vec::new());
    while received.len() < LENGTH {
        if writing.is_none() && sent < LENGTH && lot.draw(3) > 0 {
            let end = (sent + 1 + lot.draw(900)).min(LENGTH);
            let buffers = vec![data[sent..end].to_vec()];
            let fd = writer.as_raw_fd();
            writing = Some(bench.submit(Operation::Write { fd, buffers, skip: 0 }));
        }
        if reading.is_none() {
            let fd = reader.as_raw_fd();
            reading = Some(bench.submit(Operation::Read { fd, buffer: vec![0; 100] }));
        }
        let mut all = Vec::new();
        match (lot.draw(4), reading) {
            (0, Some(read)) => {
                let done = bench.proactor.withdraw(read);
                all.extend(done.map(|done| bench.look(done)));
            }
            (1, Some(read)) => drop(bench.proactor.cancel(read)),
            (2, _) => all = bench.suspend()?,
            _ => {}
        }
        all.extend(bench.wait(NOW)?);
        for done in all {
            if writing == Some(done.token) {
                // Suspended halfway or not: what went has gone.
                sent += done.result.unwrap_or(0);
                writing = None;
            } else {
                assert_eq!(reading, Some(done.token));
                let Brought::Data(data) = done.returned else { panic!("{:?}", done.result) };
                assert!(done.result.is_ok() || done.result == Err(os_error::ECANCELED));
                received.extend(data);
                reading = None;
            }
        }
    }
    assert!(received == data);
    Ok(())
}
