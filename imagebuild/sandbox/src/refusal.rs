//! Why this kernel or container refuses a sandbox, and what a person can do about it.
//!
//! It changes no setting.

use std::fs;

/// Finds the setting that forbids user namespaces, and returns the remedy.
pub(crate) fn remedy(step: &str, errno: i32) -> String {
    remedy_from(step, errno, &|path| fs::read_to_string(path).ok())
}

fn remedy_from(step: &str, errno: i32, read: &dyn Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "user namespaces are switched off: set `sysctl user.max_user_namespaces=10000`"
            .into();
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "user namespaces are for root only here: set `sysctl kernel.unprivileged_userns_clone=1`, or build as root".into();
    }
    if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        return "AppArmor restricts user namespaces: set `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, give imagebuild a profile with `userns,`, or build as root".into();
    }
    if errno == libc::ENOSPC {
        return "there are too many namespaces: raise `sysctl user.max_user_namespaces`".into();
    }
    if step == "mount `/proc`" {
        return "part of /proc is hidden, as in a container: run the container with `--security-opt unmask=ALL` (podman) or `--security-opt systempaths=unconfined` (docker)".into();
    }
    let confined = read("/proc/self/status")
        .is_some_and(|status| status.lines().any(|line| line == "Seccomp:\t2"));
    if confined {
        return "a system call filter surrounds this process, as in a container: run the container with `--security-opt seccomp=unconfined` (and `apparmor=unconfined`), or outside of it".into();
    }
    if errno == libc::ENOSYS || errno == libc::EINVAL {
        return "Linux 5.10 or newer with user namespaces and seccomp is needed".into();
    }
    "see the kernel's log".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named() {
        let unshare = "unshare namespaces";
        let cases = [
            (
                unshare,
                libc::ENOSPC,
                "/proc/sys/user/max_user_namespaces",
                "0\n",
                "user.max_user",
            ),
            (
                unshare,
                libc::EPERM,
                "/proc/sys/kernel/unprivileged_userns_clone",
                "0\n",
                "userns_clone",
            ),
            (
                "map the user",
                libc::EPERM,
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "AppArmor",
            ),
            (
                unshare,
                libc::EPERM,
                "/proc/self/status",
                "Name:\tx\nSeccomp:\t2\n",
                "filter",
            ),
            ("mount `/proc`", libc::EPERM, "/none", "", "systempaths"),
            (unshare, libc::ENOSYS, "/none", "", "5.10"),
        ];
        for (step, errno, file, content, expected) in cases {
            let read = |path: &str| (path == file).then(|| content.to_owned());
            let text = remedy_from(step, errno, &read);
            assert!(text.contains(expected), "{step}: {text}");
        }
    }
}
