//! The end of stage1: the agent is left behind, the initramfs is emptied, and the image's own
//! init takes over.
//!
//! What it writes stands in `/run`; the image is not touched. After [`switch_root`] has begun to
//! delete there is no way back, so everything that can be checked is checked before.

use std::convert::Infallible;
use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use image_manifest::{BootImage, Digest, HostConfig, Report, Token};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::session::{self, Appliance, Session};
use crate::{cmdline, console, rootfs};

/// The image's own init, as every distribution names it.
const INIT: &str = "/sbin/init";
const AGENT: &str = "/run/firstboot/agent";
const CONFIG: &str = "/run/firstboot/agent.json";
const COMMAND_LINE: &str = "/run/firstboot/cmdline";
const UNIT: &str = "/run/systemd/system/firstboot-agent.service";
const WANTS: &str = "/run/systemd/system/multi-user.target.wants";

/// `RAMFS_MAGIC` of `linux/magic.h`.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Seconds between two looks of an agent that only speaks when something is new.
const ALONE: u32 = 60;

/// The agent talks to init and the appliance, and looks at what was changed, whoever may read it: it
/// needs no more than that, and neither do the commands that the image brings along as checks.
const UNIT_TEXT: &str = "\
[Unit]
Description=Firstboot agent, which tells how this host is
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/run/firstboot/agent agent /run/firstboot/agent.json
Restart=on-failure
RestartSec=10
OOMScoreAdjust=-900
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
";

/// What the agent is told by stage1.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct AgentConfig {
    /// Whom it tells; nobody but the console where there is none.
    appliance: Option<Told>,
    /// The tree whose every piece stage1 checked before it mounted it.
    pub(crate) tree: Digest,
    pub(crate) heartbeat_seconds: u32,
    /// Reports of stage1 that are not delivered yet.
    pub(crate) undelivered: Vec<Report>,
}

/// The appliance, and what it lets the agent in with.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Told {
    server: String,
    authority: Digest,
    boot: String,
    credential: Token,
}

/// Why the image's init could not take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the image has no `{INIT}`")]
    NoInit,
    #[error("failed to leave the agent behind as `{path}`")]
    Agent {
        path: &'static str,
        source: io::Error,
    },
    #[error("`/` is no initramfs, so it is not emptied")]
    NoInitramfs,
    #[error("failed to move `{0}` to the new root")]
    Move(&'static str, #[source] io::Error),
    #[error("failed to enter the new root")]
    Enter(#[source] io::Error),
    #[error("failed to start `{INIT}`")]
    Start(#[source] io::Error),
}

impl AgentConfig {
    /// Puts together what the agent of this boot has to know.
    pub(crate) fn new(
        session: &Session,
        image: &BootImage,
        host: &HostConfig,
        undelivered: Vec<Report>,
    ) -> Self {
        let (appliance, credential) = session.parts();
        Self {
            appliance: Some(Told {
                server: appliance.server.to_string(),
                authority: appliance.authority,
                boot: appliance.boot.clone(),
                credential: credential.clone(),
            }),
            tree: image.tree,
            heartbeat_seconds: host.heartbeat_seconds,
            undelivered,
        }
    }

    /// Puts together what the agent of a host without an appliance has to know.
    pub(crate) fn alone(image: &BootImage) -> Self {
        Self {
            appliance: None,
            tree: image.tree,
            heartbeat_seconds: ALONE,
            undelivered: Vec::new(),
        }
    }

    /// Goes on with what stage1 began, unless it is not as stage1 writes it; nothing where there is no appliance.
    pub(crate) fn session(&self) -> Result<Option<Session>, session::Error> {
        let Some(told) = &self.appliance else {
            return Ok(None);
        };
        let server = told.server.parse();
        let appliance = Appliance {
            server: server.map_err(|_| session::Error::Malformed("address"))?,
            authority: told.authority,
            boot: told.boot.clone(),
        };
        Session::resume(appliance, told.credential.clone()).map(Some)
    }
}

/// Checks that the new root can be booted, while there is still a way back.
pub(crate) fn check(new_root: &Path) -> Result<(), Error> {
    // The link may be absolute, so its target cannot be looked at from here.
    let init = new_root.join(INIT.trim_start_matches('/'));
    fs::symlink_metadata(init).map_err(|_| Error::NoInit)?;
    let root = statfs("/")
        .map_err(|_| Error::NoInitramfs)?
        .filesystem_type();
    let is_memory = root == RAMFS_MAGIC || root == TMPFS_MAGIC;
    is_memory.then_some(()).ok_or(Error::NoInitramfs)
}

/// Copies this program to where it runs as the agent, with its configuration and its unit.
pub(crate) fn place_agent(config: &AgentConfig) -> Result<(), Error> {
    let at = |path| move |source| Error::Agent { path, source };
    let program = fs::read("/proc/self/exe").map_err(at(AGENT))?;
    file(AGENT, 0o700, &program).map_err(at(AGENT))?;
    let text = serde_json::to_vec(config).map(Zeroizing::new);
    let text = text.map_err(|error| at(CONFIG)(error.into()))?;
    file(CONFIG, 0o600, &text).map_err(at(CONFIG))?;
    let directories = DirBuilder::new().recursive(true).mode(0o755).create(WANTS);
    directories.map_err(at(WANTS))?;
    file(UNIT, 0o644, UNIT_TEXT.as_bytes()).map_err(at(UNIT))?;
    let wanted = format!("{WANTS}/firstboot-agent.service");
    symlink(UNIT, wanted).map_err(at(WANTS))
}

/// Covers `/proc/cmdline` with a copy that has no token: everyone may read it.
pub(crate) fn hide_token(text: &str) {
    let covered = file(COMMAND_LINE, 0o444, cmdline::redact(text).as_bytes()).and_then(|()| {
        let flags = MsFlags::MS_BIND;
        mount(
            Some(COMMAND_LINE),
            "/proc/cmdline",
            None::<&str>,
            flags,
            None::<&str>,
        )?;
        Ok(())
    });
    if let Err(error) = covered {
        console::warn(&format!(
            "the boot token stays visible in `/proc/cmdline`: {error}"
        ));
    }
}

/// Empties the initramfs, makes the new root the root, and starts its init.
pub(crate) fn switch_root() -> Result<Infallible, Error> {
    let targets = [
        "/newroot/dev",
        "/newroot/proc",
        "/newroot/sys",
        "/newroot/run",
    ];
    for (source, target) in ["/dev", "/proc", "/sys", "/run"].into_iter().zip(targets) {
        rootfs::directory(target, 0o755)
            .map_err(|_| Error::Move(source, io::ErrorKind::NotFound.into()))?;
        mount(
            Some(source),
            target,
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )
        .map_err(|errno| Error::Move(source, errno.into()))?;
    }
    env::set_current_dir(rootfs::NEW_ROOT).map_err(Error::Enter)?;
    empty_initramfs();
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|errno| Error::Enter(errno.into()))?;
    std::os::unix::fs::chroot(".").map_err(Error::Enter)?;
    env::set_current_dir("/").map_err(Error::Enter)?;
    let failure = Command::new(INIT).args(env::args_os().skip(1)).exec();
    Err(Error::Start(failure))
}

/// Deletes everything of the initramfs, which would hold its memory for ever. What does not let
/// itself be deleted costs memory and nothing else.
fn empty_initramfs() {
    let Ok(root) = fs::symlink_metadata("/") else {
        return;
    };
    empty(Path::new("/"), root.dev());
}

fn empty(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        // Other file systems, the new root first of all, are not ours to delete.
        if metadata.dev() != device {
            continue;
        }
        let removed = if metadata.is_dir() {
            empty(&path, device);
            // Not empty when something is mounted below: as intended.
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        drop(removed);
    }
}

fn file(path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptying_stays_on_its_file_system_and_follows_no_link() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/c"), "x").unwrap();
        symlink(outside.path(), root.path().join("a/link")).unwrap();
        let device = fs::symlink_metadata(root.path()).unwrap().dev();
        empty(root.path(), device + 1);
        assert!(root.path().join("a/b/c").exists());
        empty(root.path(), device);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
