//! Redfish: a thin client with lenient types.
