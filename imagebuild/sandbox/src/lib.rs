//! Namespaces without network in which maintainer scripts run, as root or not.
