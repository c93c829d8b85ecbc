//! The IPMI commands that we send, as typed requests and replies.
