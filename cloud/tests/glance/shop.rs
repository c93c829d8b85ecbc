//! A cloud, a target, and credentials for it.

use std::sync::{Arc, LazyLock};

use cloud::fake::Server;
use cloud::fake::glance::{OpenStack, PASSWORD};
use cloud::glance::{Publisher, Target};
use image_manifest::FormKind;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forms;

/// What stands for a qcow2: Glance stores bytes as they come.
pub(crate) static QCOW2: LazyLock<Vec<u8>> = LazyLock::new(|| forms::noise(3 << 20));

pub(crate) struct Shop {
    pub(crate) cloud: OpenStack,
    pub(crate) server: Server,
    pub(crate) target: Target,
    pub(crate) directory: TempDir,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let cloud = OpenStack::new();
        let server = Server::start(Arc::new(cloud.clone())).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let openrc = directory.path().join("openrc.sh");
        let url = server.url();
        let settings = format!(
            "export OS_AUTH_URL={url}/identity\nexport OS_USERNAME=\"ci\"\nexport OS_PASSWORD='{PASSWORD}'\n\
             export OS_USER_DOMAIN_NAME=Default\nexport OS_PROJECT_NAME=images\nexport OS_REGION_NAME=one\n"
        );
        std::fs::write(&openrc, settings).unwrap();
        let target = toml::from_str(&format!(
            r#"
            name = "glance"
            visibility = "shared"
            members = ["abc"]
            tags = ["boot"]
            properties = {{ hw_disk_bus = "scsi", os_version = "" }}
            openrc = "{}"
            "#,
            openrc.display()
        ));
        Self {
            cloud,
            server,
            target: target.unwrap(),
            directory,
        }
    }

    pub(crate) fn publisher(&self, version: &str) -> Publisher {
        self.publisher_of(&self.target, version)
    }

    pub(crate) fn publisher_of(&self, target: &Target, version: &str) -> Publisher {
        assert_eq!(target.check(), [""; 0]);
        let disk = forms::disk(3 << 29, &[(FormKind::Qcow2, &QCOW2)]);
        let options = forms::options(self.directory.path());
        Publisher::new(target, &forms::subject(version, disk), &options).unwrap()
    }

    /// The one image of a version.
    pub(crate) fn image(&self, version: &str) -> Value {
        let images = self.cloud.images();
        let mut ours = images
            .into_iter()
            .filter(|image| image["firstboot_version"] == version);
        let image = ours.next().unwrap();
        assert!(ours.next().is_none());
        image
    }

    /// One image of a version, whole, shared and current.
    pub(crate) fn is_published(&self, version: &str) {
        let image = self.image(version);
        let id = image["id"].as_str().unwrap();
        assert!(self.cloud.bytes(id).unwrap() == QCOW2.as_slice());
        let expected = [
            ("name", json!(format!("host-{version}-amd64"))),
            ("status", json!("active")),
            ("visibility", json!("shared")),
            ("os_hidden", json!(false)),
            ("min_disk", json!(2)),
            ("disk_format", json!("qcow2")),
            ("hw_firmware_type", json!("uefi")),
            ("hw_machine_type", json!("q35")),
            ("hw_disk_bus", json!("scsi")),
            ("os_distro", json!("debian")),
            ("os_version", Value::Null),
            ("architecture", json!("x86_64")),
            ("firstboot_compared", image["os_hash_value"].clone()),
            ("tags", json!(["boot", "current"])),
        ];
        for (field, expected) in expected {
            assert_eq!(image[field], expected, "{field}");
        }
        assert_eq!(
            self.cloud.members(id).into_iter().collect::<Vec<_>>(),
            ["abc"]
        );
    }
}
