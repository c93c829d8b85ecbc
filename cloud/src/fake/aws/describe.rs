//! EC2: what there is, in pages, with filters, and seen late.

use std::collections::{BTreeMap, BTreeSet};

use super::ec2::element;
use super::form::Form;
use super::state::{Image, Snapshot, State, written};
use super::{ACCOUNT, Context, Refused, refused};

type Filters = Vec<(String, BTreeSet<String>)>;

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    form: &mut Form,
) -> Result<String, Refused> {
    match context.action.as_str() {
        "DescribeImages" => images(state, context, form),
        "DescribeSnapshots" => snapshots(state, context, form),
        "DescribeRegions" => regions(state, form),
        "DescribeImageReferences" => references(state, form),
        action => Err(refused(
            "InvalidAction",
            format!("The action {action} is not valid"),
        )),
    }
}

fn check_owner(form: &mut Form) -> Result<(), Refused> {
    let owners = form.list("Owner");
    if owners
        .iter()
        .all(|owner| owner == "self" || owner == ACCOUNT)
    {
        Ok(())
    } else {
        Err(refused("InvalidUserID.Malformed", "owner"))
    }
}

/// One page of what was found.
fn page(form: &mut Form, set: &str, found: &[String], ids: bool) -> Result<String, Refused> {
    let most = form
        .take("MaxResults")
        .map(|most| most.parse::<usize>().unwrap_or(0));
    if most.is_some_and(|most| !(5..=1000).contains(&most)) || most.is_some() && ids {
        return Err(refused("InvalidParameterValue", "MaxResults"));
    }
    let from = form
        .take("NextToken")
        .map_or(Ok(0), |token| token.parse::<usize>());
    let from = from.map_err(|_| refused("InvalidPaginationToken", "NextToken"))?;
    let most = most.unwrap_or(1000);
    let page = found.iter().skip(from).take(most);
    let page: Vec<_> = page.map(|item| format!("<item>{item}</item>")).collect();
    let page = page.concat();
    let next =
        (found.len() > from + most).then(|| element("nextToken", &(from + most).to_string()));
    Ok(format!("<{set}>{page}</{set}>{}", next.unwrap_or_default()))
}

fn images(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    check_owner(form)?;
    let (ids, filters) = (form.list("ImageId"), form.filters()?);
    form.flag("IncludeDeprecated")?;
    let disabled = form.flag("IncludeDisabled")?;
    let mut found = Vec::new();
    for image in state
        .images
        .values_mut()
        .filter(|image| image.region == context.region)
    {
        if !ids.is_empty() && !ids.contains(&image.id) || !matches_image(image, &filters)? {
            continue;
        }
        if image.state == "disabled" && !disabled {
            continue;
        }
        if image.hidden > 0 {
            image.hidden -= 1;
            continue;
        }
        found.push(image_item(image));
        image.pending = image.pending.saturating_sub(1);
        if image.pending == 0
            && let Some(snapshot) = state.snapshots.get_mut(&image.snapshot)
            && snapshot.state == "pending"
        {
            "completed".clone_into(&mut snapshot.state);
        }
    }
    if ids.len() > found.len() {
        return Err(refused(
            "InvalidAMIID.NotFound",
            format!("The image ids '{ids:?}' do not exist"),
        ));
    }
    page(form, "imagesSet", &found, !ids.is_empty())
}

fn matches_image(image: &Image, filters: &Filters) -> Result<bool, Refused> {
    for (name, values) in filters {
        let found = match name.as_str() {
            "name" => Some(&image.name),
            "image-id" => Some(&image.id),
            "state" => Some(&image.state),
            "architecture" => Some(&image.architecture),
            _ => tag(&image.tags, name)?,
        };
        if !found.is_some_and(|found| values.contains(found)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn tag<'a>(tags: &'a BTreeMap<String, String>, name: &str) -> Result<Option<&'a String>, Refused> {
    let key = name.strip_prefix("tag:");
    let key = key.ok_or_else(|| {
        refused(
            "InvalidParameterValue",
            format!("The filter '{name}' is invalid"),
        )
    })?;
    Ok(tags.get(key))
}

pub(super) fn tag_set(tags: &BTreeMap<String, String>) -> String {
    let items = tags.iter().map(|(key, value)| {
        format!(
            "<item>{}{}</item>",
            element("key", key),
            element("value", value)
        )
    });
    format!("<tagSet>{}</tagSet>", items.collect::<String>())
}

fn image_item(image: &Image) -> String {
    let state = if image.pending > 0 {
        "pending"
    } else {
        &image.state
    };
    let mut item = String::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            item.push_str(&element(name, value));
        }
    };
    add("imageId", &image.id);
    add("name", &image.name);
    add("description", &image.description);
    add("imageState", state);
    add("imageOwnerId", ACCOUNT);
    add("imageLocation", &format!("{ACCOUNT}/{}", image.name));
    if image.created != 0 {
        add("creationDate", &written(image.created));
    }
    add("architecture", &image.architecture);
    add("imageType", "machine");
    add("rootDeviceType", "ebs");
    add("rootDeviceName", &image.root);
    add("virtualizationType", &image.virtualization);
    add("hypervisor", "xen");
    add("bootMode", &image.boot_mode);
    add("tpmSupport", &image.tpm);
    add("imdsSupport", &image.imds);
    add("enaSupport", if image.ena { "true" } else { "" });
    add(
        "isPublic",
        if image.grants.iter().any(|(kind, _)| kind == "group") {
            "true"
        } else {
            "false"
        },
    );
    add(
        "deprecationTime",
        &image.deprecated.map(written).unwrap_or_default(),
    );
    add(
        "deregistrationProtection",
        if image.protected {
            "enabled-without-cooldown"
        } else {
            "disabled"
        },
    );
    if !image.reason.is_empty() {
        let code = element("code", "Client.Failure");
        let reason = code + &element("message", &image.reason);
        item.extend(["<stateReason>", &reason, "</stateReason>"]);
    }
    let ebs = [
        element("snapshotId", &image.snapshot),
        element("volumeSize", &image.size.to_string()),
        element("volumeType", &image.volume_type),
        element("deleteOnTermination", "true"),
        element("encrypted", if image.encrypted { "true" } else { "false" }),
    ];
    let device = element("deviceName", &image.root);
    let ebs = ["<ebs>", &ebs.concat(), "</ebs>"].concat();
    let mapping = ["<item>", &device, &ebs, "</item>"].concat();
    item.extend(["<blockDeviceMapping>", &mapping, "</blockDeviceMapping>"]);
    item.push_str(&tag_set(&image.tags));
    item
}

fn snapshots(state: &mut State, context: &Context, form: &mut Form) -> Result<String, Refused> {
    check_owner(form)?;
    let (ids, filters) = (form.list("SnapshotId"), form.filters()?);
    let mut found = Vec::new();
    for snapshot in state
        .snapshots
        .values_mut()
        .filter(|snapshot| snapshot.region == context.region)
    {
        if !ids.is_empty() && !ids.contains(&snapshot.id) || !matches_snapshot(snapshot, &filters)?
        {
            continue;
        }
        if snapshot.hidden > 0 {
            snapshot.hidden -= 1;
            continue;
        }
        if snapshot.sealed && snapshot.state == "pending" {
            if snapshot.pending == 0 {
                "completed".clone_into(&mut snapshot.state);
            }
            snapshot.pending = snapshot.pending.saturating_sub(1);
        }
        found.push(snapshot_item(snapshot));
    }
    if ids.len() > found.len() {
        return Err(refused(
            "InvalidSnapshot.NotFound",
            format!("The snapshots '{ids:?}' do not exist."),
        ));
    }
    page(form, "snapshotSet", &found, !ids.is_empty())
}

fn matches_snapshot(snapshot: &Snapshot, filters: &Filters) -> Result<bool, Refused> {
    for (name, values) in filters {
        let found = match name.as_str() {
            "snapshot-id" => Some(&snapshot.id),
            "status" => Some(&snapshot.state),
            _ => tag(&snapshot.tags, name)?,
        };
        if !found.is_some_and(|found| values.contains(found)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn snapshot_item(snapshot: &Snapshot) -> String {
    let mut item = [
        element("snapshotId", &snapshot.id),
        element("status", &snapshot.state),
        element("startTime", &written(snapshot.begun)),
        element(
            "progress",
            if snapshot.state == "completed" {
                "100%"
            } else {
                "0%"
            },
        ),
        element("ownerId", ACCOUNT),
        element("volumeId", "vol-ffffffff"),
        element("volumeSize", &snapshot.size.to_string()),
        element("description", &snapshot.description),
        element(
            "encrypted",
            if snapshot.key.is_some() {
                "true"
            } else {
                "false"
            },
        ),
    ]
    .concat();
    if let Some(key) = &snapshot.key {
        item.push_str(&element("kmsKeyId", key));
    }
    if snapshot.state == "completed" {
        let bytes = snapshot.written() as u64 * super::blocks::BLOCK;
        item.push_str(&element("fullSnapshotSizeInBytes", &bytes.to_string()));
    }
    item + &tag_set(&snapshot.tags)
}

fn regions(state: &State, form: &mut Form) -> Result<String, Refused> {
    let all = form.flag("AllRegions")?;
    let items = state.rules.regions.iter().filter_map(|name| {
        let closed = name.strip_prefix('-');
        if closed.is_some() && !all {
            return None;
        }
        let status = if closed.is_some() {
            "not-opted-in"
        } else {
            "opt-in-not-required"
        };
        let name = closed.unwrap_or(name);
        let endpoint = element("regionEndpoint", &format!("ec2.{name}.amazonaws.com"));
        Some(format!(
            "<item>{}{endpoint}{}</item>",
            element("regionName", name),
            element("optInStatus", status)
        ))
    });
    Ok(format!(
        "<regionInfo>{}</regionInfo>",
        items.collect::<String>()
    ))
}

fn references(state: &State, form: &mut Form) -> Result<String, Refused> {
    let ids = form.list("ImageId");
    if ids.is_empty() || ids.len() > 10 {
        return Err(refused("InvalidParameterValue", "1 to 10 images"));
    }
    if !form.flag("IncludeAllResourceTypes")? {
        return Err(refused(
            "MissingParameter",
            "ResourceTypes or IncludeAllResourceTypes",
        ));
    }
    let items: Vec<_> = ids
        .iter()
        .flat_map(|id| {
            let arns = state.references.get(id).into_iter().flatten();
            arns.map(move |arn| {
                let kind = element("resourceType", "ec2:Instance");
                element("imageId", id) + &kind + &element("arn", arn)
            })
        })
        .collect();
    // Pages are as short as the cloud likes.
    form.set("MaxResults", "5");
    page(form, "imageReferenceSet", &items, false)
}
