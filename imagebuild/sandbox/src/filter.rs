//! The system call filter: which calls the kernel does, which it pretends, which are ours.
//!
//! It decides by number alone: what a call means is the supervisor's to know.

use libc::{c_long, sock_filter};

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The kernel does it.
    Allow,
    /// The supervisor answers it.
    Ask,
    /// It does nothing and succeeds.
    Pretend,
    /// It is not permitted.
    Refuse,
    /// It does not exist on this kernel.
    Missing,
}

impl Verdict {
    fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Ask => libc::SECCOMP_RET_USER_NOTIF,
            Self::Pretend => libc::SECCOMP_RET_ERRNO,
            Self::Refuse => libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
            Self::Missing => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers of x32 calls start here; no Debian package uses them, and they would slip by.
const X32: u32 = 0x4000_0000;

/// Linux 6.15 has it; `libc` does not yet.
const OPEN_TREE_ATTR: c_long = 467;

/// Calls that only the older architecture has.
#[cfg(target_arch = "x86_64")]
const OLD: &[(c_long, Verdict)] = &[
    (libc::SYS_stat, Verdict::Ask),
    (libc::SYS_lstat, Verdict::Ask),
    (libc::SYS_chown, Verdict::Ask),
    (libc::SYS_lchown, Verdict::Ask),
    (libc::SYS_mknod, Verdict::Ask),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(c_long, Verdict)] = &[];

/// Calls that are not simply allowed.
///
/// - Owners and attributes are kept in a table, so reading them must read the table too: `sed -i`,
///   `cp -p` and the tools of `/etc/shadow` copy the owner that `stat` told them.
/// - With a map of one user, changing to another fails; the caller goes on as root instead.
/// - The name and release of the kernel that builds must not get into files.
/// - Nothing of a tree in the making is worth a disk flush.
/// - What a script mounts, it could mount over what guards the kernel; namespaces are for the same.
/// - 463 to 466 are the `xattrat` calls of Linux 6.13: callers fall back to the older ones.
const SPECIAL: &[(c_long, Verdict)] = &[
    (libc::SYS_newfstatat, Verdict::Ask),
    (libc::SYS_fstat, Verdict::Ask),
    (libc::SYS_statx, Verdict::Ask),
    (libc::SYS_fchown, Verdict::Ask),
    (libc::SYS_fchownat, Verdict::Ask),
    (libc::SYS_mknodat, Verdict::Ask),
    (libc::SYS_setxattr, Verdict::Ask),
    (libc::SYS_lsetxattr, Verdict::Ask),
    (libc::SYS_fsetxattr, Verdict::Ask),
    (libc::SYS_getxattr, Verdict::Ask),
    (libc::SYS_lgetxattr, Verdict::Ask),
    (libc::SYS_fgetxattr, Verdict::Ask),
    (libc::SYS_listxattr, Verdict::Ask),
    (libc::SYS_llistxattr, Verdict::Ask),
    (libc::SYS_flistxattr, Verdict::Ask),
    (libc::SYS_removexattr, Verdict::Ask),
    (libc::SYS_lremovexattr, Verdict::Ask),
    (libc::SYS_fremovexattr, Verdict::Ask),
    (libc::SYS_uname, Verdict::Ask),
    (libc::SYS_mount, Verdict::Refuse),
    (libc::SYS_umount2, Verdict::Refuse),
    (libc::SYS_pivot_root, Verdict::Refuse),
    (libc::SYS_open_tree, Verdict::Refuse),
    (libc::SYS_move_mount, Verdict::Refuse),
    (libc::SYS_fsopen, Verdict::Refuse),
    (libc::SYS_fsconfig, Verdict::Refuse),
    (libc::SYS_fsmount, Verdict::Refuse),
    (libc::SYS_fspick, Verdict::Refuse),
    (libc::SYS_mount_setattr, Verdict::Refuse),
    (OPEN_TREE_ATTR, Verdict::Refuse),
    (libc::SYS_setns, Verdict::Refuse),
    (libc::SYS_unshare, Verdict::Refuse),
    (463, Verdict::Missing),
    (464, Verdict::Missing),
    (465, Verdict::Missing),
    (466, Verdict::Missing),
    (libc::SYS_sync, Verdict::Pretend),
    (libc::SYS_syncfs, Verdict::Pretend),
    (libc::SYS_fsync, Verdict::Pretend),
    (libc::SYS_fdatasync, Verdict::Pretend),
    (libc::SYS_sync_file_range, Verdict::Pretend),
    (libc::SYS_setuid, Verdict::Pretend),
    (libc::SYS_setgid, Verdict::Pretend),
    (libc::SYS_setreuid, Verdict::Pretend),
    (libc::SYS_setregid, Verdict::Pretend),
    (libc::SYS_setresuid, Verdict::Pretend),
    (libc::SYS_setresgid, Verdict::Pretend),
    (libc::SYS_setgroups, Verdict::Pretend),
];

/// Assembles the filter as the kernel's classic BPF.
pub(crate) fn program() -> Vec<sock_filter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut lines = vec![
        line(LOAD, 0, 0, 4), // seccomp_data.arch
        line(EQUAL, 1, 0, ARCHITECTURE),
        line(RETURN, 0, 0, Verdict::Missing.code()),
        line(LOAD, 0, 0, 0), // seccomp_data.nr
        line(AT_LEAST, 0, 1, X32),
        line(RETURN, 0, 0, Verdict::Missing.code()),
    ];
    for (number, verdict) in SPECIAL.iter().chain(OLD) {
        let Ok(number) = u32::try_from(*number) else {
            continue;
        };
        lines.push(line(EQUAL, 0, 1, number));
        lines.push(line(RETURN, 0, 0, verdict.code()));
    }
    lines.push(line(RETURN, 0, 0, Verdict::Allow.code()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for one call.
    fn run(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                0x20 => accumulator = if k == 4 { architecture } else { number },
                0x15 => at += usize::from(if accumulator == k { jt } else { jf }),
                0x35 => at += usize::from(if accumulator >= k { jt } else { jf }),
                0x06 => return k,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn calls_are_sorted_by_number_and_architecture() {
        let number = |call: c_long| u32::try_from(call).unwrap();
        let cases = [
            ("read", ARCHITECTURE, number(libc::SYS_read), Verdict::Allow),
            (
                "execve",
                ARCHITECTURE,
                number(libc::SYS_execve),
                Verdict::Allow,
            ),
            (
                "fchownat",
                ARCHITECTURE,
                number(libc::SYS_fchownat),
                Verdict::Ask,
            ),
            ("statx", ARCHITECTURE, number(libc::SYS_statx), Verdict::Ask),
            (
                "fsync",
                ARCHITECTURE,
                number(libc::SYS_fsync),
                Verdict::Pretend,
            ),
            (
                "setgroups",
                ARCHITECTURE,
                number(libc::SYS_setgroups),
                Verdict::Pretend,
            ),
            (
                "mount",
                ARCHITECTURE,
                number(libc::SYS_mount),
                Verdict::Refuse,
            ),
            (
                "setns",
                ARCHITECTURE,
                number(libc::SYS_setns),
                Verdict::Refuse,
            ),
            ("setxattrat", ARCHITECTURE, 463, Verdict::Missing),
            ("an x32 call", ARCHITECTURE, X32 + 92, Verdict::Missing),
            (
                "a call of another architecture",
                0x4000_0003,
                4,
                Verdict::Missing,
            ),
        ];
        let program = program();
        for (name, architecture, number, verdict) in cases {
            assert_eq!(
                run(&program, architecture, number),
                verdict.code(),
                "{name}"
            );
        }
    }
}
