//! `imagebuild prune`: published images that nobody keeps go, and what they cost is told.
//!
//! It refuses to remove anything unless `--delete` is said; clouds are asked once more before each removal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use cloud::publish::{Failed, together};
use cloud::{Published, targets};
use imagebuild::definition::Problem;
use imagebuild::publish::retention::{Judged, Rules, judge};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::gc::age;
use super::targets::{TargetArgs, failed, read_text, refused};
use super::{print, print_json};

/// Bytes of what clouds call a gigabyte.
const GIGABYTE: f64 = 1_073_741_824.0;

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// An image of this name: older ones of the same name are looked for.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it; what is in it is kept in the clouds too.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    targets: TargetArgs,
    /// Images of each architecture that are kept in each region or project.
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
    /// Only what is older goes: a number with `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "AGE", default_value = "30d", value_parser = age)]
    min_age: Duration,
    /// Prices: a TOML table of targets and what a gigabyte costs them in a month.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Remove what is told; without it nothing is changed.
    #[arg(long)]
    delete: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What a gigabyte costs in a month.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Prices {
    /// Such as `USD`.
    currency: String,
    /// For targets by name.
    gigabyte_month: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome<'a> {
    deleted: bool,
    images: &'a [Judged],
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    monthly_cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    /// Targets that the price file does not name: the cost is without them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unpriced: BTreeSet<&'a str>,
}

pub(super) fn run(args: &PruneArgs) -> Result<(), Failure> {
    let list = args.targets.read()?;
    let prices = args.prices.as_deref().map(read_prices).transpose()?;
    let image = args.targets.image(&args.store, &args.image)?;
    let mut publication = args.targets.publication(&image, &list)?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let age = i64::try_from(args.min_age.as_secs()).unwrap_or(i64::MAX);
    let stored = image.store.images().map_err(Failure::Store)?;
    let rules = Rules {
        keep: args.keep,
        before: OffsetDateTime::now_utc()
            .unix_timestamp()
            .saturating_sub(age),
        manifests: stored
            .iter()
            .map(|found| found.digest.to_string())
            .collect(),
    };
    let (judged, failures, tried) = runtime.block_on(async {
        let all = publication.inventory().await.whole().map_err(failed)?;
        let all = all.into_iter().flat_map(|(_, images)| images);
        let mut judged = judge(all.collect(), &rules);
        let (mut failures, mut tried) = (Vec::new(), 0);
        let going = judged
            .iter_mut()
            .filter(|one| args.delete && one.stays.is_empty());
        for one in going {
            tried += 1;
            let Published { id, place, .. } = &one.published;
            match publication.remove(&one.published).await {
                Ok(()) => tracing::info!(id, place, "removed"),
                Err(error) => {
                    one.stays.push(error.to_string());
                    let target = one.published.target.clone();
                    failures.push(Failed { target, error });
                }
            }
        }
        Ok::<_, Failure>((judged, failures, tried))
    })?;
    let going = || judged.iter().filter(|one| one.stays.is_empty());
    let outcome = Outcome {
        deleted: args.delete,
        images: &judged,
        bytes: going().map(|one| one.published.bytes).sum(),
        monthly_cost: prices
            .as_ref()
            .map(|prices| going().fold(0.0, |sum, one| sum + cost(one, prices))),
        currency: prices.as_ref().map(|prices| prices.currency.as_str()),
        unpriced: prices
            .as_ref()
            .map(|prices| unpriced(&judged, prices))
            .unwrap_or_default(),
    };
    if args.json {
        print_json(&outcome)?;
    } else {
        tell(&outcome)?;
    }
    // What was not removed stays in the clouds and in the output; the others are gone.
    match together(failures, tried) {
        Some(error) => Err(failed(error)),
        None => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a price has few digits")]
fn cost(one: &Judged, prices: &Prices) -> f64 {
    let price = prices.gigabyte_month.get(&one.published.target);
    price.map_or(0.0, |price| price * one.published.bytes as f64 / GIGABYTE)
}

fn read_prices(path: &Path) -> Result<Prices, Failure> {
    let text = read_text(path, "`imagebuild/docs/publish.md` shows one")?;
    let prices: Result<Prices, _> = toml::from_str(&text);
    let prices =
        prices.map_err(|error| refused(path, &text, [targets::Problem::of(&text, &error)]))?;
    let mut wrong = prices.gigabyte_month.iter();
    match wrong.find(|(_, price)| !price.is_finite() || **price < 0.0) {
        None => Ok(prices),
        Some((target, price)) => {
            let message = format!("`{target}`: {price} is no price");
            let problem = Problem::about_file(path, message);
            Err(Failure::Problems(vec![problem]))
        }
    }
}

/// Targets of which something would go and nobody said what it costs.
fn unpriced<'a>(judged: &'a [Judged], prices: &Prices) -> BTreeSet<&'a str> {
    let going = judged.iter().filter(|one| one.stays.is_empty());
    let targets = going.map(|one| one.published.target.as_str());
    targets
        .filter(|target| !prices.gigabyte_month.contains_key(*target))
        .collect()
}

fn tell(outcome: &Outcome<'_>) -> Result<(), Failure> {
    let verb = if outcome.deleted {
        "removed"
    } else {
        "would go"
    };
    for one in outcome.images {
        let published = &one.published;
        let what = format!(
            "{} {} {} {}",
            published.target, published.place, published.id, published.name
        );
        if one.stays.is_empty() {
            print(&format!("{verb}: {what}, {} bytes", published.bytes))?;
        } else {
            print(&format!("stays: {what}: {}", one.stays.join(", ")))?;
        }
    }
    let cost = outcome.monthly_cost.map_or_else(String::new, |cost| {
        format!(
            ", {cost:.2} {} a month",
            outcome.currency.unwrap_or_default()
        )
    });
    print(&format!("{} bytes {verb}{cost}", outcome.bytes))?;
    let mut unpriced = outcome.unpriced.iter();
    unpriced.try_for_each(|target| print(&format!("no price is known for {target}")))
}
