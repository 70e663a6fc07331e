//! What a worker gives up before it sees a guest, and a compiling child before it looks at a component.
//!
//! [`limit`] is for the start: no new privileges, no files but the three standard ones, limits of the process. [`seal`]
//! comes when everything that needs files, sockets or privileges is there: from then on the kernel answers only the
//! system calls in [`ALLOWED`], for every thread.
//!
//! What is not in the list gets EPERM, because a library that asks for something it can do without is no reason to end
//! a namespace's guests. What only an intruder would try ([`FATAL`]: processes, programs, sockets, other processes'
//! memory, memory that is writable and executable) ends the process, so that it is seen.
//!
//! Not limited: RLIMIT_NPROC counts all processes of the user, not ours, so that it would be somebody else's limit; that
//! only threads can be made is what the seal sees to. RLIMIT_AS counts the pool of memories, which is reserved and not
//! used: it is set after the reservation, to what is mapped then and [`ADDRESS_SPACE_MORE`].

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use preempt_rt::sched::{Pid, PreemptRtError, Scheduler, SchedulerParams, set_scheduler};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::body::BoxError;

/// Open files: sockets, and one for each memory image of each loaded module.
const FILES_MAX: u64 = 8192;
/// Bytes of a file. Nothing can be opened for writing, but memory images are files in memory; the engine makes none
/// that is larger than 16 MiB or twice its component, of 64 MiB at most.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Address space for the host's own memory, code and stacks, on top of what is mapped when the process is sealed.
const ADDRESS_SPACE_MORE: u64 = 8 << 30;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// System calls that take any arguments, and why they are needed.
const ALLOWED: &[i64] = &[
    // Sockets and files that are there already.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Memory: of the host, of guests (slots, their images) and for code. Writable code is ruled out below.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    // Clocks and randomness, where the vDSO does not answer.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Threads and their ends. `clone` is ruled below; `clone3` is answered ENOSYS, and libc falls back.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpriority,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Traps of guests are signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// System calls that end the process.
const FATAL: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
];

/// `_IOWR('f', 16, struct pm_scan_arg)`: which pages of a slot are dirty.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// `PR_SET_VMA`, by which allocators name their memory.
const PR_SET_VMA: u64 = 0x5356_4d41;
const WRITE_AND_EXECUTE: u64 = (libc::PROT_WRITE | libc::PROT_EXEC) as u64;
const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;

/// The first thing of all.
pub(super) fn limit() -> Result<(), BoxError> {
    nix::sys::prctl::set_no_new_privs()?;
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, FILE_BYTES_MAX),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
    ] {
        lower(resource, most)?;
    }
    // Everything of ours closes when a program starts; what somebody else left open is not ours to keep.
    let listed = fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = listed
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > libc::STDERR_FILENO) {
        // The list was a file as well, and is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Sets a limit and takes away the right to raise it again.
fn lower(resource: Resource, most: u64) -> Result<(), BoxError> {
    let (_, ceiling) = getrlimit(resource)?;
    let most = most.min(ceiling);
    setrlimit(resource, most, most)?;
    Ok(())
}

/// The last thing before guests, or before a component is compiled.
pub(crate) fn seal() -> Result<(), BoxError> {
    let mapped = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = mapped.split(' ').next().unwrap_or_default().parse()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let bytes = pages.saturating_mul(u64::try_from(page)?);
    lower(
        Resource::RLIMIT_AS,
        bytes.saturating_add(ADDRESS_SPACE_MORE),
    )?;
    for filter in filters()? {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(())
}

/// Of several answers to one system call the kernel takes the hardest: end, then error, then permission.
fn filters() -> Result<Vec<BpfProgram>, BoxError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let own = u64::from(std::process::id());
    let mut allowed: Rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    allowed.insert(
        libc::SYS_ioctl,
        vec![rule(1, Width::Dword, Is::Eq, PAGEMAP_SCAN)?],
    );
    allowed.insert(
        libc::SYS_prctl,
        vec![
            rule(0, Width::Dword, Is::Eq, libc::PR_SET_NAME as u64)?,
            rule(0, Width::Dword, Is::Eq, PR_SET_VMA)?,
        ],
    );
    // Threads may make way for others, and not push ahead: a priority below zero is a large number here.
    allowed.insert(
        libc::SYS_setpriority,
        vec![rule(2, Width::Dword, Is::Le, 19)?],
    );
    // What a core starts for blocking work leaves its processor. 0 is the thread itself.
    allowed.insert(
        libc::SYS_sched_setaffinity,
        vec![rule(0, Width::Dword, Is::Eq, 0)?],
    );
    // None is scheduled in real time, or chooses for others.
    let policies = [libc::SCHED_OTHER, libc::SCHED_BATCH];
    let policies = policies.map(|policy| {
        let itself = condition(0, Width::Dword, Is::Eq, 0)?;
        let so = condition(1, Width::Dword, Is::Eq, policy as u64)?;
        Ok::<_, BoxError>(SeccompRule::new(vec![itself, so])?)
    });
    allowed.insert(
        libc::SYS_sched_setscheduler,
        policies.into_iter().collect::<Result<_, _>>()?,
    );
    // A process may end itself by a signal, and nobody else.
    allowed.insert(libc::SYS_tgkill, vec![rule(0, Width::Dword, Is::Eq, own)?]);
    let commands = [libc::F_GETFL, libc::F_SETFL, libc::F_GETFD, libc::F_SETFD];
    let commands = commands.into_iter().chain([libc::F_ADD_SEALS]);
    allowed.insert(
        libc::SYS_fcntl,
        commands
            .map(|command| rule(1, Width::Dword, Is::Eq, command as u64))
            .collect::<Result<_, _>>()?,
    );
    let missing = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let mut fatal: Rules = FATAL.iter().map(|call| (*call, Vec::new())).collect();
    fatal.insert(
        libc::SYS_clone,
        vec![rule(0, Width::Qword, Is::MaskedEq(CLONE_THREAD), 0)?],
    );
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        let both = rule(
            2,
            Width::Qword,
            Is::MaskedEq(WRITE_AND_EXECUTE),
            WRITE_AND_EXECUTE,
        )?;
        fatal.insert(call, vec![both]);
    }
    use SeccompAction::{Allow, Errno, KillProcess};
    let filter = |rules, matching, otherwise| -> Result<BpfProgram, BoxError> {
        let filter = SeccompFilter::new(rules, otherwise, matching, arch)?;
        Ok(BpfProgram::try_from(filter)?)
    };
    Ok(vec![
        filter(fatal, KillProcess, Allow)?,
        filter(missing, Errno(libc::ENOSYS as u32), Allow)?,
        // Last: nothing can be installed after it.
        filter(allowed, Allow, Errno(libc::EPERM as u32))?,
    ])
}

fn rule(argument: u8, width: Width, is: Is, value: u64) -> Result<SeccompRule, BoxError> {
    Ok(SeccompRule::new(vec![condition(
        argument, width, is, value,
    )?])?)
}

fn condition(argument: u8, width: Width, is: Is, value: u64) -> Result<SeccompCondition, BoxError> {
    Ok(SeccompCondition::new(argument, width, is, value)?)
}

type Attempt = fn() -> std::io::Result<()>;

fn schedule(scheduler: Scheduler, priority: i32) -> std::io::Result<()> {
    set_scheduler(
        Pid::current_thread(),
        scheduler,
        SchedulerParams { priority },
    )
    .map_err(|error| match error {
        PreemptRtError::Errno(code) => std::io::Error::from_raw_os_error(code),
        other => std::io::Error::other(other),
    })
}

/// What a [`self_test`] can try.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("thread", || {
        let thread = std::thread::Builder::new().spawn(std::time::Instant::now)?;
        thread
            .join()
            .map(drop)
            .map_err(|_| std::io::ErrorKind::Other.into())
    }),
    ("batch-scheduling", || schedule(Scheduler::SCHED_BATCH, 0)),
    ("real-time-scheduling", || {
        schedule(Scheduler::SCHED_FIFO, 1)
    }),
    ("memory", || {
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        Ok(())
    }),
    ("read-file", || fs::read("/proc/self/status").map(drop)),
    ("write-file", || fs::write("/tmp/weft-worker-self-test", "")),
    ("list-folder", || fs::read_dir("/").map(drop)),
    ("make-folder", || {
        fs::create_dir("/tmp/weft-worker-self-test")
    }),
    ("remove-file", || {
        fs::remove_file("/tmp/weft-worker-self-test")
    }),
    ("change-folder", || std::env::set_current_dir("/tmp")),
    ("signal", || {
        nix::sys::signal::kill(nix::unistd::Pid::this(), None).map_err(Into::into)
    }),
    ("change-user", || {
        nix::unistd::setuid(nix::unistd::Uid::current()).map_err(Into::into)
    }),
    ("raise-limit", || {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(Into::into)
    }),
    ("udp", || std::net::UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("tcp", || {
        std::net::TcpStream::connect("127.0.0.1:9").map(drop)
    }),
    ("unix-socket", || {
        std::os::unix::net::UnixStream::pair().map(drop)
    }),
    ("program", || {
        std::process::Command::new("/bin/true").status().map(drop)
    }),
];

/// Limits and seals this process as a worker does, tries one thing, and says what came of it. Without a name, which
/// names there are. For a process of its own: there is no way back.
pub fn self_test(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        for (name, _) in ATTEMPTS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let Some((_, attempt)) = ATTEMPTS.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no attempt named {name}");
        return ExitCode::FAILURE;
    };
    if let Err(error) = limit().and_then(|()| seal()) {
        eprintln!("this process could not be sealed: {error}");
        return ExitCode::FAILURE;
    }
    match attempt() {
        Ok(()) => println!("allowed"),
        Err(error) => println!("refused: {error}"),
    }
    ExitCode::SUCCESS
}
