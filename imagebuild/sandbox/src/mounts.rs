//! What the sandbox's file system is made of: the tree, and the few kernel views a script needs.
//!
//! Nothing of the builder's own file system stays in reach.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::child::Refused;
use crate::emulate::{self, Emulator};

/// Device nodes that scripts may open.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What of `/proc` changes the kernel, and not a process.
const KERNEL: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Links that `/dev` always has.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes `root` a mount of this mount namespace, and goes there: who enters it later may have no
/// right to the directories that lead to it.
pub(crate) fn bind(root: &Path) -> Result<(), Refused> {
    let none = None::<&str>;
    step(
        "detach from the mounts outside",
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none),
    )?;
    step(
        "bind the tree",
        mount(
            Some(root),
            root,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        ),
    )?;
    step("go to the tree", nix::unistd::chdir(root))
}

/// Makes the tree, which is the working directory, the root of this mount namespace. What is returned keeps the emulator
/// registered.
pub(crate) fn enter(emulator: Option<&Emulator>) -> Result<Option<File>, Refused> {
    let none = None::<&str>;
    let io = |name: &str, result: io::Result<()>| result.map_err(|e| Refused::io(name, &e));
    let root = Path::new(".");
    for name in ["proc", "dev", "run", "tmp", "sys"] {
        io(
            "make the directories to mount on",
            directory(&root.join(name)),
        )?;
    }
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let proc = root.join("proc");
    step(
        "mount `/proc`",
        mount(
            Some("proc"),
            &proc,
            Some("proc"),
            guarded | MsFlags::MS_NOEXEC,
            none,
        ),
    )?;
    for name in KERNEL {
        protect(&proc.join(name))?;
    }
    for (name, options) in [
        ("dev", "mode=0755,size=1m"),
        ("run", "mode=0755"),
        ("tmp", "mode=1777"),
    ] {
        let at = root.join(name);
        let step_name = format!("mount `/{name}`");
        step(
            &step_name,
            mount(
                Some("tmpfs"),
                &at,
                Some("tmpfs"),
                MsFlags::MS_NOSUID,
                Some(options),
            ),
        )?;
    }
    devices(root)?;
    let registry = match emulator {
        Some(emulator) => emulate::register(emulator, &root.join("run/binfmt"))?,
        None => None,
    };
    io("make `/run/lock`", directory(&root.join("run/lock")))?;
    step("make the tree the root", nix::unistd::pivot_root(".", "."))?;
    step("let go of the old root", umount2(".", MntFlags::MNT_DETACH))?;
    step("go to the new root", nix::unistd::chdir("/"))?;
    Ok(registry)
}

/// Makes a part of `/proc` read-only. The kernel has its own say there; this is a second one.
fn protect(path: &Path) -> Result<(), Refused> {
    if !path.exists() {
        return Ok(());
    }
    let none = None::<&str>;
    step(
        "bind a part of `/proc`",
        mount(Some(path), path, none, MsFlags::MS_BIND, none),
    )?;
    let kept = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    step(
        "make a part of `/proc` read-only",
        mount(none, path, none, kept | read_only, none),
    )
}

fn step(name: &str, result: nix::Result<()>) -> Result<(), Refused> {
    result.map_err(|e| Refused::new(name, e))
}

fn devices(root: &Path) -> Result<(), Refused> {
    let dev = root.join("dev");
    for name in DEVICES {
        let (from, at) = (Path::new("/dev").join(name), dev.join(name));
        File::create(&at).map_err(|e| Refused::io("make a device", &e))?;
        mount(
            Some(&from),
            &at,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|e| Refused::new(&format!("bind `/dev/{name}`"), e))?;
    }
    for (name, target) in LINKS {
        std::os::unix::fs::symlink(target, dev.join(name))
            .map_err(|e| Refused::io("link a device", &e))?;
    }
    for name in ["pts", "shm"] {
        directory(&dev.join(name)).map_err(|e| Refused::io("make a device directory", &e))?;
    }
    // Terminals are a comfort: some kernels refuse them here, and no script of ours needs one.
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    if mount(
        Some("devpts"),
        &dev.join("pts"),
        Some("devpts"),
        MsFlags::MS_NOSUID,
        options,
    )
    .is_ok()
    {
        std::os::unix::fs::symlink("pts/ptmx", dev.join("ptmx"))
            .map_err(|e| Refused::io("link a device", &e))?;
    }
    Ok(())
}

fn directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
