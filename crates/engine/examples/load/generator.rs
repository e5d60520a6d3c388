//! The turns of the load generator, and what it measures.

use std::error::Error;
use std::io::{self, Write};

use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::{Engine, Events, Interest, Selector, Slots, Timestamp, Token};
use rustix::time::{ClockId, clock_gettime};

use crate::connection::{Connection, Step};
use crate::latency::Latencies;
use crate::options::{Mode, Options};

const BUFFER_SIZE: usize = 256 * 1024;

/// What the engine schedules.
enum Work {
    Serve(Token, Interest),
    /// Opens one more connection: the next operation of mode `connect`.
    Open,
    /// The warm-up is over.
    Measure,
    Stop,
}

/// What is counted while measuring.
struct Tally {
    start: Timestamp,
    cpu_start: f64,
    messages: u64,
    errors: u64,
    latencies: Latencies,
}

struct Load {
    options: Options,
    engine: Engine<Work>,
    selector: Selector,
    connections: Slots<Connection>,
    message: Box<[u8]>,
    buffer: Box<[u8]>,
    tally: Tally,
    /// Cleared by `Work::Stop`, or when the last connection has failed.
    running: bool,
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    if let Some(cpu) = options.pin {
        pin(cpu)?;
    }
    let mut load = Load::new(options)?;
    load.open_all()?;
    let now = Timestamp::now();
    let measure = Timestamp::from_seconds(now.as_seconds() + load.options.warmup);
    let stop = Timestamp::from_seconds(measure.as_seconds() + load.options.seconds);
    load.engine.timers.insert(measure, Work::Measure);
    load.engine.timers.insert(stop, Work::Stop);
    let mut events = Events::with_capacity(1024);
    while load.running {
        load.turn(&mut events)?;
    }
    load.report()?;
    Ok(())
}

impl Load {
    fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            selector: Selector::new(options.selector)?,
            engine: Engine::new(),
            connections: Slots::new(),
            message: (0..=250).cycle().take(options.size).collect(),
            buffer: vec![0; BUFFER_SIZE].into(),
            tally: Tally::new(),
            running: true,
            options,
        })
    }

    fn open_all(&mut self) -> io::Result<()> {
        for _ in 0..self.options.connections {
            if self.options.mode == Mode::Connect {
                self.engine.ready.push(Work::Open);
            } else {
                // One after the other, so that no listener's backlog overflows.
                let connection = Connection::open_and_wait(&self.options.peer)?;
                self.watch(connection)?;
            }
        }
        Ok(())
    }

    fn watch(&mut self, connection: Connection) -> io::Result<()> {
        let (number, interest) = (connection.socket.as_raw_fd(), connection.interest);
        let token = self.connections.insert(connection);
        self.selector.register(number, token, interest)
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.engine.timeout(Timestamp::now(), false);
        self.selector.wait(events, timeout)?;
        for event in events.iter() {
            self.engine.ready.push(Work::Serve(event.token, event.readiness));
        }
        self.engine.expire(Timestamp::now());
        for _ in 0..self.engine.batch_len() {
            match self.engine.ready.pop() {
                Some(Work::Serve(token, readiness)) => self.serve(token, readiness)?,
                Some(Work::Open) => match Connection::open(&self.options.peer) {
                    Ok(connection) => self.watch(connection)?,
                    Err(error) => self.failed(&error),
                },
                Some(Work::Measure) => self.tally = Tally::new(),
                Some(Work::Stop) => self.running = false,
                None => break,
            }
        }
        Ok(())
    }

    fn serve(&mut self, token: Token, readiness: Interest) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        let step = match self.options.mode {
            Mode::Upload => connection.upload(readiness, &self.message, &mut self.buffer),
            Mode::Echo | Mode::Connect => {
                connection.echo(readiness, &self.message, &mut self.buffer)
            }
        };
        match step {
            Ok(Step::Waiting) => {}
            Ok(Step::Sent(messages)) => self.tally.messages += messages,
            Ok(Step::Echoed) => {
                let now = Timestamp::now();
                self.tally.messages += 1;
                self.tally.latencies.add(now.saturating_duration_since(connection.started));
                if self.options.mode == Mode::Connect {
                    self.close(token)?;
                    self.engine.ready.push(Work::Open);
                    return Ok(());
                }
                if let Err(error) = connection.next_message(now, &self.message) {
                    self.close(token)?;
                    self.failed(&error);
                    return Ok(());
                }
            }
            Err(error) => {
                self.close(token)?;
                self.failed(&error);
                return Ok(());
            }
        }
        let wanted = connection.wanted(self.options.mode, self.message.len());
        if wanted != connection.interest {
            connection.interest = wanted;
            self.selector.modify(connection.socket.as_raw_fd(), token, wanted)?;
        }
        Ok(())
    }

    fn close(&mut self, token: Token) -> io::Result<()> {
        if let Some(connection) = self.connections.remove(token) {
            self.selector.deregister(connection.socket.as_raw_fd())?;
        }
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) {
        if self.tally.errors == 0 {
            eprintln!("load: the first error: {error}");
        }
        self.tally.errors += 1;
        if self.options.mode == Mode::Connect {
            self.engine.ready.push(Work::Open);
        } else if self.connections.is_empty() {
            self.running = false;
        }
    }

    fn report(&mut self) -> io::Result<()> {
        let seconds = Timestamp::now().saturating_duration_since(self.tally.start).as_secs_f64();
        let cpu_seconds = cpu_seconds() - self.tally.cpu_start;
        #[expect(clippy::cast_precision_loss)]
        let rate = self.tally.messages as f64 / seconds;
        let micros = |part| match self.tally.latencies.percentile(part) {
            Some(micros) => format!("{micros:.1}"),
            None => "null".to_owned(),
        };
        let (p50, p99) = (micros(0.50), micros(0.99));
        let Tally { messages, errors, .. } = self.tally;
        let Options { mode, connections, size, .. } = &self.options;
        writeln!(
            io::stdout(),
            "{{\"mode\": \"{}\", \"connections\": {connections}, \"size\": {size}, \
             \"messages\": {messages}, \"seconds\": {seconds:.6}, \"rate\": {rate:.1}, \
             \"p50_us\": {p50}, \"p99_us\": {p99}, \"errors\": {errors}, \
             \"cpu_seconds\": {cpu_seconds:.3}}}",
            mode.name(),
        )
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            start: Timestamp::now(),
            cpu_start: cpu_seconds(),
            messages: 0,
            errors: 0,
            latencies: Latencies::new(),
        }
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss)]
    let (seconds, nanos) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds + nanos / 1e9
}

/// Keeps this process on one processor.
#[cfg(target_os = "linux")]
fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Keeps this process on one processor.
#[cfg(not(target_os = "linux"))]
fn pin(_cpu: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
