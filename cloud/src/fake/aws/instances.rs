//! EC2: instances, which say on their console what they are told to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::describe::tag_set;
use super::ec2::element;
use super::form::Form;
use super::state::{State, now, written};
use super::{Context, Refused, attributes, refused};

/// An instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the interface")]
pub struct Instance {
    pub id: String,
    pub region: String,
    pub image: String,
    pub kind: String,
    pub state: String,
    /// The cloud's word for why it is in that state.
    pub cause: String,
    /// When it was launched, in seconds since 1970.
    pub launched: i64,
    pub tags: BTreeMap<String, String>,
    /// How often it is still seen as pending, and its console as empty.
    pub pending: u32,
    /// How often it is still not seen, and not known by its id.
    pub hidden: u32,
}

impl Instance {
    /// Whether it costs anything: one that is stopped has its disk.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != "terminated"
    }
}

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    form: &mut Form,
) -> Result<String, Refused> {
    match context.action.as_str() {
        "RunInstances" => run(state, context, form),
        "DescribeInstances" => describe(state, context, form),
        "GetConsoleOutput" => console(state, context, form),
        _ => terminate(state, context, form),
    }
}

fn described(instance: &Instance) -> String {
    let code = match instance.state.as_str() {
        "pending" => "0",
        "running" => "16",
        "stopped" => "80",
        _ => "48",
    };
    let cause = &instance.cause;
    let reason = match cause.as_str() {
        "" => String::new(),
        _ => [
            "<stateReason>",
            &element("code", cause),
            &element("message", &format!("{cause}: as the cloud has it")),
            "</stateReason>",
        ]
        .concat(),
    };
    [
        "<item>".to_owned(),
        element("instanceId", &instance.id),
        element("imageId", &instance.image),
        element("instanceType", &instance.kind),
        format!(
            "<instanceState>{}{}</instanceState>",
            element("code", code),
            element("name", &instance.state)
        ),
        element("launchTime", &written(instance.launched)),
        reason,
        tag_set(&instance.tags),
        "</item>".to_owned(),
    ]
    .concat()
}

fn run(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let asked = format!("{form:?}");
    let token = form
        .take("ClientToken")
        .map(|token| format!("{}/run/{token}", context.region));
    let (image, kind) = (form.need("ImageId")?, form.need("InstanceType")?);
    for name in ["MinCount", "MaxCount"] {
        if form.need(name)? != "1" {
            return Err(refused("InvalidParameterValue", name));
        }
    }
    let shutdown = form.take("InstanceInitiatedShutdownBehavior");
    let tokens = form.take("MetadataOptions.HttpTokens");
    if shutdown.is_some_and(|word| word != "stop" && word != "terminate")
        || tokens.is_some_and(|word| word != "optional" && word != "required")
    {
        return Err(refused("InvalidParameterValue", "an unknown word"));
    }
    if form.need("NetworkInterface.1.DeviceIndex")? != "0" {
        return Err(refused("InvalidParameterValue", "the first interface is 0"));
    }
    form.flag("NetworkInterface.1.AssociatePublicIpAddress")?;
    form.flag("NetworkInterface.1.DeleteOnTermination")?;
    let subnet = form.take("NetworkInterface.1.SubnetId");
    if let Some(subnet) = subnet.filter(|subnet| !subnet.starts_with("subnet-")) {
        let message = format!("The subnet ID '{subnet}' does not exist");
        return Err(refused("InvalidSubnetID.NotFound", message));
    }
    let mut tags = form.tags(&["instance", "volume"])?;
    let before = token.as_ref().and_then(|token| state.tokens.get(token));
    if let Some((before, id)) = before {
        if *before != asked {
            return Err(refused(
                "IdempotentParameterMismatch",
                "the client token was used with other parameters",
            ));
        }
        let instance = state.instances.get(id).filter(|one| one.is_live());
        let instance = instance
            .ok_or_else(|| refused("IdempotentInstanceTerminated", "its instance is gone"))?;
        return Ok(format!(
            "<instancesSet>{}</instancesSet>",
            described(instance)
        ));
    }
    let known = attributes::image(state, context, &image)?;
    if known.state != "available" || known.pending > 0 {
        let message = format!("The image ID '{image}' is not available");
        return Err(refused("InvalidAMIID.Unavailable", message));
    }
    if !kind.contains('.') {
        let message = format!("The instance type '{kind}' does not exist");
        return Err(refused("InvalidParameterValue", message));
    }
    let instance = Instance {
        id: state.id("i"),
        region: context.region.clone(),
        image,
        kind,
        state: "pending".to_owned(),
        cause: String::new(),
        launched: now(),
        tags: tags.remove("instance").unwrap_or_default(),
        pending: state.rules.pending,
        hidden: state.rules.hidden,
    };
    let answer = described(&instance);
    if let Some(token) = token {
        state.tokens.insert(token, (asked, instance.id.clone()));
    }
    state.instances.insert(instance.id.clone(), instance);
    Ok(format!("<instancesSet>{answer}</instancesSet>"))
}

fn describe(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    form.take("MaxResults");
    let filters = form.filters()?;
    let mut found = String::new();
    let here = state.instances.values_mut();
    for instance in here.filter(|instance| instance.region == context.region) {
        let mut fits = true;
        for (name, values) in &filters {
            let has = match name.strip_prefix("tag:") {
                Some(tag) => instance.tags.get(tag),
                None if name == "instance-id" => Some(&instance.id),
                None => return Err(refused("InvalidParameterValue", format!("filter {name}"))),
            };
            fits &= has.is_some_and(|has| values.contains(has));
        }
        if !fits {
            continue;
        }
        if instance.hidden > 0 {
            instance.hidden -= 1;
            continue;
        }
        // A string takes whatever is written.
        write!(
            found,
            "<item><instancesSet>{}</instancesSet></item>",
            described(instance)
        )
        .unwrap_or_default();
    }
    Ok(format!("<reservationSet>{found}</reservationSet>"))
}

fn known<'a>(
    state: &'a mut State,
    context: &Context,
    id: &str,
) -> Result<&'a mut Instance, Refused> {
    let instance = state.instances.get_mut(id);
    let instance = instance.filter(|instance| instance.region == context.region);
    let unknown = || {
        let message = format!("The instance ID '{id}' does not exist");
        refused("InvalidInstanceID.NotFound", message)
    };
    let instance = instance.ok_or_else(unknown)?;
    if instance.hidden > 0 {
        instance.hidden -= 1;
        return Err(unknown());
    }
    Ok(instance)
}

fn console(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let id = form.need("InstanceId")?;
    let latest = form.flag("Latest")?;
    let said = state.rules.console.clone();
    let instance = known(state, context, &id)?;
    if latest && instance.kind.starts_with("t2.") {
        return Err(refused(
            "UnsupportedOperation",
            "This instance type does not support retrieving the latest console logs",
        ));
    }
    if instance.pending > 0 {
        instance.pending -= 1;
        return Ok(element("instanceId", &id));
    }
    if instance.state == "pending" {
        "running".clone_into(&mut instance.state);
    }
    let image = instance.image.clone();
    let tree = state
        .images
        .get(&image)
        .and_then(|image| image.tags.get("firstboot:tree"));
    let tree = tree.cloned().unwrap_or_default();
    let said = said.unwrap_or_else(|| {
        format!("[    9.1] firstboot: verdict: healthy, init running, tree {tree}\r\n")
    });
    Ok([
        element("instanceId", &id),
        element("output", &STANDARD.encode(said)),
    ]
    .concat())
}

fn terminate(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let ids = form.list("InstanceId");
    if ids.is_empty() {
        return Err(refused("MissingParameter", "InstanceId"));
    }
    // All of them, or none.
    for id in &ids {
        known(state, context, id)?;
    }
    let mut items = String::new();
    for id in ids {
        let instance = known(state, context, &id)?;
        if instance.state != "terminated" {
            "terminated".clone_into(&mut instance.state);
            "Client.UserInitiatedShutdown".clone_into(&mut instance.cause);
        }
        items.extend(["<item>", &element("instanceId", &id), "</item>"]);
    }
    Ok(format!("<instancesSet>{items}</instancesSet>"))
}
