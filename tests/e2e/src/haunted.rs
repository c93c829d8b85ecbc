//! A rack with one ghost: told to deploy, and watched until nothing is under way any more.
//!
//! It refuses to trust the appliance about power: the ghost's own memory of it is the witness.

use std::path::Path;
use std::sync::Once;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use lab::images::Workshop;
use lab::up;

use crate::ghost::{self, Event, Ghost};
use crate::rig::{Rig, check};
use crate::shop;

/// The images that a ghost is told to boot, by turns.
pub const IMAGES: [&str; 2] = ["host", "next"];

/// A rack with one ghost, and the generations that it had so far.
#[derive(Debug)]
pub struct Haunted {
    /// The rack.
    pub rig: Rig,
    /// The ghost.
    pub ghost: Ghost,
}

/// One generation, as `netboot history --json` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Name of its image.
    pub image: String,
    /// What became of it.
    pub outcome: String,
    /// Why, when that is not what was wanted.
    pub why: String,
}

/// Builds [`IMAGES`] where the lab's store does not hold them.
///
/// # Panics
/// When one cannot be built.
pub fn build_images() {
    // Tests run side by side, and one build at a time is fast enough.
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        shop::image(IMAGES[0]);
        let versions: Workshop = up::versions(&shop::workspace(), &shop::state());
        versions.build(IMAGES[1]).expect("the second image");
    });
}

impl Default for Haunted {
    fn default() -> Self {
        Self::new()
    }
}

impl Haunted {
    /// Racks a ghost with its own site.
    #[must_use]
    pub fn new() -> Self {
        Self::with_site(ghost::SITE, &[])
    }

    /// Racks a ghost with another site, which holds its host, and with more secrets than its BMC's password.
    #[must_use]
    pub fn with_site(site: &str, more: &[(&str, &str)]) -> Self {
        build_images();
        let store = shop::state().store();
        let secrets = [&[("secrets/bmc", ghost::PASSWORD)], more].concat();
        let rig = Rig::with_secrets(site, &store, &secrets);
        let ghost = Ghost::rack(&rig, &IMAGES);
        Self { rig, ghost }
    }

    /// Starts the appliance anew, with variables in its environment; commands do not get them.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_with(&mut self, variables: &[(&str, &Path)]) {
        let netboot = shop::workspace().binary("netboot");
        let words = variables
            .iter()
            .map(|(name, value)| format!("{name}='{}' ", value.display()));
        let (words, netboot) = (words.collect::<String>(), netboot.display().to_string());
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = serve ] && exec env {words}'{netboot}' \"$@\"\nexec '{netboot}' \"$@\"\n"
        );
        let wrapper = self.rig.path("netboot");
        crate::rig::script(&wrapper, &text);
        self.rig.kill();
        self.rig.place.netboot = wrapper;
        self.rig.serve().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Returns the generations of the ghost, newest first; none while the appliance does not answer.
    #[must_use]
    pub fn history(&self) -> Vec<Generation> {
        let output = self.rig.netboot(&["history", "bios1", "--json"]);
        let Ok(list) = serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout) else {
            return Vec::new();
        };
        let text = |one: &serde_json::Value, key: &str| one[key].as_str().unwrap_or("").to_owned();
        let list = list.iter().map(|one| Generation {
            image: text(one, "image"),
            outcome: text(one, "outcome"),
            why: text(one, "why"),
        });
        list.collect()
    }

    /// Lets everything happen, `each` deciding about every event, until nothing is pending any more.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn play(
        &mut self,
        within: Duration,
        mut each: impl FnMut(&mut Rig, Event),
    ) -> Vec<Generation> {
        let deadline = Instant::now() + within;
        let mut looked = Instant::now();
        loop {
            match self.ghost.events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => each(&mut self.rig, event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the ghost is gone"),
            }
            if looked.elapsed() < Duration::from_millis(300) {
                continue;
            }
            let history = self.history();
            looked = Instant::now();
            if history.first().is_some_and(|one| one.outcome != "pending") && self.is_idle() {
                return history;
            }
            assert!(Instant::now() < deadline, "no end: {history:#?}");
        }
    }

    fn is_idle(&self) -> bool {
        let output = self.rig.netboot(&["host", "bios1", "--json"]);
        let host: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = host.to_string();
        text.contains("\"phase\":\"idle\"") || text.contains("\"phase\":\"stopped\"")
    }

    /// Orders an image, and does not wait for it.
    ///
    /// # Panics
    /// When the order is refused.
    pub fn deploy(&self, image: &str) {
        let words = ["deploy", "bios1", "--image", image, "--no-wait"];
        check(&self.rig.netboot(&words));
    }

    /// Deploys the first image and lets it happen.
    ///
    /// # Panics
    /// When the ghost does not become healthy.
    pub fn settle(&mut self) {
        self.deploy(IMAGES[0]);
        let history = self.play(Duration::from_mins(1), |_, event| event.proceed());
        assert_eq!(history[0].outcome, "healthy", "{history:#?}");
    }
}
