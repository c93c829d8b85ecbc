//! Runs the packages' maintainer scripts in the sandbox.
