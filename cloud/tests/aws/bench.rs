//! What the tests stand on: an image, a target, a fake cloud.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloud::aws::{Bounds, Publisher, Target};
use cloud::fake::Server;
use cloud::fake::aws::{Aws, KEY, Rules, SECRET, SnapshotDisk};
use cloud::http::Http;
use cloud::{Disk, Options, Progress, Provider as _, Stage, Step, Subject};
use image_manifest::block_map::{Kind, Run};
use image_manifest::{BlockMap, Digest, FormKind};

/// A disk whose data is made of each block's place.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) blocks: BlockMap,
}

impl Made {
    /// Runs of so many blocks of a kind; the last block is cut short.
    pub(crate) fn new(runs: &[(Kind, u64)]) -> Self {
        let mut first = 0;
        let runs = runs.iter().map(|(kind, count)| {
            let run = Run {
                kind: *kind,
                first,
                count: *count,
            };
            first += count;
            run
        });
        let runs: Vec<_> = runs.collect();
        let size = first * BlockMap::BLOCK - 1000;
        Self {
            blocks: BlockMap {
                schema: BlockMap::SCHEMA,
                block_size: BlockMap::BLOCK,
                size,
                runs,
            },
        }
    }

    fn kind(&self, index: u64) -> Kind {
        let runs = &self.blocks.runs;
        runs.iter()
            .find(|run| index < run.first + run.count)
            .unwrap()
            .kind
    }

    /// Whether a snapshot has this disk wherever somebody may look.
    pub(crate) fn is(&self, snapshot: &SnapshotDisk) -> bool {
        let count = self.blocks.size.div_ceil(BlockMap::BLOCK);
        (0..count)
            .filter(|index| self.kind(*index) != Kind::NeverWritten)
            .all(|index| {
                let at = index * BlockMap::BLOCK;
                let length = usize::try_from((self.blocks.size - at).min(BlockMap::BLOCK)).unwrap();
                let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
                self.read_at(at, &mut ours).unwrap();
                snapshot.read_at(at, &mut theirs).unwrap();
                ours == theirs
            })
    }
}

impl Disk for Made {
    fn blocks(&self) -> &BlockMap {
        &self.blocks
    }

    fn form(&self, _: FormKind) -> Option<(Digest, u64)> {
        None
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let place = at + done as u64;
            let left = usize::try_from(BlockMap::BLOCK - place % BlockMap::BLOCK).unwrap();
            let length = left.min(buffer.len() - done);
            let data = self.kind(place / BlockMap::BLOCK) == Kind::Data;
            let fill = if data {
                u8::try_from(place / BlockMap::BLOCK % 251 + 1).unwrap()
            } else {
                0
            };
            buffer[done..done + length].fill(fill);
            done += length;
        }
        Ok(())
    }

    fn vhd_footer(&self) -> [u8; 512] {
        [0; 512]
    }

    fn open(&self, _: FormKind, _: u64) -> io::Result<Box<dyn Read + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Tells nobody.
pub(crate) struct Silent;

impl Progress for Silent {
    fn begins(&self, _: &Step) {}
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn waits(&self, _: &str, _: &str) {}
}

/// Credentials that the fake knows.
const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", KEY),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
];

/// An image, a target and a fake cloud.
pub(crate) struct Bench {
    pub(crate) aws: Arc<Aws>,
    pub(crate) server: Server,
    pub(crate) disk: Arc<Made>,
    pub(crate) subject: Subject,
    pub(crate) target: String,
    pub(crate) journal: tempfile::TempDir,
    pub(crate) bounds: Bounds,
    /// Loading the certificates of authorities takes longer than a publish.
    http: Http,
}

pub(crate) const SMALL: [(Kind, u64); 4] = [
    (Kind::Data, 3),
    (Kind::NeverWritten, 5),
    (Kind::MustBeZero, 2),
    (Kind::Data, 2),
];

impl Bench {
    pub(crate) async fn new(rules: Rules, target: &str) -> Self {
        Self::with(rules, target, &SMALL).await
    }

    /// Another one, with a cloud of its own.
    pub(crate) async fn anew(&self, rules: Rules, target: &str) -> Self {
        Self::sharing(self.http.clone(), rules, target, &SMALL).await
    }

    pub(crate) async fn with(rules: Rules, target: &str, runs: &[(Kind, u64)]) -> Self {
        Self::sharing(Http::new(), rules, target, runs).await
    }

    async fn sharing(http: Http, rules: Rules, target: &str, runs: &[(Kind, u64)]) -> Self {
        let aws = Aws::new(rules);
        let server = Server::start(aws.clone()).await.unwrap();
        let disk = Arc::new(Made::new(runs));
        let subject = Subject {
            name: "host".to_owned(),
            architecture: "amd64".to_owned(),
            distribution: "debian/trixie".to_owned(),
            version: "20260102-0123abcd".to_owned(),
            manifest: Digest::of(b"manifest"),
            tree: Digest::of(b"tree"),
            source_date: 1_767_312_000,
            disk: Some(disk.clone()),
        };
        let bounds = Bounds {
            visible: Duration::from_secs(3),
            task: Duration::from_secs(5),
            boot: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            block: Duration::from_secs(5),
            pause: Duration::from_millis(2),
        };
        let target = format!("name = 'prod'\n{target}");
        Self {
            aws,
            server,
            disk,
            subject,
            target,
            journal: tempfile::tempdir().unwrap(),
            bounds,
            http,
        }
    }

    /// The same image for the same target, by somebody with a journal and an environment.
    pub(crate) fn publisher_of(&self, journal: &Path, variables: &[(&str, &str)]) -> Publisher {
        let mut target: Target = toml::from_str(&self.target).unwrap();
        assert_eq!(target.check(), Vec::<String>::new());
        target.endpoint = Some(self.server.url());
        let http = self.http.clone();
        let context = cloud::fake::aws::context(&http, variables);
        let options = Options {
            journal: journal.to_owned(),
            http,
        };
        let publisher = Publisher::within(&target, &self.subject, &options, context);
        publisher.unwrap().bounded(self.bounds)
    }

    pub(crate) fn publisher(&self) -> Publisher {
        self.publisher_of(self.journal.path(), &KEYS)
    }

    /// Two who do not know of each other publish all stages.
    pub(crate) async fn publish_twice_at_once(&self) {
        let other = tempfile::tempdir().unwrap();
        let mut one = self.publisher();
        let mut two = self.publisher_of(other.path(), &KEYS);
        let (one, two) = tokio::join!(advance(&mut one), advance(&mut two));
        one.unwrap();
        two.unwrap();
    }

    /// Publishes all stages.
    pub(crate) async fn publish(&self) -> Result<Publisher, cloud::Error> {
        let mut publisher = self.publisher();
        advance(&mut publisher).await?;
        Ok(publisher)
    }

    /// One image in each region, made of one snapshot that has the disk; everything tagged; nothing left over.
    pub(crate) fn assert_published(&self, regions: &[&str]) {
        for region in regions {
            let (images, snapshots) = (self.aws.images(region), self.aws.snapshots(region));
            assert_eq!(images.len(), 1, "{region}: {images:?}");
            assert_eq!(snapshots.len(), 1, "{region}: {snapshots:?}");
            assert_eq!(images[0].snapshot, snapshots[0].id);
            for tags in [&images[0].tags, &snapshots[0].tags] {
                for (key, value) in self.subject.tags() {
                    assert_eq!(tags.get(&key), Some(&value), "{region}: {tags:?}");
                }
                assert_eq!(tags["firstboot:target"], "prod");
            }
            let live = self.aws.instances(region);
            assert!(
                !live.iter().any(cloud::fake::aws::Instance::is_live),
                "{live:?}"
            );
            assert!(
                self.disk.is(&self.aws.disk(&snapshots[0].id).unwrap()),
                "{region}"
            );
        }
    }
}

/// Does all stages.
pub(crate) async fn advance(publisher: &mut Publisher) -> Result<(), cloud::Error> {
    for stage in Stage::ALL {
        publisher.advance(stage, &Silent).await?;
    }
    Ok(())
}
