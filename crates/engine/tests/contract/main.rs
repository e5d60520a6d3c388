//! The contract of `proactor` with what every system has: TCP, UDP, pipes and processes.
//!
//! What only `io_uring` has, or has otherwise, its own tests (`tests/proactor`) check. Where there is no proactor
//! these print why, and have nothing to check.

mod bench;
mod descriptors;
mod endings;
mod streams;
mod survival;
mod withdrawal;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use oxloop_engine::Token;
use oxloop_engine::proactor::Config;

use bench::{
    Bench, Brought, Buffer, NOW, Operation, bench, elsewhere, on_every_setup, pattern, read, tcp,
};

on_every_setup! { streams:
    accepting_goes_on
    many_connections_wait_to_be_accepted
    listeners_are_shared
    receiving_goes_on_until_the_end
    receiving_into_a_buffer_of_ones_own
    sends_gather_in_order
    large_sends_are_whole
    a_broken_connection_gives_the_buffers_back
    connecting
    shutting_down_and_closing
    many_connections_and_messages
    receivers_share_few_buffers
}

on_every_setup! { descriptors:
    datagrams
    datagrams_that_are_cut
    pipes
    named_pipes
    polls_are_level_triggered
    patient_polls_miss_little
    polls_report_errors_in_every_direction
    polls_of_no_interest_are_silent
    polls_of_a_connect
    polls_of_a_listener
    many_polls
    processes
    closed_descriptors_are_an_error_of_the_completion
    closing_what_is_watched
    bad_addresses_are_an_error_of_the_completion
}

on_every_setup! { endings:
    timeouts_are_never_early
    wakers_end_waits
    a_wake_up_before_the_wait_ends_it
    nobody_sleeps_through_a_push
    cancelling
    cancelling_what_rests
    cancelling_loses_no_data
    names_die_with_the_last_completion
    dropping_with_operations_under_way
    closing_gives_everything_back
}

on_every_setup! { withdrawal:
    a_withdrawn_listener_is_closed
    peers_of_the_withdrawn_see_the_end
    withdrawing_loses_nothing
    what_is_withdrawn_at_rest_is_gone
    withdrawing_loses_no_wake_up
    going_on_elsewhere
    operations_survive_their_thread
}

on_every_setup! { survival:
    streams_survive_everything
    pipes_survive_withdrawals
}

impl Bench {
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

/// An address at which nobody listens, as long as the socket lives.
fn nobody() -> io::Result<(socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().expect("it is IPv4");
    Ok((socket, address))
}

/// Connects to a listener that was closed, until it is refused.
///
/// A process that another test is starting has a copy of every descriptor until it runs its own program.
fn refused(address: SocketAddr) {
    let started = Instant::now();
    let error = loop {
        match TcpStream::connect(address) {
            Ok(_) if started.elapsed() < Duration::from_secs(30) => std::thread::yield_now(),
            other => break other.expect_err("nobody listens"),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// Receives on a socket that does not block what is on its way.
fn take(mut socket: &TcpStream, count: usize) -> io::Result<Buffer> {
    socket.set_nonblocking(false)?;
    let data = read(&mut socket, count)?;
    socket.set_nonblocking(true)?;
    Ok(data)
}

/// The kind of an error that a completion has brought.
fn kind<T>(result: Result<T, i32>) -> Option<io::ErrorKind> {
    result.err().map(|error| io::Error::from_raw_os_error(error).kind())
}
