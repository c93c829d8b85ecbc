//! Publishing to Amazon's cloud, against the strict fake.

#[path = "aws/bench.rs"]
mod bench;
#[path = "aws/kills.rs"]
mod kills;
#[path = "aws/publish.rs"]
mod publish;
