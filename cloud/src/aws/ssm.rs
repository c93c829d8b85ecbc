//! Parameters that name the newest image.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use crate::error::Error;

/// Names that may be asked for at once.
const NAMES: usize = 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    name: String,
    value: String,
    data_type: Option<String>,
}

/// The type of parameters that the cloud itself compares with what images there are.
const IMAGE: &str = "aws:ec2:image";

impl Client {
    /// What parameters name; those that there are not are left out.
    pub(super) async fn parameters(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, String>, Error> {
        let found = self.stored(names).await?.into_iter();
        Ok(found.map(|read| (read.name, read.value)).collect())
    }

    /// Parameters that there are and that are no images', and the type of each.
    pub(super) async fn mistyped(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, String>, Error> {
        let found = self.stored(names).await?.into_iter();
        let found = found.filter_map(|read| Some((read.name, read.data_type?)));
        Ok(found.filter(|(_, data_type)| data_type != IMAGE).collect())
    }

    async fn stored(&self, names: &[String]) -> Result<Vec<Parameter>, Error> {
        let mut found = Vec::new();
        for names in names.chunks(NAMES) {
            let body = json!({ "Names": names });
            let answer = self.ssm("read parameters", "GetParameters", &body).await?;
            let answer: Answer = answer.json("read parameters")?;
            found.extend(answer.parameters);
        }
        Ok(found)
    }

    /// Sets a parameter. It takes effect later, once the cloud has looked at the image.
    pub(super) async fn set_parameter(
        &self,
        name: &str,
        image: &str,
        new: Option<&[(String, String)]>,
    ) -> Result<(), Error> {
        let what = format!("set parameter `{name}` to {image}");
        let mut body = json!({
            "Name": name,
            "Value": image,
            "Type": "String",
            "DataType": IMAGE,
            "Overwrite": new.is_none(),
        });
        // Tags are taken for new parameters only.
        if let Some(tags) = new {
            let tag = |(key, value): &(String, String)| json!({ "Key": key, "Value": value });
            body["Tags"] = tags.iter().map(tag).collect();
        }
        match self.ssm(&what, "PutParameter", &body).await {
            Err(Error::Refused { code, .. })
                if code == "ParameterAlreadyExists" && new.is_some() =>
            {
                Box::pin(self.set_parameter(name, image, None)).await
            }
            answer => answer.map(drop),
        }
    }
}
