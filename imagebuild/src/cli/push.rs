//! `imagebuild push`: an image of a store goes to a registry.
//!
//! It refuses to change the store.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::cache::Cache;
use imagebuild::registry::{self, Options, Plain, PushPlan, Remote, Repository, Things};
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where it goes; its container form gets the tag `TAG-oci`, its packages `TAG-packages`.
    #[arg(value_name = "HOST/PATH[:TAG]")]
    remote: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    registry: RegistryArgs,
    /// A repository of the same registry that may have layers already: they are not sent again.
    #[arg(long, value_name = "HOST/PATH")]
    mount_from: Option<String>,
    /// Ask the registry what it has, print what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// How registries are spoken to. Credentials come from `auth.json` and `config.json`, as podman and docker write them.
#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// Take its packages along too, which `imagebuild vendor` puts into a store.
    #[arg(long)]
    packages: bool,
    /// Speak plain HTTP with the registry; without this, only registries on this computer are spoken to so.
    #[arg(long)]
    plain_http: bool,
    /// Files that are sent or fetched at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = registry::PARALLEL)]
    parallel: usize,
    /// Size in bytes of the chunks that large files are sent in.
    #[arg(long, value_name = "BYTES", default_value_t = registry::CHUNK)]
    chunk: u64,
    /// Where it is kept what was begun and cut [default: the user's cache directory].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl RegistryArgs {
    pub(super) fn options(&self, mount_from: Option<Repository>) -> Result<Options, Failure> {
        let cache = Cache::open(self.cache.as_deref()).map_err(Failure::Cache)?;
        Ok(Options {
            parallel: self.parallel.clamp(1, 64),
            chunk: self.chunk.max(64 << 10),
            mount_from,
            ..Options::usual(&cache, plain(self.plain_http))
        })
    }

    /// What travels.
    pub(super) fn things(&self) -> Things {
        if self.packages {
            Things::ImageAndPackages
        } else {
            Things::Image
        }
    }
}

/// With whom plain HTTP is spoken.
pub(super) fn plain(asked: bool) -> Plain {
    if asked {
        Plain::Everywhere
    } else {
        Plain::Loopback
    }
}

pub(super) fn failed(error: impl Into<registry::Error>) -> Failure {
    Failure::Registry(Box::new(error.into()))
}

pub(super) fn run(args: &PushArgs) -> Result<(), Failure> {
    let remote = Remote::parse(&args.remote).map_err(failed)?;
    let mount = args
        .mount_from
        .as_deref()
        .map(Remote::parse)
        .transpose()
        .map_err(failed)?;
    let options = args.registry.options(mount.map(|mount| mount.repository))?;
    let things = args.registry.things();
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    if args.dry_run {
        let plan = PushPlan::make(&store, &args.image, &remote, things, &options);
        let plan = runtime.block_on(plan).map_err(failed)?;
        if args.json {
            return print_json(&plan);
        }
        let PushPlan {
            files,
            bytes,
            missing_files,
            missing_bytes,
            ..
        } = &plan;
        print(&format!("files    {files}, {bytes} bytes"))?;
        print(&format!("to send  {missing_files}, {missing_bytes} bytes"))?;
        return print_tags(&remote, &plan.tags);
    }
    let pushed = registry::push(&store, &args.image, &remote, things, &options);
    let pushed = runtime.block_on(pushed).map_err(failed)?;
    if args.json {
        return print_json(&pushed);
    }
    print(&format!(
        "uploaded {} files, {} bytes",
        pushed.uploaded_files, pushed.uploaded_bytes
    ))?;
    print(&format!(
        "present  {} files, mounted {}",
        pushed.present_files, pushed.mounted_files
    ))?;
    print(&format!("attached {}", pushed.attachments))?;
    print_tags(&remote, &pushed.tags)
}

fn print_tags(
    remote: &Remote,
    tags: &std::collections::BTreeMap<String, image_manifest::Digest>,
) -> Result<(), Failure> {
    tags.iter()
        .try_for_each(|(tag, digest)| print(&format!("{}:{tag}@{digest}", remote.repository)))
}
