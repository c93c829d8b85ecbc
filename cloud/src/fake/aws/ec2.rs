//! EC2: images and snapshots made, copied and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::form::{Form, escape};
use super::state::{Image, Snapshot, State, now};
use super::{Context, Refused, attributes, describe, instances, refused};
use crate::fake::server::{Reply, Request};

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    request: &Request,
) -> Result<Reply, Refused> {
    let pairs = request.form();
    let version = pairs
        .iter()
        .any(|(name, value)| name == "Version" && value == "2016-11-15");
    if !version {
        return Err(refused(
            "NoSuchVersion",
            "The requested version does not exist",
        ));
    }
    let mut form = Form::new(pairs);
    if form.flag("DryRun")? {
        return Err(Refused {
            status: 412,
            code: "DryRunOperation",
            message: "Request would have succeeded, but DryRun flag is set.".to_owned(),
        });
    }
    let body = match context.action.as_str() {
        "RegisterImage" => register(state, context, &mut form)?,
        "CopyImage" => copy(state, context, &mut form)?,
        "DeregisterImage" => deregister(state, context, &mut form)?,
        "DeleteSnapshot" => delete_snapshot(state, context, &mut form)?,
        "CreateTags" => create_tags(state, context, &mut form)?,
        "RunInstances" | "DescribeInstances" | "GetConsoleOutput" | "TerminateInstances" => {
            instances::answer(state, context, &mut form)?
        }
        action if action.starts_with("Describe") && !action.ends_with("Attribute") => {
            describe::answer(state, context, &mut form)?
        }
        _ => attributes::answer(state, context, &mut form)?,
    };
    form.done()?;
    let action = &context.action;
    Ok(Reply::xml(
        200,
        format!(
            "<{action}Response xmlns=\"{NAMESPACE}\"><requestId>fake</requestId>{body}</{action}Response>"
        ),
    ))
}

pub(super) fn element(name: &str, value: &str) -> String {
    format!("<{name}>{}</{name}>", escape(value))
}

fn one_of(value: Option<String>, allowed: &[&str], default: &str) -> Result<String, Refused> {
    let value = value.unwrap_or_else(|| default.to_owned());
    if allowed.contains(&value.as_str()) {
        Ok(value)
    } else {
        Err(refused(
            "InvalidParameterValue",
            format!("Invalid value '{value}'"),
        ))
    }
}

fn check_name(name: &str) -> Result<(), Refused> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if (3..=128).contains(&name.len()) && name.chars().all(letters) {
        Ok(())
    } else {
        Err(refused(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long",
        ))
    }
}

fn register(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let name = form.need("Name")?;
    check_name(&name)?;
    let tags = form.tags(&["image"])?.remove("image").unwrap_or_default();
    let architecture = one_of(
        form.take("Architecture"),
        &["i386", "x86_64", "arm64"],
        "i386",
    )?;
    let boot_mode = one_of(
        form.take("BootMode"),
        &["", "uefi", "legacy-bios", "uefi-preferred"],
        "",
    )?;
    let tpm = one_of(form.take("TpmSupport"), &["", "v2.0"], "")?;
    let imds = one_of(form.take("ImdsSupport"), &["", "v2.0"], "")?;
    let virtualization = one_of(
        form.take("VirtualizationType"),
        &["paravirtual", "hvm"],
        "paravirtual",
    )?;
    let description = form.take("Description").unwrap_or_default();
    if description.len() > 255 {
        return Err(refused("InvalidParameterValue", "description"));
    }
    let (root, device) = (
        form.need("RootDeviceName")?,
        form.need("BlockDeviceMapping.1.DeviceName")?,
    );
    let id = form.need("BlockDeviceMapping.1.Ebs.SnapshotId")?;
    let volume_type = form.take("BlockDeviceMapping.1.Ebs.VolumeType");
    let volume_type = one_of(
        volume_type,
        &["standard", "gp2", "gp3", "io1", "io2"],
        "standard",
    )?;
    form.flag("BlockDeviceMapping.1.Ebs.DeleteOnTermination")?;
    let ena = form.flag("EnaSupport")?;
    let snapshot = attributes::snapshot(state, context, &id)?;
    if snapshot.state != "completed" {
        return Err(refused(
            "IncorrectState",
            format!("{id} is {}", snapshot.state),
        ));
    }
    if root != device {
        return Err(refused(
            "InvalidParameterValue",
            "the root device is none of the mappings",
        ));
    }
    if !tpm.is_empty() && boot_mode != "uefi"
        || architecture == "arm64" && boot_mode == "legacy-bios"
    {
        return Err(refused("InvalidParameterCombination", "boot mode"));
    }
    let (size, encrypted) = (snapshot.size, snapshot.key.is_some());
    let mut images = state.images.values();
    if let Some(other) = images.find(|image| image.region == context.region && image.name == name) {
        return Err(refused(
            "InvalidAMIName.Duplicate",
            format!("AMI name {name} is already in use by AMI {}", other.id),
        ));
    }
    let image = Image {
        id: state.id("ami"),
        region: context.region.clone(),
        name,
        description,
        state: "available".to_owned(),
        created: now(),
        architecture,
        virtualization,
        boot_mode,
        tpm,
        imds,
        ena,
        root,
        snapshot: id,
        volume_type,
        size,
        encrypted,
        tags,
        pending: state.rules.pending,
        hidden: state.rules.hidden,
        unknown: state.rules.hidden,
        ..Image::default()
    };
    let id = image.id.clone();
    state.images.insert(id.clone(), image);
    Ok(element("imageId", &id))
}

fn copy(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let asked = format!("{form:?}");
    let token = form
        .take("ClientToken")
        .map(|token| format!("{}/copy/{token}", context.region));
    let name = form.need("Name")?;
    check_name(&name)?;
    let (region, source) = (form.need("SourceRegion")?, form.need("SourceImageId")?);
    let description = form.take("Description").unwrap_or_default();
    let encrypt = form.flag("Encrypted")?;
    let key = form.take("KmsKeyId");
    form.flag("CopyImageTags")?;
    let mut tags = form.tags(&["image", "snapshot"])?;
    if let Some((before, id)) = token.as_ref().and_then(|token| state.tokens.get(token)) {
        if *before != asked {
            return Err(refused(
                "IdempotentParameterMismatch",
                "the client token was used with other parameters",
            ));
        }
        return Ok(element("imageId", id));
    }
    if key.is_some() && !encrypt {
        return Err(refused(
            "InvalidParameterCombination",
            "a key without encryption",
        ));
    }
    if key
        .as_ref()
        .is_some_and(|key| key.starts_with("arn:") && !key.contains(&context.region))
    {
        return Err(refused(
            "InvalidParameterValue",
            "the key is of another region",
        ));
    }
    let image = state
        .images
        .get(&source)
        .filter(|image| image.region == region && image.state == "available");
    let image = image
        .cloned()
        .filter(|image| image.pending == 0 && image.hidden == 0);
    let image = image.ok_or_else(|| {
        refused(
            "InvalidAMIID.NotFound",
            format!("The image id '[{source}]' does not exist"),
        )
    })?;
    let from = state.snapshots.get(&image.snapshot).cloned();
    let from = from.ok_or_else(|| refused("InvalidSnapshot.NotFound", "its snapshot is gone"))?;
    let snapshot = Snapshot {
        id: state.id("snap"),
        region: context.region.clone(),
        key: key.or_else(|| from.key.clone()),
        tags: tags.remove("snapshot").unwrap_or_default(),
        accounts: BTreeSet::default(),
        description: format!("Copied for DestinationAmi from SourceAmi {source}"),
        begun: now(),
        pending: state.rules.pending,
        hidden: state.rules.hidden,
        state: "pending".to_owned(),
        blocks: Arc::clone(&from.blocks),
        ..from
    };
    let copied = Image {
        id: state.id("ami"),
        region: context.region.clone(),
        name,
        description,
        created: now(),
        snapshot: snapshot.id.clone(),
        encrypted: snapshot.key.is_some(),
        tags: tags.remove("image").unwrap_or_default(),
        deprecated: None,
        protected: false,
        grants: BTreeSet::default(),
        pending: state.rules.pending,
        hidden: state.rules.hidden,
        unknown: state.rules.hidden,
        ..image
    };
    let id = copied.id.clone();
    state.snapshots.insert(snapshot.id.clone(), snapshot);
    state.images.insert(id.clone(), copied);
    if let Some(token) = token {
        state.tokens.insert(token, (asked, id.clone()));
    }
    Ok(element("imageId", &id))
}

fn deregister(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let id = form.need("ImageId")?;
    let delete = form.flag("DeleteAssociatedSnapshots")?;
    let image = attributes::image(state, context, &id)?.clone();
    if image.protected {
        return Err(refused(
            "OperationNotPermitted",
            format!("{id} has deregistration protection"),
        ));
    }
    state.images.remove(&id);
    let shared = state
        .images
        .values()
        .any(|other| other.snapshot == image.snapshot);
    if delete && !shared {
        state.snapshots.remove(&image.snapshot);
    }
    Ok(element("return", "true"))
}

fn delete_snapshot(
    state: &mut State,
    context: &Context,
    form: &mut Form,
) -> Result<String, Refused> {
    let id = form.need("SnapshotId")?;
    let known = state
        .snapshots
        .get(&id)
        .is_some_and(|snapshot| snapshot.region == context.region);
    if !known {
        return Err(refused(
            "InvalidSnapshot.NotFound",
            format!("The snapshot '{id}' does not exist."),
        ));
    }
    if let Some(image) = state.images.values().find(|image| image.snapshot == id) {
        return Err(refused(
            "InvalidSnapshot.InUse",
            format!("The snapshot {id} is currently in use by {}", image.id),
        ));
    }
    state.snapshots.remove(&id);
    Ok(element("return", "true"))
}

fn create_tags(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    let ids = form.list("ResourceId");
    let tags = form.pairs("")?;
    if ids.is_empty() || tags.is_empty() {
        return Err(refused("MissingParameter", "ResourceId or Tag"));
    }
    for id in ids {
        let has: Option<&mut BTreeMap<_, _>> = if id.starts_with("ami-") {
            let image = state
                .images
                .get_mut(&id)
                .filter(|image| image.region == context.region);
            image.map(|image| &mut image.tags)
        } else {
            let snapshot = state
                .snapshots
                .get_mut(&id)
                .filter(|snapshot| snapshot.region == context.region);
            snapshot.map(|snapshot| &mut snapshot.tags)
        };
        let has = has.ok_or_else(|| refused("InvalidID", format!("The ID '{id}' is not valid")))?;
        has.extend(tags.clone());
    }
    Ok(element("return", "true"))
}
