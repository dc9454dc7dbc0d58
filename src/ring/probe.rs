//! What this kernel can do, and one line of advice where it cannot.

use std::io;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

/// Why no ring can be made here. Each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error(
        "Linux {found} is too old: Postern needs 6.1 or newer, for io_uring's deferred task runs and multishot receives"
    )]
    KernelTooOld { found: String },
    #[error(
        "this kernel has no io_uring (built without CONFIG_IO_URING, or a sandbox such as gVisor): use a kernel that has it"
    )]
    NotBuiltIn,
    #[error("io_uring is switched off: `sysctl -w kernel.io_uring_disabled=0` allows it (it is {value} now)")]
    SwitchedOff { value: String },
    #[error(
        "io_uring is forbidden, most likely by a seccomp profile (Docker's and containerd's defaults do): allow io_uring_setup, io_uring_enter \
         and io_uring_register in it"
    )]
    Forbidden,
    #[error(
        "the limit of locked memory ({soft} bytes) is too small for io_uring: raise it to {needed} bytes at least \
         (`LimitMEMLOCK=` in systemd, `ulimit -l` in a shell, `--ulimit memlock=` in Docker)"
    )]
    MemlockTooSmall { soft: u64, needed: u64 },
    #[error("the kernel lacks io_uring's {operation}: use Linux 6.1 or newer")]
    OperationMissing { operation: &'static str },
    #[error("io_uring could not be set up: {0}")]
    Setup(#[source] io::Error),
}

/// Locked memory that a shard's executor needs for rings of its own.
pub const MEMLOCK_NEEDED: u64 = 512 * 1024;

/// Checks everything that can be checked before a shard starts, and raises the soft limit of locked memory as far as is allowed.
///
/// # Errors
/// The first thing found wrong.
pub fn check() -> Result<(), RingError> {
    check_release(&kernel_release())?;
    raise_memlock()?;
    let uring = build(8, 16)?;
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe).map_err(setup_error)?;
    let needed = [
        (opcode::AcceptMulti::CODE, "ACCEPT"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::SendMsg::CODE, "SENDMSG"),
        (opcode::RecvMsgMulti::CODE, "RECVMSG"),
        (opcode::Close::CODE, "CLOSE"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::MsgRingData::CODE, "MSG_RING"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::Timeout::CODE, "TIMEOUT"),
        (opcode::TimeoutRemove::CODE, "TIMEOUT_REMOVE"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, operation)) => Err(RingError::OperationMissing { operation }),
        None => Ok(()),
    }
}

/// Makes the ring, with the newest set-up flags that the kernel knows.
pub(super) fn build(submissions: u32, completions: u32) -> Result<IoUring, RingError> {
    let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_cqsize(completions)
        .dontfork();
    // Linux 6.6 can do without the indirection of the submission queue's array.
    match builder.clone().setup_no_sqarray().build(submissions) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(submissions),
        built => built,
    }
    .map_err(setup_error)
}

pub(super) fn setup_error(error: io::Error) -> RingError {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    explain(error, switch.trim(), memlock_limit(), &kernel_release())
}

fn explain(error: io::Error, switch: &str, memlock: u64, release: &str) -> RingError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => RingError::NotBuiltIn,
        Some(libc::EPERM | libc::EACCES) if !matches!(switch, "" | "0") => {
            RingError::SwitchedOff { value: switch.to_owned() }
        }
        Some(libc::EPERM | libc::EACCES) => RingError::Forbidden,
        Some(libc::ENOMEM) if memlock < MEMLOCK_NEEDED => {
            RingError::MemlockTooSmall { soft: memlock, needed: MEMLOCK_NEEDED }
        }
        // What an old kernel says of flags that it does not know; but a sandbox may say so of anything.
        Some(libc::EINVAL) => check_release(release).err().unwrap_or(RingError::Setup(error)),
        _ => RingError::Setup(error),
    }
}

fn check_release(release: &str) -> Result<(), RingError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 1) {
        return Err(RingError::KernelTooOld { found: release.to_owned() });
    }
    Ok(())
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "(unknown)".into(), |text| text.trim().into())
}

fn memlock_limit() -> u64 {
    limits(libc::RLIMIT_MEMLOCK).rlim_cur
}

fn limits(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one `rlimit` to a live one.
    unsafe { libc::getrlimit(resource, &mut limits) };
    limits
}

fn raise_memlock() -> Result<(), RingError> {
    let mut limits = limits(libc::RLIMIT_MEMLOCK);
    if limits.rlim_cur < limits.rlim_max {
        limits.rlim_cur = limits.rlim_max;
        // SAFETY: reads one live `rlimit`. A refusal shows in the check below.
        unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limits) };
    }
    match memlock_limit() {
        soft if soft < MEMLOCK_NEEDED => Err(RingError::MemlockTooSmall { soft, needed: MEMLOCK_NEEDED }),
        _ => Ok(()),
    }
}

/// Raises the soft limit of open files to the hard one, and returns it.
pub fn raise_open_files() -> u64 {
    let mut limits = limits(libc::RLIMIT_NOFILE);
    limits.rlim_cur = limits.rlim_max;
    // SAFETY: reads one live `rlimit`. Where it is refused the old limit stays, and is what is returned.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) };
    self::limits(libc::RLIMIT_NOFILE).rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_older_than_six_one_are_refused_by_name() {
        for release in ["6.1", "6.1.0-13-amd64", "6.18.44-fc", "7.0.0-rc1"] {
            assert!(check_release(release).is_ok(), "{release}");
        }
        for release in ["6.0.9", "5.15.0-91-generic", "3.10"] {
            let error = check_release(release).expect_err(release).to_string();
            assert!(error.contains(release) && error.contains("6.1"), "{error}");
        }
    }

    #[test]
    fn each_refusal_names_the_setting_to_change() {
        let rows = [
            (libc::ENOSYS, "0", u64::MAX, "6.18.4", "CONFIG_IO_URING"),
            (libc::EPERM, "2", u64::MAX, "6.18.4", "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "1", u64::MAX, "6.18.4", "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "0", u64::MAX, "6.18.4", "seccomp"),
            (libc::EACCES, "", u64::MAX, "6.18.4", "seccomp"),
            (libc::ENOMEM, "0", 65536, "6.18.4", "LimitMEMLOCK"),
            (libc::EINVAL, "0", u64::MAX, "5.15.0", "5.15.0 is too old"),
            (libc::EINVAL, "0", u64::MAX, "6.18.4", "could not be set up"),
        ];
        for (code, switch, memlock, release, named) in rows {
            let error = explain(io::Error::from_raw_os_error(code), switch, memlock, release).to_string();
            assert!(error.contains(named), "{code}: {error}");
        }
    }

    #[test]
    fn this_machine_passes_its_own_check() {
        check().expect("tests run where Postern can run");
    }
}
