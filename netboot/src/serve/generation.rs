//! Which image a host boots: its generation's, or, when it has none yet, its role's.
//!
//! It refuses to decide and to remember: the executor is asked for each script, and where the image
//! of a host's generation is gone, no other one takes its place.

use std::sync::Arc;

use netboot_core::site::{Host, ImageRef, Parameters, Site};

use super::appliance::Appliance;
use crate::cli::report::chain;
use crate::images::{self, Bootable, identity, reference};
use crate::operate::{Began, Chosen};

/// What a host is about to boot.
#[derive(Clone, Debug)]
pub(super) struct Booting {
    pub(super) image: Bootable,
    pub(super) parameters: Parameters,
    /// Its generation; none when it is adopted with this boot.
    chosen: Option<Chosen>,
}

impl Appliance {
    /// Finds what a host boots.
    ///
    /// # Errors
    /// In words, for the host's console.
    pub(super) async fn booting(&self, site: &Site, host: &Host) -> Result<Booting, String> {
        let chosen = self.operator.choose(&host.name).await;
        let chosen = chosen.map_err(|refusal| refusal.to_string())?;
        let wish = match &chosen {
            Some(chosen) => ImageRef {
                name: chosen.image.name.as_str().into(),
                digest: Some(chosen.image.manifest),
            },
            None => site
                .image_of(host)
                .ok_or_else(|| format!("its role {} has no image", host.role))?
                .clone(),
        };
        let store = self.images.clone();
        let image = wish.clone();
        let found = tokio::task::spawn_blocking(move || images::resolve(&store, &image))
            .await
            .map_err(|error| chain(&error))?;
        let image = found.map_err(|error| match &chosen {
            Some(chosen) => format!(
                "its generation {} is image {}, which cannot be had: {}; put it into the store, or deploy another one",
                chosen.generation,
                reference(&wish),
                chain(&error)
            ),
            None => chain(&error),
        })?;
        let parameters = match &chosen {
            Some(chosen) => chosen.parameters.clone(),
            None => site.parameters_of(host),
        };
        Ok(Booting {
            image,
            parameters,
            chosen,
        })
    }

    /// Tells the lifecycle that a host is given the script of a boot; that is on disk when this
    /// returns. A host without generation has its first one then.
    ///
    /// # Errors
    /// In words, for the host's console.
    pub(super) async fn begin(
        &self,
        host: &Arc<str>,
        boot: &str,
        booting: &Booting,
    ) -> Result<u32, String> {
        let adopt = || (identity(&booting.image), booting.parameters.clone());
        let began = Began {
            host: Arc::clone(host),
            boot: boot.to_owned(),
            generation: booting
                .chosen
                .as_ref()
                .map_or(0, |chosen| chosen.generation),
            adopt: booting.chosen.is_none().then(adopt),
        };
        let chosen = self.operator.began(began).await;
        Ok(chosen.map_err(|refusal| refusal.to_string())?.generation)
    }
}
