//! One instance of the image, launched to see that it boots there: it says so on its console, and is terminated.
//!
//! It refuses to let the instance be reached: it has no public address, and nothing is asked of it but its console. It
//! refuses to touch any other, also those that somebody gave all tags of their image.

use super::client::Client;
use super::ec2::{Instance, Launching, Mode};
use super::observe::observe;
use super::publisher::Publisher;
use super::waiting::Waiting;
use crate::error::Error;
use crate::provider::Progress;
use crate::subject::{TAG_CHECK, TAG_LAUNCHED, TAG_MANIFEST};
use image_manifest::{Console, Verdict};

/// How often one is launched in one run: those before were terminated by somebody else.
const ATTEMPTS: u32 = 8;
/// Most characters of a console's line in an error.
const LONGEST: usize = 200;

/// What a console has said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// It is healthy, and runs the tree that it should.
    Well,
    /// It is not, and never will be.
    Ill(String),
    /// Nothing that counts; this is the last line.
    Nothing(String),
}

impl Publisher {
    /// Launches one, waits for what it says of itself, and terminates it in any case.
    pub(super) async fn launch(
        &self,
        client: &Client,
        image: &str,
        kind: &str,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let id = self.begin(client, image, kind).await?;
        let seen = self.watch(client, &id, progress).await;
        let ended = self.terminate(client).await;
        seen?;
        ended?;
        let tag = (TAG_LAUNCHED.to_owned(), kind.to_owned());
        client.tag(image, &[tag]).await
    }

    /// Asks whether one could be launched.
    pub(super) async fn may_launch(&self, client: &Client, kind: &str) -> Result<(), Error> {
        let tags = self.tags();
        let launching = self.launching("ami-00000000000000000", kind, "", &tags);
        client.launch(&launching, Mode::Dry).await.map(drop)
    }

    fn tags(&self) -> Vec<(String, String)> {
        let check = (TAG_CHECK.to_owned(), self.desired.target.clone());
        self.desired.tags.iter().cloned().chain([check]).collect()
    }

    /// Instances that were launched for this check.
    async fn there(&self, client: &Client) -> Result<Vec<Instance>, Error> {
        let (manifest, target) = (&self.desired.manifest, &self.desired.target);
        let tags = [(TAG_MANIFEST, manifest.as_str()), (TAG_CHECK, target)];
        client.instances(&tags).await
    }

    fn launching<'a>(
        &'a self,
        image: &'a str,
        kind: &'a str,
        token: &'a str,
        tags: &'a [(String, String)],
    ) -> Launching<'a> {
        let launch = self.desired.launch.as_ref();
        Launching {
            image,
            kind,
            subnet: launch.and_then(|launch| launch.subnet.as_deref()),
            imdsv2: self.desired.imdsv2,
            token,
            tags,
        }
    }

    /// The one that a run before, or somebody else, launched of the same image; else a new one.
    async fn begin(&self, client: &Client, image: &str, kind: &str) -> Result<String, Error> {
        let there = self.there(client).await?;
        let same = |one: &&Instance| one.is_live() && one.image == image && one.kind == kind;
        if let Some(instance) = there.iter().filter(same).min_by_key(|one| &one.id) {
            return Ok(instance.id.clone());
        }
        let tags = self.tags();
        for attempt in 0..ATTEMPTS {
            let token = self
                .desired
                .launch_token(&client.region, image, kind, attempt);
            let launching = self.launching(image, kind, &token, &tags);
            match client.launch(&launching, Mode::Do).await {
                Err(Error::Refused { code, .. }) if code == "IdempotentInstanceTerminated" => {}
                Ok(instance) if !instance.is_live() => {}
                launched => return launched.map(|instance| instance.id),
            }
        }
        Err(Error::Mismatch {
            what: format!("an instance of {image} in {}", client.region),
            found: format!("terminated by somebody, {ATTEMPTS} times"),
            expected: "running".to_owned(),
        })
    }

    async fn watch(&self, client: &Client, id: &str, progress: &dyn Progress) -> Result<(), Error> {
        let what = format!("for {id} in {} to say that it is healthy", client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.boot));
        loop {
            let instance = client.instance(id).await?;
            let last = match said(&client.console(id).await?, &self.desired.tree) {
                Said::Well => return Ok(()),
                Said::Ill(found) => return Err(self.unwell(client, id, found)),
                Said::Nothing(last) => last,
            };
            if let Some(ended) = instance.filter(|instance| !instance.is_live()) {
                // Somebody who publishes the same has seen enough of it.
                let region = observe(client, &self.desired).await?;
                let image = region.image().filter(|image| image.id == ended.image);
                if image.is_some_and(|image| image.tags.get(TAG_LAUNCHED) == Some(&ended.kind)) {
                    return Ok(());
                }
                let found = format!("{} {}; its last words: {last}", ended.state, ended.reason);
                return Err(self.unwell(client, id, found));
            }
            progress.waits(&self.desired.target, waiting.what());
            waiting.again(last).await?;
        }
    }

    fn unwell(&self, client: &Client, id: &str, found: String) -> Error {
        Error::Mismatch {
            what: format!("instance {id} in {}", client.region),
            found,
            expected: format!("healthy, with tree {}", self.desired.tree),
        }
    }

    /// Terminates all instances of this image and target, also those of a run that was killed.
    async fn terminate(&self, client: &Client) -> Result<(), Error> {
        let there = self.there(client).await?;
        let live = there.into_iter().filter(Instance::is_live);
        let ids: Vec<_> = live.map(|instance| instance.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        client.terminate(&ids).await
    }
}

/// Reads a console.
fn said(text: &str, tree: &image_manifest::Digest) -> Said {
    let mut console = Console::default();
    text.lines().for_each(|line| console.read(line));
    match (console.verdict, console.failure) {
        (Some(verdict), _) if verdict.healthy && verdict.tree == *tree => Said::Well,
        (Some(verdict), _) => Said::Ill(reasons(&verdict)),
        (None, Some(failure)) => Said::Ill(tamed(&failure)),
        (None, None) => {
            let last = text.lines().rev().map(tamed).find(|line| !line.is_empty());
            Said::Nothing(last.unwrap_or_else(|| "nothing".to_owned()))
        }
    }
}

fn reasons(verdict: &Verdict) -> String {
    let word = if verdict.healthy {
        "healthy"
    } else {
        "unhealthy"
    };
    let failed = verdict
        .checks
        .iter()
        .filter(|check| check.problem.is_some());
    let failed: Vec<_> = failed.map(|check| tamed(&check.to_string())).collect();
    let what = format!("{word}, with tree {}", verdict.tree);
    if failed.is_empty() {
        return what;
    }
    format!("{what}: {}", failed.join("; "))
}

/// A line of a console as it may be shown: without what a terminal would obey, and not without end.
fn tamed(line: &str) -> String {
    let shown = line.chars().filter(|c| !c.is_control());
    shown.take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use image_manifest::Digest;

    use super::*;

    #[test]
    fn only_a_healthy_host_with_the_right_tree_is_well() {
        let (right, wrong) = (Digest::of(b"tree"), Digest::of(b"another"));
        let verdict = |word: &str, tree: Digest| {
            format!("login: [ 9.1] firstboot: verdict: {word}, init running, tree {tree}\r\n")
        };
        let ill = format!(
            "firstboot: check failed: port 22: closed\n{}",
            verdict("unhealthy", right)
        );
        let cases = [
            (verdict("healthy", right), "Well"),
            (
                verdict("healthy", wrong),
                "Ill(\"healthy, with tree sha256:",
            ),
            (ill, "check failed: port 22: closed"),
            (
                "Kernel panic - not syncing: VFS".to_owned(),
                "Ill(\"Kernel panic",
            ),
            ("a\n\u{1b}[31mb\n\n".to_owned(), "Nothing(\"[31mb\")"),
            (String::new(), "Nothing(\"nothing\")"),
        ];
        for (text, expected) in cases {
            let found = format!("{:?}", said(&text, &right));
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
