//! `imagebuild run`: an image in a virtual computer or a container, for work at a desk.
//!
//! It refuses to change the image: what is written is gone afterwards, unless a disk is named that is kept.

use std::path::PathBuf;
use std::process::ExitStatus;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::container;
use imagebuild::vm::{Console, Network};

use super::failure::Failure;
use super::machine::{MachineArgs, MachineError};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Run the container image, by podman; what stands after `--` is run in it.
    #[arg(long)]
    container: bool,
    /// Give the computer no network card.
    #[arg(long)]
    no_network: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let network = if args.no_network {
        Network::None
    } else {
        Network::User
    };
    if args.container {
        let image = container::load(&store, &args.image)?;
        return ended(image.run(network, args.machine.after())?);
    }
    let found = store.resolve(&args.image).map_err(Failure::Store)?;
    eprintln!("The console of the host is here; Ctrl-A x ends it.");
    let mut running = args
        .machine
        .start(&store, &found.manifest, network, Console::Terminal)?;
    let status = running.computer.wait().map_err(Failure::Start)?;
    drop(running.folder);
    ended(status)
}

fn ended(status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        Ok(())
    } else {
        Err(MachineError::Ended(status).into())
    }
}
