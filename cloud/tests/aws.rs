//! Publishing to Amazon's cloud, against the strict fake.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

#[path = "aws/bench.rs"]
mod bench;
#[path = "aws/faults.rs"]
mod faults;
#[path = "aws/keeping.rs"]
mod keeping;
#[path = "aws/kills.rs"]
mod kills;
#[path = "aws/launch.rs"]
mod launch;
#[path = "aws/others.rs"]
mod others;
#[path = "aws/plans.rs"]
mod plans;
#[path = "aws/policy.rs"]
mod policy;
#[path = "aws/publish.rs"]
mod publish;
