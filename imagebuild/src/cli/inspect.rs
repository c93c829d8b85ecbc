//! `imagebuild inspect`: all that is known about an image of a store.
//!
//! It refuses to verify: `imagebuild verify` does.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::date;
use imagebuild::definition::size::megabytes;
use imagebuild::insight::inspect::{self, Inspected};

use super::failure::{Exit, Failure};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// List its packages.
    #[arg(long)]
    packages: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let inspected = inspect::inspect(&store, &args.image);
    let inspected = inspected.map_err(|error| Failure::told(error, Exit::Failed))?;
    if args.json {
        return print_json(&inspected);
    }
    text(&inspected).iter().try_for_each(|line| print(line))?;
    if args.packages {
        for one in &inspected.packages {
            let line = format!(
                "{:<8} {} {} ({})",
                one.usage, one.name, one.version, one.source
            );
            print(&line)?;
        }
    }
    Ok(())
}

fn text(inspected: &Inspected) -> Vec<String> {
    let Inspected {
        digest,
        manifest,
        signatures,
        referrers,
        packages,
    } = inspected;
    let mut lines = vec![
        format!("{}@{digest}", manifest.name),
        format!(
            "for       {} {}",
            manifest.distribution, manifest.architecture
        ),
        format!("tree      {}", manifest.tree),
        format!("lock      {}", manifest.lock),
        format!("built by  {}", manifest.builder),
        format!("date      {}", date::rfc3339(manifest.source_date)),
    ];
    if let Some(kernel) = &manifest.kernel {
        lines.push(format!(
            "kernel    {} {}",
            kernel.release, kernel.command_line
        ));
    }
    if let Some(disk) = &manifest.disk {
        lines.push(format!("root hash {}", disk.root_hash.hex()));
    }
    lines.push(format!("packages  {}", packages.len()));
    lines.push(match signatures {
        0 => "signed    by nobody".to_owned(),
        1 => "signed    once".to_owned(),
        times => format!("signed    {times} times"),
    });
    for artifact in &manifest.artifacts {
        let size = megabytes(artifact.size);
        lines.push(format!(
            "artifact  {:<20} {size:>10} {}",
            artifact.name, artifact.digest
        ));
    }
    for form in &manifest.forms {
        let size = megabytes(form.size);
        lines.push(format!(
            "form      {:<20} {size:>10} {}",
            form.name, form.digest
        ));
    }
    for layer in &manifest.layers {
        let size = megabytes(layer.gzip.size);
        lines.push(format!(
            "layer     {:<20} {size:>10} {}",
            layer.definition, layer.diff_id
        ));
    }
    for referrer in referrers {
        lines.push(format!(
            "referrer  {} {}",
            referrer.artifact_type, referrer.digest
        ));
    }
    lines
}
