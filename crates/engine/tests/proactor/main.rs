//! The contract of `proactor`, checked with every setup that the kernel may fall back upon.
//!
//! Where there is no `io_uring` the tests print why, and have nothing to check.
#![cfg(target_os = "linux")]

mod descriptors;
mod endings;
mod pressure;
mod processes;
mod streams;
mod withdrawal;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use oxloop_engine::proactor::{self, Config, Proactor, Returned, Setup, Unavailable};
use oxloop_engine::sys::fd::{AsRawFd, OwnedFd};
use oxloop_engine::{Address, Interest, Token};

type Buffer = Vec<u8>;
type Operation = proactor::Operation<Buffer, Buffer>;
type Completion = proactor::Completion<Buffer, Buffer>;

const NOW: Option<Duration> = Some(Duration::ZERO);
const OWNER: Token = Token::reserved(7);

/// A completion, its chunk copied and given back.
#[derive(Debug)]
struct Done {
    token: Token,
    result: Result<usize, i32>,
    returned: Brought,
    more: bool,
}

#[derive(Debug, PartialEq)]
enum Brought {
    Nothing,
    Data(Buffer),
    Datagram(Buffer, Option<Address>),
    Buffers(Vec<Buffer>),
    Readiness(Interest),
    Connection(i32),
}

/// A proactor, and what it said and nobody has asked for yet.
struct Bench {
    proactor: Proactor<Buffer, Buffer>,
    completions: proactor::Completions<Buffer, Buffer>,
    connections: Vec<OwnedFd>,
}

impl Bench {
    fn new(config: Config) -> Result<Self, Unavailable> {
        Proactor::new(config).map(Self::of)
    }

    fn of(proactor: Proactor<Buffer, Buffer>) -> Self {
        Self { proactor, completions: proactor::Completions::new(), connections: Vec::new() }
    }

    fn submit(&mut self, operation: Operation) -> Token {
        self.proactor.submit(OWNER, operation)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Done>> {
        self.proactor.wait(&mut self.completions, timeout)?;
        Ok(self.look_at_all())
    }

    fn suspend(&mut self) -> io::Result<Vec<Done>> {
        self.proactor.suspend(&mut self.completions)?;
        Ok(self.look_at_all())
    }

    fn look_at_all(&mut self) -> Vec<Done> {
        let list: Vec<_> = self.completions.drain().collect();
        list.into_iter().map(|completion| self.look(completion)).collect()
    }

    fn look(&mut self, completion: Completion) -> Done {
        let Completion { token, owner, result, returned, more } = completion;
        assert_eq!(owner, OWNER);
        let result = result.map_err(|error| error.raw_os_error().expect("an errno"));
        let filled = |mut buffer: Buffer| {
            buffer.truncate(result.unwrap_or(0));
            buffer
        };
        let returned = match returned {
            Returned::Nothing => Brought::Nothing,
            Returned::Connection(socket) => {
                self.connections.push(socket);
                Brought::Connection(self.connections.last().expect("pushed").as_raw_fd())
            }
            Returned::Chunk(chunk) => {
                let data = self.proactor.bytes(&chunk).to_vec();
                assert_eq!(data.len(), chunk.len());
                self.proactor.recycle(chunk);
                Brought::Data(data)
            }
            Returned::Buffer(buffer) => Brought::Data(filled(buffer)),
            Returned::Datagram(buffer, sender) => Brought::Datagram(filled(buffer), sender),
            Returned::Sent(buffer) => Brought::Buffers(vec![buffer]),
            Returned::Buffers(buffers) => Brought::Buffers(buffers),
            Returned::Readiness(interest) => Brought::Readiness(interest),
        };
        Done { token, result, returned, more }
    }

    /// Waits for one completion, which must be the only one.
    fn one(&mut self) -> io::Result<Done> {
        let mut all = self.wait(None)?;
        assert_eq!(all.len(), 1, "{all:?}");
        Ok(all.remove(0))
    }

    /// Looks at what is there: one completion.
    fn one_now(&mut self) -> io::Result<Done> {
        let mut all = self.wait(NOW)?;
        assert_eq!(all.len(), 1, "{all:?}");
        Ok(all.remove(0))
    }

    /// Ends an operation; its last completion, which comes now or with the next wait.
    fn withdraw(&mut self, token: Token) -> io::Result<Done> {
        if let Some(done) = self.proactor.withdraw(token) {
            return Ok(self.look(done));
        }
        let mut all = self.wait(NOW)?;
        let place = all.iter().position(|done| done.token == token && !done.more);
        Ok(all.remove(place.unwrap_or_else(|| panic!("{all:?}"))))
    }

    /// Waits until every operation has completed.
    fn all(&mut self) -> io::Result<Vec<Done>> {
        let mut all = Vec::new();
        while !self.proactor.is_empty() {
            all.extend(self.wait(None)?);
        }
        Ok(all)
    }

    /// Receives until `count` bytes are there.
    fn receive(&mut self, token: Token, count: usize) -> io::Result<Buffer> {
        let mut received = Vec::new();
        while received.len() < count {
            for done in self.wait(None)? {
                assert!(done.token == token && done.more, "{done:?}");
                let Brought::Data(data) = done.returned else { panic!("no data") };
                received.extend(data);
            }
        }
        Ok(received)
    }
}

/// Whether there is something to test; prints why, if not.
fn is_available() -> bool {
    let reason = proactor::probe().err();
    reason.inspect(|reason| println!("skipped: {reason}")).is_none()
}

/// One test per function, on every setup.
macro_rules! on_every_setup {
    ($group:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() -> io::Result<()> {
            if !is_available() {
                return Ok(());
            }
            for setup in [Setup::Deferred, Setup::Cooperative, Setup::Plain] {
                println!("{setup:?}");
                $group::$name(Config { setup, ..Config::default() })?;
            }
            Ok(())
        })*
    };
}

on_every_setup! { streams:
    accepting_goes_on
    receiving_goes_on_until_the_end
    receiving_into_a_buffer_of_ones_own
    sends_gather_in_order
    large_sends_are_whole
    a_broken_connection_gives_the_buffers_back
    connecting
    shutting_down_and_closing
    many_connections_and_messages
}

on_every_setup! { descriptors:
    datagrams
    pipes
    terminals
    polls_are_level_triggered
    polls_report_errors_in_every_direction
    polls_of_no_interest_are_silent
    closed_descriptors_are_an_error_of_the_completion
    bad_addresses_are_an_error_of_the_completion
}

on_every_setup! { pressure:
    more_than_fits_into_the_queues
    more_completions_than_fit
    more_completions_than_fit_when_suspended
    streams_survive_everything
    receivers_share_few_buffers
    one_buffer_goes_round
    buffers_grow_with_many_messages
    buffers_do_not_grow_with_large_messages
    chunks_that_are_left_are_given_back
}

on_every_setup! { endings:
    timeouts_have_nanoseconds
    wakers_end_waits
    a_signal_interrupts_the_wait
    cancelling
    cancelling_what_rests
    cancelling_loses_no_data
    names_die_with_the_last_completion
    dropping_with_operations_under_way
    closing_gives_everything_back
    a_ring_that_never_waited_can_be_dropped
    looking_needs_no_ring
}

on_every_setup! { withdrawal:
    a_withdrawn_listener_is_closed
    peers_of_the_withdrawn_see_the_end
    withdrawing_loses_nothing
    withdrawing_reports_no_poll_twice
    what_is_withdrawn_at_rest_is_gone
    going_on_elsewhere
    what_is_done_once_is_reported
    submitting_and_cancelling_while_suspended
    chunks_outlive_their_ring
    a_ring_that_cannot_be_had_loses_nothing
    a_suspended_proactor_survives_its_thread
}

/// Runs something on a thread of its own.
fn elsewhere<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let left = TcpStream::connect(listener.local_addr()?)?;
    let (right, _) = listener.accept()?;
    left.set_nodelay(true)?;
    right.set_nodelay(true)?;
    left.set_nonblocking(true)?;
    Ok((left, right))
}

fn read(stream: &mut impl Read, count: usize) -> io::Result<Buffer> {
    let mut data = vec![0; count];
    stream.read_exact(&mut data)?;
    Ok(data)
}

/// Bytes of which each tells where it belongs.
fn pattern(count: usize) -> Buffer {
    (0..count)
        .map(|place| (place % 251).to_le_bytes()[0] ^ (place / 251).to_le_bytes()[0])
        .collect()
}

fn descriptors() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

fn bench(config: Config) -> io::Result<Bench> {
    Bench::new(config).map_err(io::Error::other)
}

/// One test per function, in a process of its own.
macro_rules! alone {
    ($group:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() -> io::Result<()> {
            if !is_available() {
                return Ok(());
            }
            if std::env::var_os("OXLOOP_TEST_ALONE").is_some() {
                return $group::$name();
            }
            let status = std::process::Command::new(std::env::current_exe()?)
                .args(["--exact", stringify!($name)])
                .env("OXLOOP_TEST_ALONE", "1")
                .status()?;
            assert!(status.success());
            Ok(())
        })*
    };
}

alone! { processes:
    rings_leave_nothing_behind
    many_threads_close_their_rings
    ten_thousand_connections_leave_nothing_behind
    children_drop_their_copy
    children_go_on_with_their_copy
}

#[test]
fn a_ring_belongs_to_the_thread_that_waits_first() -> io::Result<()> {
    let config = Config { setup: Setup::Deferred, ..Config::default() };
    let mut bench = match Bench::new(config) {
        Ok(bench) if bench.proactor.setup() == Setup::Deferred => bench,
        Ok(_) => return Ok(()),
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let (left, mut right) = UnixStream::pair()?;
    let fd = left.as_raw_fd();
    let (to_owner, from_main) = std::sync::mpsc::channel::<Bench>();
    let (to_main, from_owner) = std::sync::mpsc::channel::<Bench>();
    let gone = || io::Error::other("the other thread has panicked");
    std::thread::scope(|scope| {
        // Made here, used there.
        let owner = scope.spawn(move || -> io::Result<Done> {
            bench.submit(Operation::ReceiveInto { fd, buffer: vec![0; 4] });
            assert!(bench.wait(NOW)?.is_empty());
            to_main.send(bench).map_err(|_| gone())?;
            from_main.recv().map_err(io::Error::other)?.one()
        });
        let mut bench = from_owner.recv().map_err(|_| gone())?;
        let error = bench.wait(None).expect_err("the ring is another thread's");
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        // Nothing is lost by the attempt.
        right.write_all(b"x")?;
        to_owner.send(bench).map_err(|_| gone())?;
        assert_eq!(owner.join().expect("no panic")?.returned, Brought::Data(b"x".to_vec()));
        io::Result::Ok(())
    })
}

#[test]
fn sizes_are_checked() {
    let default = Config::default();
    for config in [
        Config { entries: 0, ..default },
        Config { entries: 32_769, ..default },
        Config { buffers: 0, ..default },
        Config { buffers: 3, ..default },
        Config { buffer_size: 0, ..default },
        Config { buffer_size: u32::MAX, ..default },
    ] {
        let reason = Proactor::<Buffer, Buffer>::new(config).expect_err("out of range");
        assert!(matches!(reason, Unavailable::Sizes | Unavailable::System), "{reason}");
    }
}

#[test]
fn reasons_can_be_read() {
    // A filter of this thread stands in for old kernels, containers and limits.
    let reasons = [libc::ENOSYS, libc::EPERM, libc::ENOMEM, libc::EMFILE].map(|error| {
        std::thread::spawn(move || {
            refuse_rings(error).expect("a thread may restrict itself");
            proactor::probe().expect_err("the filter refuses")
        })
        .join()
        .expect("no panic")
    });
    let [kernel, forbidden, memory, other] = reasons;
    if matches!(kernel, Unavailable::System) {
        return;
    }
    assert!(matches!(kernel, Unavailable::Kernel), "{kernel:?}");
    assert!(kernel.to_string().contains("ENOSYS"));
    assert!(
        matches!(forbidden, Unavailable::Forbidden | Unavailable::Disabled(1..)),
        "{forbidden:?}"
    );
    assert!(forbidden.to_string().contains("seccomp"), "{forbidden}");
    assert!(matches!(memory, Unavailable::Memory), "{memory:?}");
    assert!(memory.to_string().contains("ulimit -l"));
    assert!(matches!(other, Unavailable::Other(_)), "{other:?}");
    assert!(other.to_string().contains("open files"), "{other}");
    let disabled = Unavailable::Disabled(2).to_string();
    assert!(disabled.contains("kernel.io_uring_disabled is 2"), "{disabled}");
}

#[test]
fn shared_bytes_can_be_sent() -> io::Result<()> {
    let mut proactor = match Proactor::<Arc<[u8]>, Box<[u8]>>::new(Config::default()) {
        Ok(proactor) => proactor,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let (left, mut right) = UnixStream::pair()?;
    let data: Arc<[u8]> = Arc::from(&b"shared"[..]);
    let (fd, buffers) = (left.as_raw_fd(), vec![Arc::clone(&data), Arc::clone(&data)]);
    proactor.submit(OWNER, proactor::Operation::Send { fd, buffers, skip: 0 });
    assert_eq!(Arc::strong_count(&data), 3);
    let mut completions = proactor::Completions::new();
    proactor.wait(&mut completions, None)?;
    assert_eq!(read(&mut right, 12)?, b"sharedshared");
    drop(completions);
    assert_eq!(Arc::strong_count(&data), 1);
    Ok(())
}

/// Makes `io_uring_setup(2)` fail in this thread from now on.
#[expect(unsafe_code)]
fn refuse_rings(error: i32) -> io::Result<()> {
    let refused = u32::try_from(libc::SYS_io_uring_setup).expect("small");
    let answer = libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("small"),
        jt,
        jf,
        k,
    };
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, refused),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, answer),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid, and the kernel copies it.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The two ends of a terminal, raw, the first of them non-blocking.
fn open_terminal() -> io::Result<(OwnedFd, std::fs::File)> {
    use rustix::pty::{OpenptFlags, grantpt, ptsname, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = rustix::pty::openpt(flags)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let path = name.to_str().map_err(io::Error::other)?;
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    rustix::io::ioctl_fionbio(&controller, true)?;
    Ok((controller, terminal))
}

/// Runs `wait` and sends its thread a signal whenever that sleeps, until it returns; says how many
/// signals that took.
#[expect(unsafe_code)]
fn interrupted<T>(wait: impl FnOnce() -> T) -> (T, usize) {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_signal: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: the handler only counts, which is safe in a handler; without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    // SAFETY: no preconditions.
    let target = unsafe { libc::pthread_self() };
    let state = format!("/proc/self/task/{}/stat", rustix::thread::gettid().as_raw_nonzero());
    let sleeps = || std::fs::read_to_string(&state).is_ok_and(|state| state.contains(") S "));
    let done = AtomicBool::new(false);
    let before = HANDLED.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut expected = before;
            while !done.load(Ordering::SeqCst) {
                if HANDLED.load(Ordering::SeqCst) == expected && sleeps() {
                    expected += 1;
                    // SAFETY: the target waits for this thread at the end of the scope.
                    unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                }
                std::thread::yield_now();
            }
        });
        let result = wait();
        let signals = HANDLED.load(Ordering::SeqCst) - before;
        done.store(true, Ordering::SeqCst);
        (result, signals)
    })
}
