//! IPMI: ipmitool and freeipmi judge the simulated BMC; `ipmi_sim` judges the client, and where it knows
//! too little (suite 17, boot flags) the simulated BMC that the others have judged.
//!
//! It refuses to count a skipped peer as one that agreed: in CI a missing peer is a failure.

mod client;
mod oracles;
mod sim;
mod terminal;
