//! What only `io_uring` has, or has otherwise, checked with every setup that the kernel may fall back upon.
//!
//! The contract that it shares with the other systems `tests/contract` checks. Where there is no `io_uring`
//! these print why, and have nothing to check.
#![cfg(target_os = "linux")]

#[path = "../contract/bench.rs"]
mod bench;
mod descriptors;
mod endings;
mod patience;
mod pressure;
mod processes;
mod sockets;
mod withdrawal;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oxloop_engine::proactor::{self, Config, Proactor, Setup, Unavailable};
use oxloop_engine::sys::fd::AsRawFd;

use bench::{
    Bench, Brought, Buffer, Done, NOW, OWNER, Operation, SETUPS, bench, elsewhere, is_available,
    on_every_setup, pattern, read, tcp,
};

on_every_setup! { sockets:
    accepted_connections_are_not_inherited
    connecting_to_a_path
    addresses_of_no_socket
    senders_without_a_name
    both_ends_see_a_close_at_once
}

on_every_setup! { descriptors:
    full_pipes_wait_for_room
    terminals
    hang_ups_count_in_every_direction_asked_for
    half_closed_peers_make_no_room
}

on_every_setup! { patience:
    patient_polls_miss_a_few_waits
    patient_polls_tell_of_changes
    patient_polls_see_the_end
    patient_polls_see_what_a_read_has_left
    patient_polls_are_asked_before_each_sleep
    polls_pause
    pauses_let_go
}

on_every_setup! { pressure:
    more_than_fits_into_the_queues
    more_completions_than_fit
    more_completions_than_fit_when_suspended
    few_buffers_last_to_the_end
    one_buffer_goes_round
    buffers_grow_with_many_messages
    buffers_do_not_grow_with_large_messages
    chunks_that_are_left_are_given_back
}

on_every_setup! { endings:
    timeouts_have_nanoseconds
    a_signal_interrupts_the_wait
    cancelled_sends_say_how_far_they_came
    late_cancels_do_not_hit_the_next_tenant
    ending_with_a_stuck_send
    a_ring_that_never_waited_can_be_dropped
    looking_needs_no_ring
}

on_every_setup! { withdrawal:
    peers_of_withdrawn_sends_see_the_end
    withdrawing_reports_no_poll_twice
    what_is_done_once_is_reported
    submitting_and_cancelling_while_suspended
    chunks_outlive_their_ring
    a_ring_that_cannot_be_had_loses_nothing
}

impl Bench {
    /// Looks at what is there: one completion.
    fn one_now(&mut self) -> io::Result<Done> {
        let mut all = self.wait(NOW)?;
        assert_eq!(all.len(), 1, "{all:?}");
        Ok(all.remove(0))
    }
}

fn descriptors() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
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

alone! { patience:
    more_patient_polls_than_descriptors_allowed
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
    if !is_available() {
        return Ok(());
    }
    let mut bench = bench(Config { setup: Setup::Deferred, ..Config::default() })?;
    if bench.proactor.setup() != Setup::Deferred {
        return Ok(());
    }
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
