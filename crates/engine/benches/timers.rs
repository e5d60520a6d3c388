//! What timers and wake-ups cost, in nanoseconds for each operation.
//!
//! `cargo bench -p oxloop-engine`. The best of some runs, as noise only ever adds.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use oxloop_engine::{Engine, Inbox, Ready, Timers, Timestamp, Waker};

const COUNT: u32 = 100_000;
const RUNS: u32 = 20;

fn main() -> io::Result<()> {
    // `cargo test --benches` runs this as well; then once, to see that it works.
    let runs = if std::env::args().any(|argument| argument == "--bench") { RUNS } else { 1 };
    measure("insert, cancel 90 %, fire the rest", runs, insert_and_cancel);
    measure("insert, fire all", runs, insert_and_fire);
    measure("insert in order, fire all", runs, insert_in_order_and_fire);
    measure("ready: push, pop", runs, push_and_pop);
    let inbox = Inbox::new(Waker::new()?);
    measure("inbox: push, drain", runs, || push_and_drain(&inbox));
    measure("inbox: push to a sleeper", runs, || push_to_sleeper(&inbox));
    Ok(())
}

fn measure(name: &str, runs: u32, mut workload: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        workload();
        best = best.min(start.elapsed());
    }
    println!("{name:40} {:8.1} ns", best.as_secs_f64() * 1e9 / f64::from(COUNT));
}

/// Deadlines in no order, as connections have them.
fn deadlines() -> impl Iterator<Item = Timestamp> {
    let mut state = 88_172_645_463_325_252_u64;
    (0..COUNT).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Timestamp((state >> 32).cast_signed())
    })
}

fn insert_and_cancel() {
    let mut engine = Engine::new();
    let tokens: Vec<_> = deadlines()
        .enumerate()
        .map(|(payload, when)| engine.timers.insert(when, payload))
        .collect();
    for (index, token) in tokens.into_iter().enumerate() {
        if index % 10 != 0 {
            black_box(engine.timers.cancel(token));
        }
    }
    engine.expire(Timestamp(i64::MAX));
    assert_eq!(engine.batch_len(), COUNT as usize / 10);
}

fn insert_and_fire() {
    let mut engine = Engine::new();
    for (payload, when) in deadlines().enumerate() {
        engine.timers.insert(when, payload);
    }
    engine.expire(Timestamp(i64::MAX));
    assert_eq!(engine.batch_len(), COUNT as usize);
}

fn insert_in_order_and_fire() {
    let mut timers = Timers::new();
    for number in 0..COUNT {
        timers.insert(Timestamp(number.into()), number);
    }
    while let Some(payload) = timers.pop_due(Timestamp(i64::MAX)) {
        black_box(payload);
    }
}

fn push_and_pop() {
    let mut ready = Ready::new();
    for number in 0..COUNT {
        ready.push(number);
        if number % 64 == 63 {
            while let Some(payload) = ready.pop() {
                black_box(payload);
            }
        }
    }
}

fn push_and_drain(inbox: &Inbox<u32>) {
    let mut ready = Ready::new();
    for number in 0..COUNT {
        let _ = black_box(inbox.push(number));
        if number % 64 == 63 {
            inbox.drain_into(ready.queue_mut());
            drop(ready.drain());
        }
    }
}

fn push_to_sleeper(inbox: &Inbox<u32>) {
    let mut ready = Ready::new();
    for number in 0..COUNT {
        let _ = black_box(inbox.prepare_sleep());
        let _ = black_box(inbox.push(number));
        inbox.finish_sleep();
        inbox.waker().drain();
        inbox.drain_into(ready.queue_mut());
        black_box(ready.pop());
    }
}
