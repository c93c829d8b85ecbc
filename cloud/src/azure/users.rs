//! Who uses images: the subscription's virtual machines and scale sets, and whoever a gallery is shared with.
//!
//! It refuses to believe a list that may lack what the credentials do not see: who cannot be asked is taken for a user.

use serde_json::Value;

use super::Publisher;
use super::names::{COMPUTE, GALLERY, Kind};
use super::observed::{self, Object};
use super::permissions;
use crate::error::Error;

/// Users of images, and what listing them all takes.
const USERS: [(&str, &str); 2] = [
    ("virtualMachines", "Microsoft.Compute/virtualMachines/read"),
    (
        "virtualMachineScaleSets",
        "Microsoft.Compute/virtualMachineScaleSets/read",
    ),
];

/// Who is made of which image.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Name of the user, and the path of its image.
    known: Vec<(String, String)>,
    /// Why there may be others, of every image.
    unknown: Vec<String>,
}

impl Users {
    /// Who keeps an image.
    pub(super) fn of(&self, object: &Object) -> Vec<String> {
        let path = object.path.to_lowercase();
        let known = self.known.iter().filter(|(_, image)| *image == path);
        let known = known.map(|(name, _)| name.clone());
        known.chain(self.unknown.iter().cloned()).collect()
    }

    fn lack(&mut self, permission: &str, place: &str) {
        self.unknown.push(format!(
            "maybe somebody: asking needs `{permission}` at the {place}"
        ));
    }

    fn read(&mut self, kind: &str, listed: &[Value]) {
        for user in listed {
            let properties = &user["properties"];
            let profile = match kind {
                "virtualMachines" => properties,
                _ => &properties["virtualMachineProfile"],
            };
            let image = &profile["storageProfile"]["imageReference"];
            // A reference to the latest tells which one that was.
            let exact = image["exactVersion"].as_str();
            if let (Some(name), Some(id)) = (user["name"].as_str(), image["id"].as_str()) {
                let id = match exact {
                    Some(version) if !id.contains("/versions/") => {
                        format!("{id}/versions/{version}")
                    }
                    _ => id.to_owned(),
                };
                self.known
                    .push((format!("{kind}/{name}"), id.to_lowercase()));
            }
        }
    }
}

impl Publisher {
    /// Who uses images, and who may.
    pub(super) async fn users(&self) -> Result<Users, Error> {
        let mut users = Users::default();
        self.ask_subscription(&mut users).await?;
        self.ask_gallery(&mut users).await?;
        Ok(users)
    }

    /// Asks for virtual machines and scale sets. Of these the cloud lists what one may see, and does not say that there is
    /// more: the list is believed when the subscription itself gives the permission to read them.
    async fn ask_subscription(&self, users: &mut Users) -> Result<(), Error> {
        const PLACE: &str = "subscription";
        let scope = format!("/subscriptions/{}", self.desired.target.subscription);
        let grants = match self.grants(&scope).await {
            Ok(grants) => grants,
            Err(Error::Denied { permission, .. }) => {
                users.lack(&permission, PLACE);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for (kind, read) in USERS {
            if !permissions::missing(&[read], &grants).is_empty() {
                users.lack(read, PLACE);
                continue;
            }
            let path = format!("{scope}/providers/Microsoft.Compute/{kind}");
            let query = format!("api-version={COMPUTE}");
            match self.arm.known(kind, &path, &query).await {
                Ok(Some(listed)) => users.read(kind, &listed),
                Ok(None) => users
                    .unknown
                    .push(format!("maybe somebody: the cloud has no list of `{kind}`")),
                Err(Error::Denied { permission, .. }) => users.lack(&permission, PLACE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks whether there may be users in subscriptions and tenants that cannot be asked.
    async fn ask_gallery(&self, users: &mut Users) -> Result<(), Error> {
        let Kind::Version { gallery, .. } = &self.desired.kind else {
            return Ok(());
        };
        let shared = || "the gallery is shared: users elsewhere cannot be asked".to_owned();
        if gallery.share.is_with_anybody() {
            users.unknown.push(shared());
            return Ok(());
        }
        let path = self.desired.gallery_path().unwrap_or_default();
        let select = "$select=Permissions&$expand=SharingProfile/Groups";
        let query = format!("api-version={GALLERY}&{select}");
        match self.arm.read("the gallery", &path, &query).await {
            Ok(Some(gallery)) if is_private(&gallery) => {}
            Ok(_) => users.unknown.push(shared()),
            Err(Error::Denied { permission, .. }) => users.lack(&permission, "gallery"),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a gallery is shared with nobody, and cannot be: one that never was may have no profile of it.
fn is_private(gallery: &Value) -> bool {
    let permissions = gallery["properties"]["sharingProfile"]["permissions"].as_str();
    let (groups, community) = observed::sharing(gallery);
    permissions.is_none_or(|word| word == "Private") && groups.is_empty() && !community
}
