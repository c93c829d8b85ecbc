//! A cloud, a target, and credentials for it.

use std::io::{self, Cursor, Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use cloud::fake::Server;
use cloud::fake::gce::Gce;
use cloud::gce::{Publisher, Target};
use image_manifest::FormKind;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forms;

const GIB: u64 = 1 << 30;
/// Bytes at the start of the disk that do not compress.
const DATA: usize = 20 << 20;

pub(crate) struct Shop {
    pub(crate) cloud: Gce,
    pub(crate) server: Server,
    pub(crate) target: Target,
    pub(crate) directory: TempDir,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let cloud = Gce::new("acme", "images");
        let server = Server::start(Arc::new(cloud.clone())).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (url, path) = (server.url(), directory.path());
        let credentials = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/ci",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{url}/v1/token"),
            "credential_source": { "file": path.join("subject"), "format": { "type": "text" } },
        });
        std::fs::write(path.join("subject"), "subject-1").unwrap();
        std::fs::write(path.join("credentials.json"), credentials.to_string()).unwrap();
        let target = toml::from_str(&format!(
            r#"
            name = "gce"
            project = "acme"
            bucket = "images"
            family = "{{image}}"
            share-with = ["group:hosts@acme.example"]
            deprecate-after = 90
            labels = {{ cost = "boot" }}
            credentials-file = "{}"
            endpoints = {{ storage = "{url}", compute = "{url}", projects = "{url}" }}
            "#,
            path.join("credentials.json").display()
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
        self.publisher_at(target, version, "journal")
    }

    pub(crate) fn publisher_at(&self, target: &Target, version: &str, journal: &str) -> Publisher {
        assert_eq!(target.check(), [""; 0]);
        let disk = forms::disk(1 << 30, &[(FormKind::Gce, archive())]);
        let options = forms::options(&self.directory.path().join(journal));
        Publisher::new(target, &forms::subject(version, disk), &options).unwrap()
    }

    /// One image of a version, whole, shared and current; and nothing else.
    pub(crate) fn is_published(&self, version: &str) {
        let name = format!("host-{version}-amd64");
        let found = image(&self.cloud, &name);
        assert_eq!(found["status"], "READY");
        assert_eq!(found["architecture"], "X86_64");
        assert_eq!(found["diskSizeGb"], "1");
        assert_eq!(found["family"], "host");
        assert_eq!(found["labels"]["cost"], "boot");
        assert_eq!(found["labels"]["firstboot-version"], version);
        assert_eq!(found["deprecated"]["state"], "ACTIVE");
        assert!(self.cloud.archive(&name).unwrap() == archive());
        let bindings = &self.cloud.policy(&name)["bindings"];
        let expected =
            json!([{ "role": "roles/compute.imageUser", "members": ["group:hosts@acme.example"] }]);
        assert_eq!(*bindings, expected);
        assert_eq!(self.cloud.objects(), [""; 0]);
        let ours = self.cloud.images();
        let ours = ours
            .iter()
            .filter(|image| image["labels"]["firstboot-version"] == version);
        assert_eq!(ours.count(), 1);
    }
}

pub(crate) fn image(cloud: &Gce, name: &str) -> Value {
    let images = cloud.images();
    images
        .into_iter()
        .find(|image| image["name"] == name)
        .unwrap()
}

/// A disk of 1 GiB in the archive that Google's cloud takes, as the `tar` crate writes it.
pub(crate) fn archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let mut header = tar::Header::new_gnu();
        header.set_path("disk.raw").unwrap();
        header.set_size(GIB);
        header.set_mode(0o644);
        header.set_cksum();
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        let data = Cursor::new(forms::noise(DATA))
            .chain(io::repeat(0))
            .take(GIB);
        archive.append(&header, data).unwrap();
        let mut gzip = archive.into_inner().unwrap();
        gzip.flush().unwrap();
        gzip.finish().unwrap()
    })
}
