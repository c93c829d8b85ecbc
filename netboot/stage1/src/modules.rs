//! The initrd's kernel modules: which of them a device asks for, and in which order they load.
//!
//! It loads nothing: the index is text that `imagebuild` wrote, and the answers are values.

use std::collections::{BTreeMap, BTreeSet};

use crate::alias;

/// Where the index stands in the initrd.
pub(crate) const PATH: &str = "/etc/firstboot/modules.index";

/// All modules of the initrd.
#[derive(Debug, Default)]
pub(crate) struct Index {
    modules: Vec<Module>,
    by_name: BTreeMap<String, usize>,
    /// Aliases by what stands before their first colon (the bus), so that a device is compared
    /// with the patterns of its own bus only.
    by_bus: BTreeMap<String, Vec<(String, usize)>>,
}

/// One module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// Its file in the initrd.
    pub(crate) path: String,
    dependencies: Vec<String>,
}

/// Which devices get their drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every device of the host.
    All,
    /// All but disks and their controllers: what boots from the network needs none, and a controller of a server
    /// takes half a minute to start. The image's own system loads them later.
    WithoutStorage,
}

/// Where the kernel keeps drivers of disks and of what they hang on.
const STORAGE: [&str; 7] = [
    "/drivers/ata/",
    "/drivers/block/",
    "/drivers/message/",
    "/drivers/mmc/",
    "/drivers/nvme/",
    "/drivers/scsi/",
    "/drivers/usb/storage/",
];

impl Module {
    fn is_in(&self, scope: Scope) -> bool {
        scope == Scope::All || !STORAGE.iter().any(|folder| self.path.contains(folder))
    }
}

/// A line of the index that is not as `imagebuild` writes it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of `{PATH}` is malformed")]
pub(crate) struct MalformedIndex {
    line: usize,
}

impl Index {
    /// Reads lines of `name<TAB>path<TAB>dependency,…<TAB>alias alias …`.
    pub(crate) fn parse(text: &str) -> Result<Self, MalformedIndex> {
        let mut index = Self::default();
        for (number, line) in text.lines().enumerate() {
            let malformed = MalformedIndex { line: number + 1 };
            let mut fields = line.split('\t');
            let (Some(name), Some(path)) = (fields.next(), fields.next()) else {
                return Err(malformed);
            };
            let (dependencies, aliases) = (fields.next(), fields.next());
            if name.is_empty() || path.is_empty() || fields.next().is_some() {
                return Err(malformed);
            }
            let at = index.modules.len();
            index.by_name.insert(canonical(name), at);
            for pattern in aliases.unwrap_or_default().split_ascii_whitespace() {
                let bus = index.by_bus.entry(bus(pattern).to_owned()).or_default();
                bus.push((pattern.to_owned(), at));
            }
            index.modules.push(Module {
                name: canonical(name),
                path: format!("/{}", path.trim_start_matches('/')),
                dependencies: dependencies
                    .unwrap_or_default()
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(canonical)
                    .collect(),
            });
        }
        Ok(index)
    }

    /// Returns the modules that a device's modalias asks for, with what they need before them,
    /// in the order to load them. What is out of scope is loaded only where something in it needs it.
    pub(crate) fn for_device(&self, modalias: &str, scope: Scope) -> Vec<&Module> {
        let patterns = self
            .by_bus
            .get(bus(modalias))
            .map_or(&[][..], Vec::as_slice);
        let mut order = Order::default();
        for (pattern, at) in patterns {
            if self.modules[*at].is_in(scope) && alias::matches(pattern, modalias) {
                self.visit(*at, &mut order);
            }
        }
        order.modules.iter().map(|at| &self.modules[*at]).collect()
    }

    /// Returns a module with what it needs before it, in the order to load them; empty when the
    /// initrd does not have it.
    pub(crate) fn by_name(&self, name: &str) -> Vec<&Module> {
        let mut order = Order::default();
        if let Some(at) = self.by_name.get(&canonical(name)) {
            self.visit(*at, &mut order);
        }
        order.modules.iter().map(|at| &self.modules[*at]).collect()
    }

    /// Forgets all modules but those that these names load, and devices altogether; returns the files of what it
    /// forgot.
    pub(crate) fn keep(&mut self, names: &[&str]) -> Vec<String> {
        let mut order = Order::default();
        for name in names {
            if let Some(at) = self.by_name.get(&canonical(name)) {
                self.visit(*at, &mut order);
            }
        }
        self.by_name.clear();
        self.by_bus.clear();
        let mut forgotten = Vec::new();
        for (at, module) in std::mem::take(&mut self.modules).into_iter().enumerate() {
            if order.seen.contains(&at) {
                self.by_name.insert(module.name.clone(), self.modules.len());
                self.modules.push(module);
            } else {
                forgotten.push(module.path);
            }
        }
        forgotten
    }

    /// Depth first; a module that is being visited already is left out, so a cycle ends.
    fn visit(&self, at: usize, order: &mut Order) {
        if !order.seen.insert(at) {
            return;
        }
        for dependency in &self.modules[at].dependencies {
            if let Some(at) = self.by_name.get(dependency) {
                self.visit(*at, order);
            }
        }
        order.modules.push(at);
    }
}

#[derive(Default)]
struct Order {
    seen: BTreeSet<usize>,
    modules: Vec<usize>,
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What stands before the first colon, when it is literal.
fn bus(alias: &str) -> &str {
    alias.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INDEX: &str = "failover\tlib/failover.ko\t\t\n\
        net_failover\tlib/net_failover.ko\tfailover\t\n\
        virtio-net\tlib/virtio_net.ko\tnet_failover\tvirtio:d00000001v*\n\
        e1000\tlib/e1000.ko\t\tpci:v00008086d0000100Esv*sd*bc*sc*i* pci:v00008086d0000100Fsv*sd*bc*sc*i*\n\
        loop\tlib/loop.ko\n";

    fn names(modules: Vec<&Module>) -> Vec<&str> {
        modules
            .into_iter()
            .map(|module| module.name.as_str())
            .collect()
    }

    #[test]
    fn a_device_gets_its_modules_after_what_they_need() {
        let index = Index::parse(INDEX).unwrap();
        let cases = [
            (
                "virtio",
                "virtio:d00000001v00001AF4",
                vec!["failover", "net_failover", "virtio_net"],
            ),
            (
                "intel",
                "pci:v00008086d0000100Esv0sd0bc02sc00i00",
                vec!["e1000"],
            ),
            ("a disk", "virtio:d00000002v00001AF4", vec![]),
            ("no bus", "", vec![]),
        ];
        for (name, modalias, expected) in cases {
            let found = index.for_device(modalias, Scope::All);
            assert_eq!(names(found), expected, "{name}");
        }
        assert_eq!(
            names(index.by_name("virtio-net")).last(),
            Some(&"virtio_net")
        );
        assert_eq!(names(index.by_name("loop")), ["loop"]);
        assert!(index.by_name("squashfs").is_empty());
        assert_eq!(index.by_name("loop")[0].path, "/lib/loop.ko");
    }

    #[test]
    fn controllers_of_disks_are_left_alone_unless_an_adapter_needs_them() {
        let index = Index::parse(
            "libata\tlib/drivers/ata/libata.ko\t\t\n\
             ahci\tlib/drivers/ata/ahci.ko\tlibata\tpci:a*\n\
             megaraid_sas\tlib/drivers/scsi/megaraid/megaraid_sas.ko\t\tpci:b*\n\
             uas\tlib/drivers/usb/storage/uas.ko\t\tusb:c*\n\
             odd\tlib/drivers/net/ethernet/odd.ko\tlibata\tpci:d*\n\
             xhci_pci\tlib/drivers/usb/host/xhci-pci.ko\t\tpci:e*\n",
        )
        .unwrap();
        let cases = [
            ("pci:a1", vec!["libata", "ahci"], vec![]),
            ("pci:b1", vec!["megaraid_sas"], vec![]),
            ("usb:c1", vec!["uas"], vec![]),
            ("pci:d1", vec!["libata", "odd"], vec!["libata", "odd"]),
            ("pci:e1", vec!["xhci_pci"], vec!["xhci_pci"]),
        ];
        for (modalias, all, few) in cases {
            assert_eq!(names(index.for_device(modalias, Scope::All)), all);
            assert_eq!(
                names(index.for_device(modalias, Scope::WithoutStorage)),
                few
            );
        }
    }

    #[test]
    fn what_is_forgotten_is_all_that_the_kept_do_not_need() {
        let mut index = Index::parse(INDEX).unwrap();
        let forgotten = index.keep(&["net-failover", "loop", "built-in"]);
        assert_eq!(forgotten, ["/lib/virtio_net.ko", "/lib/e1000.ko"]);
        assert_eq!(
            names(index.by_name("net_failover")),
            ["failover", "net_failover"]
        );
        assert_eq!(names(index.by_name("loop")), ["loop"]);
        assert!(index.by_name("e1000").is_empty());
        let intel = "pci:v00008086d0000100Esv0sd0bc02sc00i00";
        assert!(index.for_device(intel, Scope::All).is_empty());
    }

    #[test]
    fn a_malformed_index_is_refused_with_its_line() {
        let cases = [
            ("one field", "a\n", 1),
            ("no name", "a\tb\n\tb\n", 2),
            ("five fields", "a\tb\tc\td\te", 1),
        ];
        for (name, text, line) in cases {
            assert_eq!(
                Index::parse(text).err(),
                Some(MalformedIndex { line }),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn each_module_loads_once_and_after_what_it_needs(
            needs in proptest::collection::vec(proptest::collection::vec(0usize..12, 0..4), 1..12)
        ) {
            // Needs point backwards, so there is no cycle, and the law holds for every module.
            let lines: Vec<_> = needs.iter().enumerate().map(|(at, needs)| {
                let needs: Vec<_> = needs.iter().filter(|n| **n < at).map(|n| format!("m{n}")).collect();
                format!("m{at}\tlib/m{at}.ko\t{}\t\n", needs.join(","))
            }).collect();
            let index = Index::parse(&lines.concat()).unwrap();
            let order = index.by_name(&format!("m{}", needs.len() - 1));
            for (position, module) in order.iter().enumerate() {
                let before: Vec<_> = order[..position].iter().map(|m| &m.name).collect();
                prop_assert!(!before.contains(&&module.name));
                for need in &module.dependencies {
                    prop_assert!(before.contains(&need));
                }
            }
        }

        #[test]
        fn a_cycle_ends(a in 0usize..4, b in 0usize..4) {
            let lines: Vec<_> = (0..4).map(|at| format!("m{at}\tp\tm{a},m{b}\t\n")).collect();
            let index = Index::parse(&lines.concat()).unwrap();
            prop_assert!(index.by_name("m0").len() <= 4);
        }
    }
}
