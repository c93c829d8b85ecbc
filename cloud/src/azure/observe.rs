//! Looking: what there is of this image, and whether it is ours.

use super::Publisher;
use super::names::{COMPUTE, GALLERY, Kind};
use super::observed::{self, Object, Observed, State};
use super::upload;
use crate::error::Error;

impl Publisher {
    /// Looks what there is. Nothing is changed.
    pub(super) async fn look(&mut self) -> Result<(), Error> {
        let mut found = Observed {
            object: self.object().await?,
            blob: self.blob.look().await?,
            ..Observed::default()
        };
        if let Some(seen) = &found.blob
            && !upload::is_ours(&self.desired, seen)
        {
            return Err(Error::Foreign {
                what: format!("blob `{}`", self.blob.url()),
            });
        }
        if let Kind::Version { .. } = &self.desired.kind {
            self.look_at_gallery(&mut found).await?;
        }
        self.observed = found;
        Ok(())
    }

    /// The image or version of our name, when it is ours.
    pub(super) async fn object(&self) -> Result<Option<Object>, Error> {
        let desired = &self.desired;
        let what = format!("`{}`", desired.path);
        let read = self.arm.read(&what, &desired.path, &self.query()).await?;
        let Some(object) = read.as_ref().map(Object::read) else {
            return Ok(None);
        };
        // What is being removed may have lost its tags.
        let ours = object.manifest() == Some(desired.manifest.as_str())
            && object.is_of_target(&desired.target.name);
        if !ours && object.state != State::Leaving {
            return Err(Error::Foreign { what });
        }
        Ok(Some(object))
    }

    /// What is asked about an image or version.
    pub(super) fn query(&self) -> String {
        match self.desired.kind {
            Kind::Image { .. } => format!("api-version={COMPUTE}"),
            Kind::Version { .. } => format!("api-version={GALLERY}&$expand=ReplicationStatus"),
        }
    }

    async fn look_at_gallery(&self, found: &mut Observed) -> Result<(), Error> {
        let desired = &self.desired;
        let (Some(definition), Some(gallery)) = (desired.definition_path(), desired.gallery_path())
        else {
            return Ok(());
        };
        let version = format!("api-version={GALLERY}");
        let read = self.arm.read("the image definition", &definition, &version);
        found.definition = read.await?.as_ref().map(Object::read);
        if found.definition.is_some() {
            let versions = self.versions().await?;
            let others = versions.into_iter().filter(|other| {
                !other.path.eq_ignore_ascii_case(&desired.path)
                    && other.is_of(&desired.image, &desired.target.name)
                    && other.state != State::Leaving
                    && !other.excluded
            });
            found.latest = others.collect();
        }
        if let Kind::Version {
            gallery: wanted, ..
        } = &desired.kind
            && wanted.share.is_with_anybody()
        {
            let query = format!("{version}&$select=Permissions&$expand=SharingProfile/Groups");
            let read = self.arm.read("the gallery", &gallery, &query).await?;
            let read = read.unwrap_or_default();
            (found.groups, found.community) = observed::sharing(&read);
        }
        Ok(())
    }

    /// All versions of the definition.
    pub(super) async fn versions(&self) -> Result<Vec<Object>, Error> {
        let definition = self.desired.definition_path().unwrap_or_default();
        let path = format!("{definition}/versions");
        let query = format!("api-version={GALLERY}");
        let listed = self.arm.list("the image versions", &path, &query).await?;
        Ok(listed.iter().map(Object::read).collect())
    }
}
