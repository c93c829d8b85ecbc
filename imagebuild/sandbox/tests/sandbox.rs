//! Programs of this computer run in a sandbox of their own.
//!
//! The trees hold a shell and a few tools, copied with their libraries; nothing is downloaded.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use image_sandbox::{DeviceKind, Error, Outcome, Owner, Ownership, Sandbox, Status};

const TOOLS: [&str; 16] = [
    "sh", "chown", "chgrp", "chmod", "stat", "mknod", "cat", "id", "ln", "mkdir", "mv", "rm",
    "sed", "sleep", "touch", "uname",
];

/// A tree with a shell; `None` where the kernel forbids sandboxes, which CI does not accept.
struct Tree {
    directory: tempfile::TempDir,
    owners: Ownership,
    sandbox: Sandbox,
}

impl Tree {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["bin", "proc", "dev", "run", "tmp", "sys"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let sandbox = Sandbox::new(root, env!("CARGO_BIN_EXE_sandbox-helper"));
        let mut tree = Self {
            directory,
            owners: Ownership::new(),
            sandbox,
        };
        for tool in TOOLS {
            assert!(tree.install(tool), "{tool}");
        }
        match tree.sandbox.run(&["/bin/sh", "-c", ":"], &mut tree.owners) {
            Ok(_) => Some(tree),
            Err(error @ Error::Refused { .. }) => {
                assert!(std::env::var_os("CI").is_none(), "no sandbox: {error}");
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Copies a program of this computer with its libraries; says whether there is one.
    fn install(&self, tool: &str) -> bool {
        let root = self.directory.path();
        let from = ["/bin", "/usr/bin"]
            .map(|directory| Path::new(directory).join(tool))
            .into_iter()
            .find(|path| path.exists());
        let Some(from) = from else { return false };
        fs::copy(&from, root.join("bin").join(tool)).unwrap();
        let listed = Command::new("ldd").arg(&from).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(library, to).unwrap();
        }
        true
    }

    fn sh(&mut self, script: &str) -> Outcome {
        self.sandbox
            .run(&["/bin/sh", "-ec", script], &mut self.owners)
            .unwrap()
    }

    fn says(&mut self, script: &str) -> String {
        let outcome = self.sh(script);
        let output = outcome.last_lines(100);
        assert!(outcome.succeeded(), "{script}: {} {output}", outcome.status);
        output
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn owner(&self, name: &str) -> Option<Owner> {
        let found = fs::symlink_metadata(self.path(name)).unwrap();
        self.owners.of(found.dev(), found.ino()).cloned()
    }
}

#[test]
fn owners_are_recorded_told_back_and_never_written() {
    let Some(mut tree) = Tree::new() else { return };
    let before = fs::metadata(tree.directory.path()).unwrap().uid();
    let said = tree.says(
        "mkdir d; touch d/file; ln -s file d/link
         chown 33:42 d/file; chown -h 7:8 d/link; cd d; chgrp 5 .
         stat -c %u:%g file link . /d/file",
    );
    assert_eq!(said, "33:42\n7:8\n0:5\n33:42");
    assert_eq!(tree.owner("d/file"), Some(Owner::of(33, 42)));
    assert_eq!(tree.owner("d/link"), Some(Owner::of(7, 8)));
    assert_eq!(tree.owner("d"), Some(Owner::of(0, 5)));
    assert_eq!(fs::metadata(tree.path("d/file")).unwrap().uid(), before);
    // The next program is told the same.
    assert_eq!(tree.says("stat -c %u:%g /d/file"), "33:42");
}

#[test]
fn a_file_edited_in_place_keeps_its_owner() {
    let Some(mut tree) = Tree::new() else { return };
    tree.says("echo old > /shadow; chown 0:42 /shadow; sed -i s/old/new/ /shadow");
    assert_eq!(tree.says("cat /shadow; stat -c %u:%g /shadow"), "new\n0:42");
    assert_eq!(tree.owner("shadow"), Some(Owner::of(0, 42)));
}

#[test]
fn a_new_owner_drops_the_setuid_bit() {
    let Some(mut tree) = Tree::new() else { return };
    tree.says("touch a b; chmod 6755 a; chmod 2644 b; chown 1 a b");
    let mode = |name| fs::metadata(tree.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("b")), (0o755, 0o2644));
}

#[test]
fn device_nodes_are_recorded() {
    let Some(mut tree) = Tree::new() else { return };
    let said = tree.says("mknod -m 600 /null c 1 3; stat -c '%F %t %T' /null");
    assert_eq!(said, "character special file 1 3");
    let device = tree.owner("null").unwrap().device.unwrap();
    assert_eq!(
        (device.kind, device.major, device.minor),
        (DeviceKind::Character, 1, 3)
    );
    assert!(fs::metadata(tree.path("null")).unwrap().is_file());
}

#[test]
fn a_number_used_again_is_a_new_file() {
    let Some(mut tree) = Tree::new() else { return };
    let script =
        "i=0; while [ $i -lt 50 ]; do touch x; chown 9 x; rm x; touch y$i; i=$((i+1)); done
         stat -c %u y* | sed -n '/9/p'";
    assert_eq!(tree.says(script), "");
    assert!(tree.owners.is_empty());
}

#[test]
fn a_program_is_root_alone_without_network_or_time() {
    let Some(mut tree) = Tree::new() else { return };
    assert_eq!(tree.says("id -u; id -g"), "0\n0");
    assert_eq!(tree.says("cat /proc/sys/kernel/hostname"), "localhost");
    assert_eq!(tree.says("uname -nr"), "localhost 6.1.0");
    assert_eq!(
        tree.says("sed -n '3,$p' /proc/net/dev | sed 's/:.*//'")
            .trim(),
        "lo"
    );
    assert_eq!(
        tree.says("umask; cat /dev/null; (echo x > /dev/full) 2> /dev/null || echo full"),
        "0022\nfull"
    );
    assert_eq!(
        tree.says("echo $$ > /dev/null; cat /proc/self/status | sed -n '/NoNewPrivs/s/.*\t//p'"),
        "1"
    );
}

#[test]
fn nothing_of_the_kernel_can_be_written() {
    let Some(mut tree) = Tree::new() else { return };
    let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let said = tree.says(
        "for path in sys/kernel/core_pattern sys/vm/drop_caches sysrq-trigger irq/default_smp_affinity; do
             if (: >> /proc/$path) 2> /dev/null; then echo open $path; fi
         done",
    );
    assert_eq!(said, "");
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    // Not even a user who may do anything here has a way back.
    let user = tree.says("sed 's/ *\\([0-9]*\\) *\\([0-9]*\\) .*/\\1 \\2/' /proc/self/uid_map");
    assert!(user.starts_with("0 ") && user != "0 0", "{user}");
    if tree.install("mount") && tree.install("umount") {
        let remount = "mount -o remount,bind,rw /proc/sys || umount -l /proc/sys || echo refused";
        let said = tree.says(&format!("exec 2> /dev/null; {remount}"));
        assert_eq!(said, "refused");
    }
}

#[test]
fn every_way_to_end_is_told() {
    let Some(mut tree) = Tree::new() else { return };
    let failed = tree.sh("echo reason >&2; exit 7");
    assert_eq!(
        (failed.status, failed.last_lines(1).as_str()),
        (Status::Exit(7), "reason")
    );
    assert_eq!(tree.sh("kill -9 $$").status, Status::Signal(9));
    let missing = tree
        .sandbox
        .run(&["/bin/none"], &mut tree.owners)
        .unwrap_err();
    assert!(matches!(missing, Error::Program { .. }), "{missing:?}");
    let long = tree.sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
    assert!(long.output.len() <= 64 << 10);
    assert_eq!(long.last_lines(1), "line 19999");
}

#[test]
fn what_a_program_leaves_running_is_killed() {
    let Some(mut tree) = Tree::new() else { return };
    let begin = Instant::now();
    tree.says("sleep 600 & (sleep 600 &) ; :");
    tree.sandbox.deadline = Duration::from_millis(300);
    let error = tree
        .sandbox
        .run(&["/bin/sleep", "600"], &mut tree.owners)
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

/// Perl calls what no shell tool does; the numbers are those of one architecture.
#[cfg(target_arch = "x86_64")]
#[test]
fn attributes_are_recorded_and_a_new_owner_drops_capabilities() {
    let Some(mut tree) = Tree::new() else { return };
    if !tree.install("perl") {
        assert!(std::env::var_os("CI").is_none(), "no perl to test with");
        eprintln!("skipped: no perl to test with");
        return;
    }
    tree.says("touch /file");
    let script = r#"
        my ($file, $caps, $value, $buffer) = ("/file", "security.capability", "abc", "\0" x 64);
        my ($user, $trusted) = ("user.note", "trusted.note");
        sub said { print $_[0] < 0 ? $! + 0 : $_[0], " " }
        said(syscall(188, $file, $caps, $value, 3, 0));
        said(syscall(188, $file, $user, $value, 2, 0));
        said(syscall(188, $file, $trusted, $value, 2, 0));
        said(syscall(191, $file, $user, $buffer, 64));
        said(syscall(191, $file, $caps, $buffer, 1));
        said(syscall(194, $file, $buffer, 0));
        chown 5, 6, $file;
        said(syscall(191, $file, $caps, $buffer, 64));
        said(syscall(197, $file, $caps));
        said(syscall(92, 1, 1, 1));
    "#;
    fs::write(tree.path("script"), script).unwrap();
    // EOPNOTSUPP 95, ERANGE 34, ENODATA 61, EFAULT 14
    assert_eq!(
        tree.says("LC_ALL=C perl /script").trim(),
        "0 0 95 2 34 30 61 61 14"
    );
    let owner = tree.owner("file").unwrap();
    assert_eq!((owner.uid, owner.gid), (5, 6));
    assert_eq!(
        owner.xattrs.get("user.note").map(Vec::as_slice),
        Some(&b"ab"[..])
    );
    assert_eq!(owner.xattrs.len(), 1);
}
