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
}

impl Client {
    /// What parameters name; those that there are not are left out.
    pub(super) async fn parameters(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, String>, Error> {
        let mut found = BTreeMap::new();
        for names in names.chunks(NAMES) {
            let body = json!({ "Names": names });
            let answer = self.ssm("read parameters", "GetParameters", &body).await?;
            let answer: Answer = answer.json("read parameters")?;
            found.extend(
                answer
                    .parameters
                    .into_iter()
                    .map(|read| (read.name, read.value)),
            );
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
            "DataType": "aws:ec2:image",
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
