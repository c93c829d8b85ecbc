//! The parameter store. An image's parameter takes effect later, and not at all when the image is not there.

use serde::Deserialize;
use serde_json::{Value, json};

use super::form::check_tag;
use super::state::{Parameter, State};
use super::{ACCOUNT, Context, Refused, refused};
use crate::fake::server::{Reply, Request};

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    request: &Request,
) -> Result<Reply, Refused> {
    match context.action.as_str() {
        "PutParameter" => put(state, context, request),
        "GetParameters" => get(state, context, request),
        "GetParameter" => get_one(state, context, request),
        action => Err(refused("UnknownOperationException", action)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Put {
    name: String,
    value: String,
    r#type: Option<String>,
    data_type: Option<String>,
    #[serde(default)]
    overwrite: bool,
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

fn read<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Refused> {
    serde_json::from_slice(&request.body)
        .map_err(|error| refused("SerializationException", error.to_string()))
}

fn put(state: &mut State, context: &Context, request: &Request) -> Result<Reply, Refused> {
    let put: Put = read(request)?;
    let letters = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if put.name.is_empty() || put.name.len() > 1011 || !put.name.chars().all(letters) {
        return Err(refused("ValidationException", "parameter name"));
    }
    let image = put.data_type.as_deref() == Some("aws:ec2:image");
    if image && put.r#type.as_deref().is_some_and(|kind| kind != "String") {
        return Err(refused("ValidationException", "type"));
    }
    if put.overwrite && put.tags.is_some() {
        return Err(refused(
            "ValidationException",
            "tags and overwrite can't be used together",
        ));
    }
    let tags = put.tags.unwrap_or_default();
    for tag in &tags {
        check_tag(&tag.key, &tag.value)
            .map_err(|bad| refused("ValidationException", bad.message))?;
    }
    let place = (context.region.clone(), put.name.clone());
    let there = state.parameters.get(&place);
    if there.is_some() && !put.overwrite {
        return Err(refused(
            "ParameterAlreadyExists",
            "The parameter already exists.",
        ));
    }
    let version = there.map_or(0, |parameter| parameter.version) + 1;
    let known = state
        .images
        .get(&put.value)
        .is_some_and(|image| image.region == context.region);
    let late = state.rules.pending;
    if !image || known {
        let parameter = state.parameters.entry(place).or_default();
        parameter.version = version;
        parameter.data_type = put.data_type.unwrap_or_else(|| "text".to_owned());
        parameter
            .tags
            .extend(tags.into_iter().map(|tag| (tag.key, tag.value)));
        if image && late > 0 {
            parameter.coming = Some((put.value, late));
        } else {
            parameter.value = put.value;
        }
    }
    Ok(Reply::json(
        200,
        &json!({ "Version": version, "Tier": "Standard" }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Get {
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct GetOne {
    name: String,
}

fn get(state: &mut State, context: &Context, request: &Request) -> Result<Reply, Refused> {
    let get: Get = read(request)?;
    if get.names.is_empty() || get.names.len() > 10 {
        return Err(refused("ValidationException", "1 to 10 names"));
    }
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for name in get.names {
        match seen(state, context, &name) {
            Some(parameter) => found.push(parameter),
            None => invalid.push(name),
        }
    }
    Ok(Reply::json(
        200,
        &json!({ "Parameters": found, "InvalidParameters": invalid }),
    ))
}

fn get_one(state: &mut State, context: &Context, request: &Request) -> Result<Reply, Refused> {
    let get: GetOne = read(request)?;
    let found = seen(state, context, &get.name);
    let found = found.ok_or_else(|| refused("ParameterNotFound", get.name))?;
    Ok(Reply::json(200, &json!({ "Parameter": found })))
}

fn seen(state: &mut State, context: &Context, name: &str) -> Option<Value> {
    let region = &context.region;
    let parameter = state
        .parameters
        .get_mut(&(region.clone(), name.to_owned()))?;
    match &mut parameter.coming {
        Some((value, 0)) => {
            parameter.value = std::mem::take(value);
            parameter.coming = None;
        }
        Some((_, left)) => *left -= 1,
        None => {}
    }
    let Parameter {
        value,
        data_type,
        version,
        ..
    } = parameter;
    (!value.is_empty()).then(|| {
        json!({
            "Name": name, "Value": value, "Type": "String", "DataType": data_type, "Version": version,
            "ARN": format!("arn:aws:ssm:{region}:{ACCOUNT}:parameter/{}", name.trim_start_matches('/')),
        })
    })
}
