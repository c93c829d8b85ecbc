//! EC2: who may use what, how long, and what protects it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ec2::element;
use super::form::Form;
use super::state::{Image, Snapshot, State, now};
use super::{Context, Refused, refused};

/// Kinds of grantees: as requests name them, and as answers do.
const KINDS: [(&str, &str); 4] = [
    ("UserId", "userId"),
    ("Group", "group"),
    ("OrganizationArn", "organizationArn"),
    ("OrganizationalUnitArn", "organizationalUnitArn"),
];

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    form: &mut Form,
) -> Result<String, Refused> {
    match context.action.as_str() {
        "ModifyImageAttribute" => modify_image(state, context, form)?,
        "ModifySnapshotAttribute" => modify_snapshot(state, context, form)?,
        "EnableImageDeprecation" => deprecate(state, context, form)?,
        "EnableImageDeregistrationProtection" => {
            let id = form.need("ImageId")?;
            form.flag("WithCooldown")?;
            image(state, context, &id)?.protected = true;
        }
        "DisableImageDeregistrationProtection" => {
            let id = form.need("ImageId")?;
            image(state, context, &id)?.protected = false;
        }
        "DescribeImageAttribute" => return image_attribute(state, context, form),
        "DescribeSnapshotAttribute" => return snapshot_attribute(state, context, form),
        "GetImageBlockPublicAccessState" => {
            let blocked = state.rules.block_public;
            let word = if blocked {
                "block-new-sharing"
            } else {
                "unblocked"
            };
            return Ok(element("imageBlockPublicAccessState", word));
        }
        "GetEbsEncryptionByDefault" => {
            let encrypts = state.rules.encrypts.to_string();
            return Ok(element("ebsEncryptionByDefault", &encrypts));
        }
        action => {
            return Err(refused(
                "InvalidAction",
                format!("The action {action} is not valid"),
            ));
        }
    }
    Ok(element("return", "true"))
}

pub(super) fn image<'a>(
    state: &'a mut State,
    context: &Context,
    id: &str,
) -> Result<&'a mut Image, Refused> {
    let missing = || {
        let message = format!("The image id '[{id}]' does not exist");
        refused("InvalidAMIID.NotFound", message)
    };
    let image = state.images.get_mut(id).ok_or_else(missing)?;
    if image.region != context.region || image.unknown > 0 {
        image.unknown = image.unknown.saturating_sub(1);
        return Err(missing());
    }
    Ok(image)
}

pub(super) fn snapshot<'a>(
    state: &'a mut State,
    context: &Context,
    id: &str,
) -> Result<&'a mut Snapshot, Refused> {
    let missing = || {
        let message = format!("The snapshot '{id}' does not exist.");
        refused("InvalidSnapshot.NotFound", message)
    };
    let snapshot = state.snapshots.get_mut(id).ok_or_else(missing)?;
    if snapshot.region != context.region || snapshot.unknown > 0 {
        snapshot.unknown = snapshot.unknown.saturating_sub(1);
        return Err(missing());
    }
    Ok(snapshot)
}

fn grantees(form: &mut Form, prefix: &str) -> Result<Vec<(String, String)>, Refused> {
    let mut found = Vec::new();
    for number in 1..=form.groups(prefix) {
        for (asked, told) in KINDS {
            if let Some(value) = form.take(&format!("{prefix}.{number}.{asked}")) {
                let bad = asked == "UserId"
                    && (value.len() != 12 || !value.bytes().all(|b| b.is_ascii_digit()));
                if bad || asked == "Group" && value != "all" {
                    return Err(refused("InvalidAMIAttributeItemValue", value));
                }
                found.push((told.to_owned(), value));
            }
        }
    }
    Ok(found)
}

fn modify_image(state: &mut State, context: &Context, form: &mut Form) -> Result<(), Refused> {
    let id = form.need("ImageId")?;
    let add = grantees(form, "LaunchPermission.Add")?;
    let remove = grantees(form, "LaunchPermission.Remove")?;
    if add.is_empty() && remove.is_empty() {
        return Err(refused("MissingParameter", "LaunchPermission"));
    }
    let public = add.iter().any(|(kind, _)| kind == "group");
    let blocked = state.rules.block_public;
    let image = image(state, context, &id)?;
    if image.pending > 0 || image.state != "available" {
        return Err(refused("IncorrectState", format!("{id} is not available")));
    }
    if public && blocked {
        return Err(refused("OperationNotPermitted", "block public access"));
    }
    if public && image.encrypted {
        return Err(refused(
            "InvalidParameter",
            "an encrypted image cannot be public",
        ));
    }
    image.grants.extend(add);
    image.grants.retain(|grant| !remove.contains(grant));
    if public && image.deprecated.is_none() {
        image.deprecated = Some(image.created / 60 * 60 + 730 * 86_400);
    }
    Ok(())
}

fn modify_snapshot(state: &mut State, context: &Context, form: &mut Form) -> Result<(), Refused> {
    let id = form.need("SnapshotId")?;
    let add = grantees(form, "CreateVolumePermission.Add")?;
    let remove = grantees(form, "CreateVolumePermission.Remove")?;
    if add.is_empty() && remove.is_empty() {
        return Err(refused("MissingParameter", "CreateVolumePermission"));
    }
    if add.iter().any(|(kind, _)| kind != "userId") {
        return Err(refused(
            "InvalidParameterValue",
            "snapshots are shared with accounts only",
        ));
    }
    let snapshot = snapshot(state, context, &id)?;
    snapshot
        .accounts
        .extend(add.into_iter().map(|(_, account)| account));
    snapshot
        .accounts
        .retain(|account| !remove.iter().any(|(_, gone)| gone == account));
    Ok(())
}

fn deprecate(state: &mut State, context: &Context, form: &mut Form) -> Result<(), Refused> {
    let (id, at) = (form.need("ImageId")?, form.need("DeprecateAt")?);
    let at = OffsetDateTime::parse(&at, &Rfc3339);
    let at = at
        .map_err(|_| refused("InvalidParameterValue", "DeprecateAt"))?
        .unix_timestamp();
    let image = image(state, context, &id)?;
    if at < now() || at > now() + 3653 * 86_400 {
        return Err(refused(
            "InvalidParameterValue",
            "DeprecateAt is in the past, or more than ten years away",
        ));
    }
    image.deprecated = Some(at / 60 * 60);
    Ok(())
}

fn image_attribute(
    state: &mut State,
    context: &Context,
    form: &mut Form,
) -> Result<String, Refused> {
    let (id, attribute) = (form.need("ImageId")?, form.need("Attribute")?);
    if attribute != "launchPermission" {
        return Err(refused("InvalidParameterValue", attribute));
    }
    let grants = image(state, context, &id)?.grants.iter();
    let items = grants.map(|(kind, value)| format!("<item>{}</item>", element(kind, value)));
    let items: String = items.collect();
    Ok(element("imageId", &id) + &format!("<launchPermission>{items}</launchPermission>"))
}

fn snapshot_attribute(
    state: &mut State,
    context: &Context,
    form: &mut Form,
) -> Result<String, Refused> {
    let (id, attribute) = (form.need("SnapshotId")?, form.need("Attribute")?);
    if attribute != "createVolumePermission" {
        return Err(refused("InvalidParameterValue", attribute));
    }
    let accounts = snapshot(state, context, &id)?.accounts.iter();
    let items: Vec<_> = accounts
        .map(|account| format!("<item>{}</item>", element("userId", account)))
        .collect();
    let items = items.concat();
    Ok(element("snapshotId", &id)
        + &format!("<createVolumePermission>{items}</createVolumePermission>"))
}
