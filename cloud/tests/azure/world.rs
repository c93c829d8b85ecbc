//! What the tests publish, and where to: a small disk with holes, and a fake.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud::azure::credentials::Environment;
use cloud::azure::{Publisher, Target};
use cloud::fake::Server;
use cloud::fake::azure::{Azure, World};
use cloud::http::Http;
use cloud::patience::Patience;
use cloud::{Disk, Error, Options, Progress, Stage, Step, Subject, Targets};
use image_manifest::block_map::{BlockMap, Kind, Run};
use image_manifest::{Digest, FormKind};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = BlockMap::BLOCK;

/// A disk whose bytes are a function of their place.
#[derive(Clone, Debug)]
pub(crate) struct Drive {
    blocks: BlockMap,
    vhd: Arc<Vec<u8>>,
    digest: Digest,
}

impl Drive {
    /// Composes a disk, or takes the one that was composed before.
    pub(crate) fn new(salt: u64) -> Self {
        static COMPOSED: Mutex<BTreeMap<u64, Drive>> = Mutex::new(BTreeMap::new());
        let mut composed = COMPOSED.lock().unwrap();
        let drive = composed.entry(salt).or_insert_with(|| Self::compose(salt));
        drive.clone()
    }

    fn compose(salt: u64) -> Self {
        let runs = [
            (Kind::Data, 3),
            (Kind::MustBeZero, 1),
            (Kind::NeverWritten, 40),
            // Longer than one write may be.
            (Kind::Data, 10),
            (Kind::NeverWritten, 6),
            (Kind::Data, 4),
        ];
        let mut first = 0;
        let runs = runs.map(|(kind, count)| {
            first += count;
            Run {
                kind,
                first: first - count,
                count,
            }
        });
        let size = 32 * MIB;
        let mut vhd = vec![0; usize::try_from(size).unwrap()];
        for run in runs.iter().filter(|run| run.kind == Kind::Data) {
            for place in run.first * BLOCK..(run.first + run.count) * BLOCK {
                let byte = (place / 512 * 31 + place + salt).to_le_bytes()[0];
                vhd[usize::try_from(place).unwrap()] = byte;
            }
        }
        vhd.extend(footer(size, salt));
        Self {
            blocks: BlockMap {
                schema: BlockMap::SCHEMA,
                block_size: BLOCK,
                size,
                runs: runs.into(),
            },
            digest: Digest::of(&vhd),
            vhd: Arc::new(vhd),
        }
    }

    pub(crate) fn vhd(&self) -> &[u8] {
        &self.vhd
    }

    /// Bytes that have to be sent.
    pub(crate) fn data(&self) -> u64 {
        let data = self.blocks.runs.iter().filter(|run| run.kind == Kind::Data);
        data.map(|run| run.count * BLOCK).sum::<u64>() + 512
    }
}

fn footer(size: u64, salt: u64) -> [u8; 512] {
    let mut footer = [0; 512];
    footer[..16].copy_from_slice(b"conectix\0\0\0\x02\0\x01\0\0");
    footer[16..24].fill(0xff);
    footer[40..48].copy_from_slice(&size.to_be_bytes());
    footer[48..56].copy_from_slice(&size.to_be_bytes());
    footer[63] = 2;
    footer[68] = salt.to_le_bytes()[0];
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

impl Disk for Drive {
    fn blocks(&self) -> &BlockMap {
        &self.blocks
    }

    fn form(&self, kind: FormKind) -> Option<(Digest, u64)> {
        (kind == FormKind::Vhd).then_some((self.digest, self.vhd.len() as u64))
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let found = self.vhd.get(at..at + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn vhd_footer(&self) -> [u8; 512] {
        self.vhd[self.vhd.len() - 512..].try_into().unwrap()
    }

    fn open(&self, _: FormKind, _: u64) -> io::Result<Box<dyn Read + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(crate) fn subject(salt: u64) -> Subject {
    Subject {
        name: "host".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        version: format!("20260102-{salt}"),
        manifest: Digest::of(format!("manifest {salt}").as_bytes()),
        tree: Digest::of(format!("tree {salt}").as_bytes()),
        source_date: 1_767_312_000,
        disk: Some(Arc::new(Drive::new(salt))),
    }
}

/// A fake, and a place for journals.
pub(crate) struct Lab {
    pub(crate) azure: Arc<Azure>,
    pub(crate) server: Server,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) const COMPUTE: &str = "/subscriptions/01234567-89ab-cdef-0123-456789abcdef/resourceGroups/images/providers/Microsoft.Compute";
pub(crate) const IMAGE: &str = "image-name = \"{image}-{version}\"";
pub(crate) const VERSION: &str = "gallery = { name = \"gallery\", publisher = \"firstboot\", \
    regions = [{ name = \"westeurope\" }, { name = \"eastus\", replicas = 2, storage = \"Premium_LRS\" }], \
    end-of-life-after = 90, security-type = \"TrustedLaunchSupported\", \
    share = { subscriptions = [\"11111111-2222-3333-4444-555555555555\"] } }";

/// A version in a gallery that nobody else may use; for [`Lab::private`].
pub(crate) const PRIVATE: &str = "gallery = { name = \"gallery\", publisher = \"firstboot\", \
    regions = [{ name = \"westeurope\" }], end-of-life-after = 90 }";

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::of(World::default()).await
    }

    /// A fake whose gallery cannot be shared.
    pub(crate) async fn private() -> Self {
        Self::of(World {
            galleries: vec![("gallery".to_owned(), "Private".to_owned())],
            ..World::default()
        })
        .await
    }

    async fn of(world: World) -> Self {
        let azure = Arc::new(Azure::new(world));
        let server = Server::start(azure.clone()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self {
            azure,
            server,
            directory,
        }
    }

    /// A target of this fake; lines are added to it.
    pub(crate) fn target(&self, lines: &str) -> Target {
        self.named("azure", lines)
    }

    fn named(&self, name: &str, lines: &str) -> Target {
        let url = self.server.url();
        let text = format!(
            "[[azure]]\nname = \"{name}\"\nsubscription = \"01234567-89ab-cdef-0123-456789abcdef\"\n\
             resource-group = \"images\"\nlocation = \"westeurope\"\nstorage-account = \"firstboot\"\n\
             container = \"disks\"\ntags = {{ team = \"racks\" }}\n{lines}\n\
             endpoints = {{ storage = \"{url}/firstboot\", arm = \"{url}\", login = \"{url}/login\" }}\n"
        );
        Targets::parse(&text).unwrap().azure.remove(0)
    }

    pub(crate) fn publisher(&self, lines: &str, subject: &Subject) -> Publisher {
        self.publisher_with(lines, subject, &secret(), self.directory.path())
    }

    pub(crate) fn publisher_with(
        &self,
        lines: &str,
        subject: &Subject,
        environment: &Environment,
        journal: &Path,
    ) -> Publisher {
        Self::made(&self.target(lines), subject, environment, journal)
    }

    /// A publisher of a target of another name.
    pub(crate) fn publisher_of(&self, name: &str, lines: &str, subject: &Subject) -> Publisher {
        let target = self.named(name, lines);
        Self::made(&target, subject, &secret(), self.directory.path())
    }

    fn made(
        target: &Target,
        subject: &Subject,
        environment: &Environment,
        journal: &Path,
    ) -> Publisher {
        let options = Options {
            journal: journal.to_owned(),
            http: Http::new(),
        };
        let made = Publisher::in_environment(target, subject, &options, environment);
        made.unwrap().with_patience(quick(Duration::from_secs(10)))
    }

    /// Paths of images and versions, names of blobs.
    pub(crate) fn left(&self) -> (Vec<String>, Vec<String>) {
        let paths = self.azure.resources();
        let cut = |path: String| path.split_once("Microsoft.Compute/").unwrap().1.to_owned();
        (paths.into_iter().map(cut).collect(), self.azure.blobs())
    }
}

pub(crate) fn secret() -> Environment {
    Environment::of(&[
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", "secret"),
    ])
}

pub(crate) fn quick(whole: Duration) -> Patience {
    Patience {
        attempt: Duration::from_secs(5),
        whole,
        pause: Duration::from_millis(2),
        longest: Duration::from_millis(20),
    }
}

/// Nobody listens.
pub(crate) struct Quiet;

impl Progress for Quiet {
    fn begins(&self, _: &Step) {}
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn waits(&self, _: &str, _: &str) {}
}

/// Publishes through all stages, as the command does.
pub(crate) async fn publish(publisher: &mut Publisher) -> Result<(), Error> {
    use cloud::Provider as _;
    publisher.observe().await?;
    for stage in Stage::ALL {
        publisher.advance(stage, &Quiet).await?;
    }
    publisher.observe().await
}
