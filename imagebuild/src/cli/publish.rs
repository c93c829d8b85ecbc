//! `imagebuild publish` and `promote`: an image of a store goes to all of its targets, stage by stage.
//!
//! They refuse to begin when something is known to stand in the way, to share what was not booted, and to do anything twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cloud::provider::Severity;
use cloud::publish::{Failed, together};
use cloud::{Finding, Publication, Record, Stage, Step, Targets};
use image_manifest::Digest;
use imagebuild::publish::record::{self, Came};
use imagebuild::publish::{Image, proof};
use imagebuild::sign::PrivateKey;
use imagebuild::trial;
use imagebuild::vm::{Console, Network};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::failure::{Exit, Failure};
use super::machine::{MachineArgs, MachineError};
use super::progress::Narration;
use super::sign::KeyArgs;
use super::targets::{TargetArgs, failed};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    course: CourseArgs,
    /// How far it goes: uploaded, booted, given to those who may use it, named as the newest.
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = StageWord::Current)]
    until: StageWord,
}

#[derive(Debug, Args)]
pub(super) struct PromoteArgs {
    #[command(flatten)]
    course: CourseArgs,
    /// The stage that it is taken to.
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = StageWord::Current)]
    to: StageWord,
}

/// What publishing and promoting are told.
#[derive(Debug, Args)]
struct CourseArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it, and takes the record of what was published.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    targets: TargetArgs,
    /// Whether its disk is booted here first, unless these bytes were booted before.
    #[arg(long, value_enum, default_value_t = BootCheck::Here)]
    boot_check: BootCheck,
    /// How long the host may take until it has come to a verdict, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    boot_timeout: u64,
    /// Print what would be done, and what stands in the way; change nothing. Ends with 1 when it would fail.
    #[arg(long, visible_alias = "dry-run")]
    plan: bool,
    #[command(flatten)]
    key: KeyArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StageWord {
    /// Every cloud has it, and only its owner sees it.
    Private,
    /// It was booted.
    Verified,
    /// Those who may use it can.
    Shared,
    /// What names the newest image names it.
    Current,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BootCheck {
    /// Boot it in a virtual computer.
    Here,
    /// Somebody else did.
    Skip,
}

impl From<StageWord> for Stage {
    fn from(word: StageWord) -> Self {
        match word {
            StageWord::Private => Self::Private,
            StageWord::Verified => Self::Verified,
            StageWord::Shared => Self::Shared,
            StageWord::Current => Self::Current,
        }
    }
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("nothing was begun: {} in the way\n  {}", .0.len(), .0.join("\n  "))]
    Findings(Vec<String>),
    #[error("it is not in all targets yet: {} steps of `publish` are missing, the first is `{first}`", .count)]
    NotPublished { count: usize, first: String },
}

/// What `--plan` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plan<'a> {
    image: &'a str,
    version: &'a str,
    manifest: Digest,
    tree: Digest,
    steps: &'a [Step],
    findings: &'a [Finding],
}

/// One publish on its way.
struct Course<'a> {
    image: Image,
    targets: &'a TargetArgs,
    list: Targets,
    publication: Publication,
    runtime: Runtime,
    key: Option<PrivateKey>,
    json: bool,
}

pub(super) fn run(args: &PublishArgs) -> Result<(), Failure> {
    go(&args.course, args.until.into(), |_| Ok(()))
}

pub(super) fn promote(args: &PromoteArgs) -> Result<(), Failure> {
    go(&args.course, args.to.into(), is_published)
}

/// Refuses to promote what is not published: `promote` sends no bytes.
fn is_published(steps: &[Step]) -> Result<(), Failure> {
    let missing = steps.iter().filter(|step| step.stage <= Stage::Verified);
    let missing: Vec<_> = missing.collect();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let refused = Refused::NotPublished {
        count: missing.len(),
        first: format!("{} {} in {}", first.action, first.object, first.target),
    };
    Err(Failure::told(refused, Exit::Failed))
}

fn go(
    args: &CourseArgs,
    until: Stage,
    may_begin: impl Fn(&[Step]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut course = Course::begin(args)?;
    let findings = course.look()?;
    let steps = course.publication.plan(until);
    may_begin(&steps)?;
    if args.plan {
        course.show(&steps, &findings)?;
        return refuse(&findings);
    }
    warn(&findings);
    refuse(&findings)?;
    // Nothing is worse than images that no record tells of.
    record::prepare(&course.image).map_err(failed)?;
    if until >= Stage::Verified && args.boot_check == BootCheck::Here {
        prove(&course.image, Duration::from_secs(args.boot_timeout))?;
    }
    course.finish(until)
}

impl<'a> Course<'a> {
    fn begin(args: &'a CourseArgs) -> Result<Self, Failure> {
        // All that can be wrong here is found before anybody is asked.
        let targets = &args.targets;
        let list = targets.read()?;
        let key = args.key.given()?;
        let image = targets.image(&args.store, &args.image)?;
        let publication = targets.publication(&image, &list)?;
        Ok(Self {
            image,
            targets,
            list,
            publication,
            runtime: Runtime::new().map_err(Failure::Start)?,
            key,
            json: args.json,
        })
    }

    /// Looks what there is, and what stands in the way.
    fn look(&mut self) -> Result<Vec<Finding>, Failure> {
        let publication = &mut self.publication;
        self.runtime.block_on(async {
            publication.observe().await.whole().map_err(failed)?;
            let findings = publication.check().await.whole().map_err(failed)?;
            Ok(findings
                .into_iter()
                .flat_map(|(_, findings)| findings)
                .collect())
        })
    }

    fn show(&self, steps: &[Step], findings: &[Finding]) -> Result<(), Failure> {
        let subject = &self.image.subject;
        if self.json {
            return print_json(&Plan {
                image: &subject.name,
                version: &subject.version,
                manifest: subject.manifest,
                tree: subject.tree,
                steps,
                findings,
            });
        }
        print(&format!(
            "{} {} {}",
            subject.name, subject.version, subject.manifest
        ))?;
        for step in steps {
            let Step {
                target,
                stage,
                action,
                place,
                object,
                detail,
            } = step;
            print(&format!(
                "{:8} {target}: {action} {object} in {place}  {detail}",
                stage.label()
            ))?;
        }
        if steps.is_empty() {
            print("nothing is to be done")?;
        }
        for finding in findings {
            let word = match finding.severity {
                Severity::Warning => "warning",
                Severity::Error => "ERROR",
            };
            print(&format!(
                "{word:8} {} in {}: {}",
                finding.target, finding.place, finding.message
            ))?;
        }
        Ok(())
    }

    /// Does it, writes the record of what came of it, and tells.
    fn finish(mut self, until: Stage) -> Result<(), Failure> {
        let narration = Arc::new(Narration::new());
        let progress: Arc<dyn cloud::Progress> = narration.clone();
        let publication = &mut self.publication;
        let (reached, failures) = self
            .runtime
            .block_on(publication.advance_to(until, &progress));
        narration.finish();
        let asked = publication.targets();
        let came = Came {
            stage: reached.unwrap_or(Stage::Private),
            unfinished: failures
                .iter()
                .map(|failed| failed.target.clone())
                .collect(),
            receipts: publication.receipts(),
            asked: asked.clone(),
        };
        let record = record::write(&self.image, came, self.key.as_ref()).map_err(failed)?;
        if self.key.is_none() {
            tracing::warn!("the record is not signed: give a key with `--key` or `IMAGEBUILD_KEY`");
        }
        let failures = if failures.is_empty() {
            self.attach_record(&progress)?
        } else {
            failures
        };
        self.tell(&record)?;
        match together(failures, asked.len()) {
            Some(error) => Err(failed(error)),
            None => Ok(()),
        }
    }

    /// Registries keep the record beside the image; it is there only now.
    fn attach_record(&self, progress: &Arc<dyn cloud::Progress>) -> Result<Vec<Failed>, Failure> {
        let registries = Targets {
            oci: self.list.oci.clone(),
            ..Targets::default()
        };
        let mut publication = self.targets.publication(&self.image, &registries)?;
        let failures = self.runtime.block_on(async {
            let said = publication.observe().await;
            if !said.failed.is_empty() {
                return said.failed;
            }
            publication.advance_to(Stage::Private, progress).await.1
        });
        Ok(failures)
    }

    fn tell(&self, record: &Record) -> Result<(), Failure> {
        if self.json {
            return print_json(record);
        }
        show_record(record)
    }
}

/// Prints a record for people.
pub(super) fn show_record(record: &Record) -> Result<(), Failure> {
    print(&format!(
        "{} {} {}",
        record.image, record.version, record.architecture
    ))?;
    print(&format!("manifest {}", record.manifest))?;
    print(&format!("tree     {}", record.tree))?;
    for one in &record.receipts {
        let stage = one.stage.label();
        print(&format!(
            "{stage:8} {} {} {} {} {}",
            one.target, one.place, one.kind, one.id, one.name
        ))?;
    }
    let mut unfinished = record.unfinished.iter();
    unfinished.try_for_each(|target| print(&format!("UNFINISHED {target}")))
}

/// Fails when something stands in the way.
fn refuse(findings: &[Finding]) -> Result<(), Failure> {
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<_> = errors
        .map(|finding| {
            format!(
                "{} in {}: {}",
                finding.target, finding.place, finding.message
            )
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::told(Refused::Findings(errors), Exit::Failed))
}

/// Says what is good to know.
fn warn(findings: &[Finding]) {
    let warnings = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Warning);
    for finding in warnings {
        tracing::warn!(
            target_name = finding.target,
            place = finding.place,
            "{}",
            finding.message
        );
    }
}

/// Boots the disk, unless that was done before.
fn prove(image: &Image, patience: Duration) -> Result<(), Failure> {
    let manifest = &image.found.manifest;
    let digest = image.found.digest;
    if manifest.disk.is_none() {
        return Ok(());
    }
    if proof::is_kept(&image.store, &digest, &manifest.tree).map_err(Failure::Store)? {
        return Ok(());
    }
    let machine = MachineArgs::default();
    let running = machine.start(&image.store, manifest, Network::None, Console::Pipe)?;
    let log = running.folder.log();
    let outcome = trial::follow(running.computer, &manifest.tree, patience, &log)?;
    if !outcome.is_good() {
        let kept = super::test::keep(&log, &manifest.name)?;
        let why = outcome.failure.as_deref().unwrap_or("a check failed");
        eprintln!(
            "The image was not booted to a healthy host: {why}. What it said is in `{}`.",
            kept.display()
        );
        return Err(MachineError::Unwell(manifest.name.clone()).into());
    }
    tracing::info!(elapsed_ms = outcome.elapsed_ms, "booted to a healthy host");
    proof::keep(&image.store, &digest, &manifest.tree, &outcome).map_err(Failure::Store)
}
