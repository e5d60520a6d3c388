//! Child processes: that they have ended, and how.

use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};

pub use super::pidfd::pidfd_open;

/// How a process has ended, as Python's `subprocess` has it.
pub type ExitCode = i32;

/// waitpid(2) without waiting: the exit code of the child `pid`, which is then gone, or `None` while
/// it runs. The code is negative for a signal, as Python's `os.waitstatus_to_exitcode` has it.
///
/// # Errors
/// ECHILD when `pid` is no child of ours, or was waited for by somebody else.
pub fn reap(pid: i32) -> io::Result<Option<ExitCode>> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        let status = match waitpid(Some(pid), WaitOptions::NOHANG) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(None) => return Ok(None),
            Ok(Some((_, status))) => status,
        };
        if let Some(code) = status.exit_status() {
            return Ok(Some(code));
        }
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some(-signal));
        }
        // Stopped or continued: only a tracer is told that without asking for it.
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn exit_codes_and_signals() -> io::Result<()> {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        let pid = child.id().cast_signed();
        assert_eq!(reap(pid)?, None);
        drop(child.stdin.take());
        assert_eq!(wait(pid)?, 0);
        let gone = reap(pid).expect_err("it was waited for");
        assert_eq!(gone.raw_os_error(), Some(libc::ECHILD));

        let mut killed = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        killed.kill()?;
        assert_eq!(wait(killed.id().cast_signed())?, -libc::SIGKILL);

        let failed = Command::new("sh").args(["-c", "exit 7"]).spawn()?;
        assert_eq!(wait(failed.id().cast_signed())?, 7);
        Ok(())
    }

    #[test]
    fn no_process_has_this_number() {
        assert!(pidfd_open(0).is_err());
        assert!(reap(0).is_err());
    }

    fn wait(pid: i32) -> io::Result<i32> {
        if let Ok(pidfd) = pidfd_open(pid) {
            let wanted = rustix::event::PollFlags::IN;
            rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, wanted)], None)?;
            return Ok(reap(pid)?.expect("the pidfd was readable"));
        }
        loop {
            match reap(pid)? {
                Some(code) => return Ok(code),
                None => std::thread::yield_now(),
            }
        }
    }
}
