//! `imagebuild build`: a definition and its lock become an image in a store.
//!
//! It refuses to lock: what is not in the lock is not built.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use clap::Args;
use image_manifest::layout::{self, Layout};
use image_manifest::{Artifact, Digest};
use image_sandbox::Emulator;
use imagebuild::architecture;
use imagebuild::assemble::{self, Built, Options, Plan, Reuse};
use imagebuild::decoded;
use imagebuild::facts;
use imagebuild::fetch::Fetched;
use imagebuild::layers;
use imagebuild::lock::Locked;
use serde::Serialize;

use super::describe::{LockedArgs, bring};
use super::failure::{Exit, Failure};
use super::machine::SigningArgs;
use super::{export, print, print_json};

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    locked: LockedArgs,
    /// The store that takes the image; it is made when it is absent.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Directory for the workspace, which takes the whole tree [default: in the cache].
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Directory that takes all of the definition's `outputs`: disks as files, the container image as a layout.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
    /// Build even when the store has an image of the same inputs, and use no tree that an earlier build configured.
    #[arg(long)]
    rebuild: bool,
    /// Print the plan and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome<'a> {
    name: &'a str,
    manifest: Digest,
    tree: Digest,
    /// Whether the store had it already.
    cached: bool,
    downloaded_packages: usize,
    downloaded_bytes: u64,
    artifacts: &'a [Artifact],
    elapsed_ms: u128,
}

pub(super) fn run(args: &BuildArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let locked = args.locked.locked()?;
    let plan = locked.plan().map_err(Failure::Assemble)?;
    if args.dry_run {
        return print_plan(&plan, args.json);
    }
    let store = Layout::create(&args.store).map_err(Failure::Store)?;
    let known = if args.rebuild {
        None
    } else {
        find(&store, &plan)
    };
    let cached = known.is_some();
    let (built, fetched) = match known {
        Some(built) => (built, Fetched::default()),
        None => build(args, &locked, &plan, &store)?,
    };
    if let Some(directory) = &args.output {
        export::all(&store, &built.manifest, directory, &args.signing)?;
    }
    let outcome = Outcome {
        name: &built.manifest.name,
        manifest: built.digest,
        tree: built.manifest.tree,
        cached,
        downloaded_packages: fetched.downloaded_packages,
        downloaded_bytes: fetched.downloaded_bytes,
        artifacts: &built.manifest.artifacts,
        elapsed_ms: started.elapsed().as_millis(),
    };
    if args.json {
        print_json(&outcome)
    } else {
        print_outcome(&outcome)
    }
}

/// Finds the image in the store, if it was made from the same inputs and is whole.
fn find(store: &Layout, plan: &Plan) -> Option<Built> {
    match store.resolve(&plan.name) {
        Ok(found) if found.manifest.inputs == plan.inputs => {
            let checked = found.manifest.artifacts.iter();
            if let Some(error) = checked.map(|one| store.check(one)).find_map(Result::err) {
                tracing::warn!(image = plan.name, %error, "the store's image is damaged and built again");
                return None;
            }
            tracing::info!(image = plan.name, "the store has it");
            Some(Built {
                digest: found.digest,
                manifest: found.manifest,
            })
        }
        Ok(_) | Err(layout::Error::NoImage { .. }) => None,
        Err(error) => {
            tracing::warn!(image = plan.name, %error, "the store's image is damaged");
            None
        }
    }
}

fn build(
    args: &BuildArgs,
    locked: &Locked,
    plan: &Plan,
    store: &Layout,
) -> Result<(Built, Fetched), Failure> {
    let sources = args.locked.sources(Some(store.root()))?;
    let cache = sources.cache.root();
    let options = Options {
        work: args.work.clone().unwrap_or_else(|| cache.join("work")),
        helper: env::current_exe().map_err(Failure::Start)?,
        emulator: emulator(locked)?,
        threads: thread::available_parallelism().map_or(1, usize::from),
        layers: cache.join("layers"),
        facts: facts::directory(cache),
        decoded: decoded::directory(cache),
        modules: assemble::modules_directory(cache),
        configured: assemble::configured_directory(cache),
        reuse: if args.rebuild {
            Reuse::Nothing
        } else {
            Reuse::Earlier
        },
    };
    let writer = layers::Writer {
        store,
        cache: &options.layers,
        threads: options.threads,
    };
    let parents = layers::plan_parents(locked.definition(), &writer);
    let mut parents = parents.map_err(Failure::Assemble)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Start)?;
    let mut fetched = bring(&runtime, locked, &sources)?;
    for parent in parents.iter_mut().filter(|parent| parent.kept.is_none()) {
        let above = bring(&runtime, &parent.locked, &sources)?;
        fetched.downloaded_packages += above.downloaded_packages;
        fetched.downloaded_bytes += above.downloaded_bytes;
        parent.packages = above.packages;
    }
    drop(runtime);
    let built = assemble::execute(plan, locked, &fetched.packages, &parents, store, &options);
    Ok((built.map_err(Failure::Assemble)?, fetched))
}

/// Finds who runs the scripts of an image; one that installs nothing needs nobody.
fn emulator(locked: &Locked) -> Result<Option<Emulator>, Failure> {
    let definition = locked.definition();
    if definition.packages.is_none() {
        return Ok(None);
    }
    architecture::emulator(&definition.architecture)
        .map_err(|error| Failure::told(error, Exit::Configuration))
}

fn print_plan(plan: &Plan, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(plan);
    }
    print(&format!("image    {} ({})", plan.name, plan.architecture))?;
    print(&format!("inputs   {}", plan.inputs))?;
    plan.steps
        .iter()
        .try_for_each(|step| print(&step.to_string()))
}

fn print_outcome(outcome: &Outcome<'_>) -> Result<(), Failure> {
    print(&format!("{}@{}", outcome.name, outcome.manifest))?;
    print(&format!("tree     {}", outcome.tree))?;
    for artifact in outcome.artifacts {
        let Artifact {
            name, size, digest, ..
        } = artifact;
        print(&format!("{name:<16} {size:>11} {digest}"))?;
    }
    Ok(())
}
