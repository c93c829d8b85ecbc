//! A simulated Redfish service.
