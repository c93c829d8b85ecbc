//! Keys, codes and encryption of RMCP+ sessions.
