//! RMCP, RMCP+ and IPMI messages as bytes.
