//! Processes: that they have ended, and how.
#![allow(unsafe_code)] // handles of processes

use std::io;

use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{
    GetExitCodeProcess, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
    WaitForSingleObject,
};

use super::fd::{AsRawFd, OwnedFd, handle, owned};

/// How a process has ended, as Python's `subprocess` has it: 32 bits without a sign.
pub type ExitCode = i64;

/// A handle of the process, which becomes readable when it has ended. The process need not be a
/// child. Its number stays its own as long as there is a handle.
///
/// # Errors
/// `ESRCH` of `os_error` when there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let rights = PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION;
    // SAFETY: the handle is made for us.
    unsafe { owned(OpenProcess(rights, 0, pid.cast_unsigned())) }
}

/// The exit code of the process `pid`, or `None` while it runs. Nothing is gone by that.
///
/// # Errors
/// `ESRCH` of `os_error` when there is no such process.
pub fn reap(pid: i32) -> io::Result<Option<ExitCode>> {
    let process = pidfd_open(pid)?;
    let process = handle(process.as_raw_fd());
    let mut code = 0;
    // SAFETY: the handle is open, and the code is valid for writes.
    unsafe {
        match WaitForSingleObject(process, 0) {
            WAIT_TIMEOUT => return Ok(None),
            WAIT_OBJECT_0 if GetExitCodeProcess(process, &raw mut code) != 0 => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
    Ok(Some(code.into()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::os_error;
    use super::*;

    #[test]
    fn exit_codes() -> io::Result<()> {
        let mut child =
            Command::new("cmd").arg("/q").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let pid = child.id().cast_signed();
        assert_eq!(reap(pid)?, None);
        drop(child.stdin.take());
        let ended = child.wait()?;
        assert_eq!(reap(pid)?, ended.code().map(|code| code.cast_unsigned().into()));

        let mut failed = Command::new("cmd").args(["/c", "exit -7"]).spawn()?;
        failed.wait()?;
        assert_eq!(reap(failed.id().cast_signed())?, Some(0xffff_fff9));
        Ok(())
    }

    #[test]
    fn no_process_has_this_number() {
        let error = pidfd_open(0).expect_err("it is that of no process");
        assert_eq!(error.raw_os_error(), Some(os_error::ESRCH));
    }
}
