//! Paths of the resource manager.

use hyper::Method;

/// A path, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Path<'a> {
    pub(super) whole: &'a str,
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
}

pub(super) const COMPUTE: &str = "/providers/Microsoft.Compute/";

impl<'a> Path<'a> {
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let (_, rest) = path.split_once(COMPUTE)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let (kind, name) = match *parts.as_slice() {
            ["images", name] => ("images", name),
            ["images"] => ("images", ""),
            ["galleries", name] => ("galleries", name),
            ["galleries", _, "images", name] => ("galleries/images", name),
            ["galleries", _, "images", _, "versions", name] => ("galleries/images/versions", name),
            ["galleries", _, "images", _, "versions"] => ("galleries/images/versions", ""),
            ["galleries", _, "share"] => ("galleries/share", ""),
            ["virtualMachines"] => ("virtualMachines", ""),
            ["virtualMachines", name] => ("virtualMachines", name),
            ["virtualMachineScaleSets"] => ("virtualMachineScaleSets", ""),
            ["virtualMachineScaleSets", name] => ("virtualMachineScaleSets", name),
            ["locations", _, "operations", name] => ("locations/operations", name),
            _ => return None,
        };
        let whole = path;
        Some(Self { whole, kind, name })
    }

    /// The path of what it belongs to.
    pub(super) fn parent(&self) -> &'a str {
        let cut = match self.kind {
            "galleries/images" => "/images/",
            _ => "/versions/",
        };
        self.whole.rsplit_once(cut).map_or("", |(parent, _)| parent)
    }

    pub(super) fn action(&self, method: &Method) -> String {
        let verb = match *method {
            Method::GET => "read",
            Method::DELETE => "delete",
            Method::POST => "action",
            _ => "write",
        };
        format!("Microsoft.Compute/{}/{verb}", self.kind)
    }
}
