//! What EC2 does and tells about instances.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roxmltree::Node;

use super::describe::{malformed, seconds, tagged, tags};
use super::{Client, Mode, Query};
use crate::aws::wire;
use crate::error::Error;
use crate::subject::TAG_MANIFEST;

/// An instance of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::aws) struct Instance {
    pub id: String,
    pub image: String,
    /// Its type, such as `t3.small`.
    pub kind: String,
    /// `pending`, `running`, `shutting-down`, …
    pub state: String,
    /// Why it is in that state, when the cloud tells.
    pub reason: String,
    /// The cloud's own word for that.
    pub cause: String,
    /// When it was launched, in seconds since 1970; 0 when that is not known.
    pub launched: i64,
    /// The manifest that its tags name.
    pub manifest: String,
}

impl Instance {
    /// Whether it runs or is about to.
    pub(in crate::aws) fn is_live(&self) -> bool {
        matches!(self.state.as_str(), "pending" | "running")
    }

    /// Whether it never costs anything again: one that is stopped still has its disk.
    pub(in crate::aws) fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "shutting-down" | "terminated")
    }

    /// Whether somebody asked for its end, and not the instance itself or the cloud.
    pub(in crate::aws) fn was_terminated(&self) -> bool {
        self.is_gone() && self.cause == "Client.UserInitiatedShutdown"
    }
}

/// What an instance is launched with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::aws) struct Launching<'a> {
    pub image: &'a str,
    pub kind: &'a str,
    pub subnet: Option<&'a str>,
    pub imdsv2: bool,
    pub token: &'a str,
    pub tags: &'a [(String, String)],
}

impl Client {
    /// Launches one instance that nobody can reach from outside; without an id when only asked.
    pub(in crate::aws) async fn launch(
        &self,
        launch: &Launching<'_>,
        mode: Mode,
    ) -> Result<Instance, Error> {
        let what = match mode {
            Mode::Do => format!("launch a `{}` of {}", launch.kind, launch.image),
            Mode::Dry => format!("ask whether a `{}` may be launched", launch.kind),
        };
        let mut query = Query::new(what, "RunInstances")
            .with("ImageId", launch.image)
            .with("InstanceType", launch.kind)
            .with("MinCount", "1")
            .with("MaxCount", "1")
            .with("InstanceInitiatedShutdownBehavior", "terminate")
            .with("NetworkInterface.1.DeviceIndex", "0")
            .with("NetworkInterface.1.AssociatePublicIpAddress", "false")
            .with("NetworkInterface.1.DeleteOnTermination", "true");
        if let Some(subnet) = launch.subnet {
            query = query.with("NetworkInterface.1.SubnetId", subnet);
        }
        if launch.imdsv2 {
            query = query.with("MetadataOptions.HttpTokens", "required");
        }
        query = match mode {
            Mode::Do => query.with("ClientToken", launch.token),
            Mode::Dry => query.with("DryRun", "true"),
        };
        let query = query.tags(1, "instance", launch.tags);
        let text = self.ec2(query.tags(2, "volume", launch.tags)).await?;
        if mode == Mode::Dry {
            return Ok(Instance::default());
        }
        let document = wire::document(&text).ok_or_else(|| malformed("instancesSet"))?;
        let mut launched = wire::items(document.root_element(), "instancesSet").map(instance);
        launched
            .next()
            .filter(|instance| !instance.id.is_empty())
            .ok_or_else(|| malformed("instancesSet"))
    }

    /// Our instances that have all of these tags.
    pub(in crate::aws) async fn instances(
        &self,
        tags: &[(&str, &str)],
    ) -> Result<Vec<Instance>, Error> {
        let query = Query::new("list instances", "DescribeInstances");
        let found = self.described(tagged(query, tags), "reservationSet", reservation);
        Ok(found.await?.into_iter().flatten().collect())
    }

    /// One instance, when it can be seen.
    pub(in crate::aws) async fn instance(&self, id: &str) -> Result<Option<Instance>, Error> {
        let query = Query::new(format!("look at {id}"), "DescribeInstances");
        let query = query.filter(1, "instance-id", id);
        let found = self.described(query, "reservationSet", reservation).await?;
        Ok(found
            .into_iter()
            .flatten()
            .find(|instance| instance.id == id))
    }

    /// What an instance has written on its console; older types of instances show it late.
    pub(in crate::aws) async fn console(&self, id: &str) -> Result<String, Error> {
        let query = Query::new(format!("read the console of {id}"), "GetConsoleOutput");
        let query = query.with("InstanceId", id);
        let answer = match self.ec2(query.clone().with("Latest", "true")).await {
            Err(Error::Refused { code, .. }) if code == "UnsupportedOperation" => {
                self.ec2(query).await
            }
            answer => answer,
        };
        let text = match answer {
            // It was launched a moment ago.
            Err(Error::Refused { code, .. }) if code == "InvalidInstanceID.NotFound" => {
                return Ok(String::new());
            }
            answer => answer?,
        };
        let document = wire::document(&text).ok_or_else(|| malformed("output"))?;
        let output = wire::text(document.root_element(), "output").unwrap_or_default();
        let packed: String = output.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(packed).map_err(|_| malformed("output"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Terminates one: of several in one call, an id that is not known keeps all of them.
    pub(in crate::aws) async fn terminate(&self, id: &str) -> Result<(), Error> {
        let query = Query::new(format!("terminate {id}"), "TerminateInstances");
        let text = self.ec2(query.list("InstanceId", [id])).await?;
        let document = wire::document(&text).ok_or_else(|| malformed("instancesSet"))?;
        let mut ended = wire::items(document.root_element(), "instancesSet");
        let is_named = ended.any(|one| wire::text(one, "instanceId") == Some(id));
        is_named
            .then_some(())
            .ok_or_else(|| malformed("instancesSet"))
    }
}

fn reservation(node: Node<'_, '_>) -> Vec<Instance> {
    wire::items(node, "instancesSet").map(instance).collect()
}

fn instance(node: Node<'_, '_>) -> Instance {
    let read = |name| wire::text(node, name).unwrap_or_default().to_owned();
    let state = wire::child(node, "instanceState").and_then(|state| wire::text(state, "name"));
    let reason = wire::child(node, "stateReason");
    let told = |name| reason.and_then(|reason| wire::text(reason, name));
    Instance {
        id: read("instanceId"),
        image: read("imageId"),
        kind: read("instanceType"),
        state: state.unwrap_or_default().to_owned(),
        reason: told("message").unwrap_or_default().to_owned(),
        cause: told("code").unwrap_or_default().to_owned(),
        launched: seconds(&read("launchTime")),
        manifest: tags(node).remove(TAG_MANIFEST).unwrap_or_default(),
    }
}
