//! `lab up`: from nothing to a rack whose hosts say that they are well.
//!
//! It refuses to leave anything behind unless asked to: whatever ends it, what it started is ended too.

use std::fs::OpenOptions;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::accel::Accelerator;
use crate::appliance::{self, Place};
use crate::bmcs;
use crate::down;
use crate::firmware::{self, Files};
use crate::hosts::{Condition, HostView};
use crate::images::{self, Built, Workshop};
use crate::namespace::{self, Namespace};
use crate::network;
use crate::process::Recorded;
use crate::qemu::{self, Folder, Settings};
use crate::rack::{self, Slot};
use crate::state::{self, Running, State};
use crate::stop::Stop;
use crate::timeline::Teller;
use crate::tools::{self, Need};
use crate::workspace::{self, Workspace};

/// What is asked of `lab up`.
#[derive(Clone, Debug)]
pub struct Request {
    /// The hosts to rack; all when empty.
    pub hosts: Vec<String>,
    /// Memory of each in MiB.
    pub memory: u32,
    /// Whether missing tools are installed.
    pub install: bool,
    /// Whether the rack stays when all is done.
    pub keep: bool,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// The hosts that were racked.
    pub slots: Vec<Slot>,
    /// What the appliance says about them.
    pub hosts: Vec<HostView>,
    /// What is wrong, in words; all is well when empty.
    pub problems: Vec<String>,
}

/// Why there is no rack.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host of that name does not exist.
    #[error(transparent)]
    Host(#[from] rack::UnknownHost),
    /// Tools are missing.
    #[error(transparent)]
    Tools(#[from] tools::Error),
    /// Firmware is missing.
    #[error(transparent)]
    Firmware(#[from] firmware::Missing),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A rack is up already.
    #[error("the lab is up already\n  help: `cargo lab down` removes it")]
    Up,
    /// The product does not build.
    #[error(transparent)]
    Workspace(#[from] workspace::Error),
    /// An image is missing.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// There is no network to work in.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// Virtual network cards cannot be made.
    #[error(
        "`/dev/net/tun` cannot be opened, so hosts cannot have network cards\n  help: run as root, or `modprobe tun` and let this user open it"
    )]
    Tun(#[source] io::Error),
    /// The appliance does not run.
    #[error(transparent)]
    Appliance(#[from] appliance::Error),
    /// There are no BMCs.
    #[error(transparent)]
    Bmcs(#[from] bmcs::Error),
    /// Signals cannot be caught.
    #[error("failed to catch signals")]
    Signals(#[source] io::Error),
    /// Someone pressed Ctrl-C, or the lab was told to end.
    #[error("interrupted")]
    Interrupted,
}

/// Says where the parts of the lab stand.
#[must_use]
pub fn place(workspace: &Workspace, state: &State) -> Place {
    Place {
        netboot: workspace.binary("netboot"),
        site: state.site(),
        data: state.data(),
        store: state.store(),
        log: state.appliance_log(),
    }
}

/// Says where images are made.
#[must_use]
pub fn workshop(workspace: &Workspace, state: &State) -> Workshop {
    Workshop {
        imagebuild: workspace.binary("imagebuild"),
        definitions: workspace.root.join("images"),
        store: state.store(),
        locks: state.path().join("locks"),
        lock: None,
        architecture: None,
    }
}

/// Says where the lab's own versions of `host` are made: of the same packages, so with its lock.
#[must_use]
pub fn versions(workspace: &Workspace, state: &State) -> Workshop {
    let workshop = workshop(workspace, state);
    let own = workshop.locks.join("host").join("image.lock");
    let committed = workshop.definitions.join("host").join("image.lock");
    Workshop {
        definitions: workspace.root.join("tests/lab/images"),
        // Where `host` had to be locked anew, they follow it.
        lock: Some(if own.is_file() { own } else { committed }),
        ..workshop
    }
}

/// Builds what is missing, racks the hosts and follows them until each is well or is not.
///
/// Once there is something to take down, signals only set `stop`: whoever keeps the rack has to look at it.
///
/// # Errors
/// When something is missing or does not start, or someone wants it to end.
pub fn up(
    workspace: &Workspace,
    state: &State,
    request: &Request,
    stop: &Stop,
) -> Result<Outcome, Error> {
    let slots = rack::select(&request.hosts)?;
    if state.running()?.processes().any(Recorded::is_alive) {
        return Err(Error::Up);
    }
    let files = Files::find();
    prepare_tools(&slots, &files, request.install)?;
    workspace.build()?;
    let images = build_images(&workshop(workspace, state))?;
    down::down(state)?;

    let public_key = appliance::ssh_key(&state.ssh_key())?;
    appliance::copy_site(&workspace.root.join("site/lab"), &state.site(), &public_key)?;
    let accelerator = Accelerator::probe(&files, state.path());
    eprintln!("lab: {} hosts, {accelerator}", slots.len());
    let settings = Settings {
        accelerator,
        memory: request.memory,
        processors: accelerator.processors(slots.len()),
        files,
    };
    stop.hold().map_err(Error::Signals)?;
    let mut lab = Rack {
        state,
        running: Running::default(),
        kept: false,
    };
    lab.build(&place(workspace, state), &slots, &settings)?;
    let outcome = lab.follow(&place(workspace, state), slots, &images, stop)?;
    lab.kept = request.keep;
    Ok(outcome)
}

fn prepare_tools(slots: &[Slot], files: &Files, install: bool) -> Result<(), Error> {
    tools::ensure(Need::Rack, install)?;
    for slot in slots {
        files.check(slot.firmware)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(Error::Tun)?;
    Ok(())
}

/// Builds the rack's images where the store does not hold them, and says what that took.
///
/// # Errors
/// When one cannot be built.
pub fn build_images(workshop: &Workshop) -> Result<Vec<Built>, Error> {
    let built = images::NEEDED
        .iter()
        .map(|name| workshop.build(name))
        .collect::<Result<Vec<_>, _>>()?;
    eprintln!("lab: {}", images::summary(&built));
    Ok(built)
}

/// A rack being used; taken down when dropped, unless it is kept.
struct Rack<'a> {
    state: &'a State,
    running: Running,
    kept: bool,
}

impl Rack<'_> {
    fn build(&mut self, place: &Place, slots: &[Slot], settings: &Settings) -> Result<(), Error> {
        let namespace = Namespace::create(self.state.path())?;
        self.running.namespace = Some(namespace.clone());
        self.state.record_running(&self.running)?;
        network::bridge(&namespace, rack::APPLIANCE)?;

        let appliance = place.start(&namespace)?;
        self.running.appliance = Recorded::now("netboot", appliance.id());
        self.state.record_running(&self.running)?;
        let bmcs = bmcs::start(&namespace, self.state, slots, settings)?;
        self.running.bmcs = Recorded::now("bmcs", bmcs.id());
        self.state.record_running(&self.running)?;
        let names: Vec<&str> = slots.iter().map(|slot| slot.name).collect();
        place.switch_on(&namespace, &names)?;
        Ok(())
    }

    fn follow(
        &self,
        place: &Place,
        slots: Vec<Slot>,
        images: &[Built],
        stop: &Stop,
    ) -> Result<Outcome, Error> {
        // Three hosts in software on two cores take a few minutes.
        let deadline = Instant::now() + Duration::from_mins(15);
        let mut teller = Teller::default();
        loop {
            let mut hosts = place.hosts()?;
            hosts.retain(|host| slots.iter().any(|slot| slot.name == host.name));
            for line in teller.news(&hosts) {
                eprintln!("{line}");
            }
            if stop.is_asked() {
                return Err(Error::Interrupted);
            }
            let problems = self.ended(&slots);
            let settled = hosts.len() == slots.len() && hosts.iter().all(HostView::is_settled);
            if settled || !problems.is_empty() || Instant::now() >= deadline {
                let problems = problems
                    .into_iter()
                    .chain(self.judge(&slots, &hosts, images))
                    .collect();
                return Ok(Outcome {
                    slots,
                    hosts,
                    problems,
                });
            }
            thread::sleep(Duration::from_millis(700));
        }
    }

    /// Names the processes that ended although nobody asked them to.
    fn ended(&self, slots: &[Slot]) -> Vec<String> {
        let hosts = slots.iter().filter_map(|slot| {
            let folder = Folder::of(self.state.path(), slot.name);
            let last = folder.power_events().pop()?;
            (last.what == "off")
                .then(|| format!("{}: QEMU ended: {}", slot.name, qemu::last_words(&folder)))
        });
        let parts = [
            (&self.running.appliance, self.state.appliance_log()),
            (&self.running.bmcs, self.state.bmcs_log()),
        ];
        let parts = parts.into_iter().filter_map(|(part, log)| {
            let part = part.as_ref().filter(|part| !part.is_alive())?;
            Some(format!("{} ended; see `{}`", part.name, log.display()))
        });
        hosts.chain(parts).collect()
    }

    fn judge(&self, slots: &[Slot], hosts: &[HostView], images: &[Built]) -> Vec<String> {
        let expected = images
            .iter()
            .find(|image| image.name == "host")
            .map(|image| image.tree);
        let mut problems = Vec::new();
        for slot in slots {
            let console = Folder::of(self.state.path(), slot.name).console_log();
            let host = hosts.iter().find(|host| host.name == slot.name);
            let verdict = match (host, expected) {
                (Some(host), Some(tree)) if host.runs(&tree) => continue,
                (Some(host), Some(tree)) if host.condition() == Condition::Healthy => {
                    format!("healthy, but not with the tree {tree} of the manifest")
                }
                (
                    Some(HostView {
                        boot: Some(boot), ..
                    }),
                    _,
                ) => boot.verdict.text.clone(),
                _ => "the appliance heard nothing of it".to_owned(),
            };
            problems.push(format!(
                "{}: {verdict}\n  console: {}",
                slot.name,
                console.display()
            ));
        }
        problems
    }
}

impl Drop for Rack<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Not only what was recorded: a host outlives its BMC when that is killed.
        let _ended = down::end_all(self.state);
        // The consoles and the appliance's log stay for whoever wants to know why.
        if let Err(error) = self.state.forget_running() {
            eprintln!("lab: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::poll;
    use crate::process::{self, MARK};

    #[test]
    fn a_rack_leaves_what_runs_only_when_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        for (name, kept) in [("kept", true), ("not kept", false)] {
            // As a host whose BMC was killed: it carries the mark and stands in no record.
            let mut host = Command::new("sleep");
            let mut host = host.arg("600").env(MARK, state.path()).spawn().unwrap();
            let process = Recorded::now("sleep", host.id()).unwrap();
            // A process that is just being loaded has no environment yet.
            let is_marked = || {
                let marked = process::marked(state.path());
                marked
                    .iter()
                    .any(|one| one.pid == process.pid)
                    .then_some(())
            };
            poll::until(Duration::from_secs(10), is_marked).expect("it carries the mark");
            drop(Rack {
                state: &state,
                running: Running::default(),
                kept,
            });
            assert_eq!(process.is_alive(), kept, "{name}");
            host.kill().ok();
            host.wait().ok();
        }
    }
}
