//! HTTP: loaders, scripts, artifacts and the boot reports.
