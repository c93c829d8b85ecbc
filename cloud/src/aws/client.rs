//! The interfaces of Amazon's cloud in each region: where they are and who signs.

use std::sync::Arc;

use hyper::Method;
use hyper::header::HeaderName;

use super::credentials::{Signer, Source};
use super::target::partition;
use super::wire;
use crate::api::{Answer, Api, Call};
use crate::error::Error;
use crate::http::Http;
use crate::patience::Patience;

/// Version of EC2's interface that is spoken.
const EC2: &str = "2016-11-15";
/// Version of the token service's interface.
const STS: &str = "2011-06-15";

/// All interfaces of one region.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The region.
    pub region: String,
    http: Http,
    endpoint: Option<String>,
    source: Arc<Source>,
}

impl Client {
    pub(super) fn new(
        http: Http,
        endpoint: Option<String>,
        source: Arc<Source>,
        region: &str,
    ) -> Self {
        Self {
            region: region.to_owned(),
            http,
            endpoint,
            source,
        }
    }

    /// One interface, as this region has it.
    pub(super) fn api(&self, service: &'static str) -> Api {
        let signer = Signer {
            source: Arc::clone(&self.source),
            service,
            region: self.region.clone(),
        };
        Api::new(self.http.clone(), Arc::new(signer), wire::judge)
    }

    /// URL of one interface, without a slash at the end.
    pub(super) fn url(&self, service: &str) -> String {
        url(self.endpoint.as_deref(), service, &self.region)
    }

    /// Asks EC2.
    pub(super) async fn ec2(&self, query: Query) -> Result<String, Error> {
        self.query("ec2", EC2, query).await
    }

    /// Asks the token service.
    pub(super) async fn sts(&self, query: Query) -> Result<String, Error> {
        self.query("sts", STS, query).await
    }

    async fn query(
        &self,
        service: &'static str,
        version: &str,
        query: Query,
    ) -> Result<String, Error> {
        let what = format!("{} in {}", query.what, self.region);
        let pairs = query
            .pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs = [("Action", query.action), ("Version", version)]
            .into_iter()
            .chain(pairs);
        let body = wire::form(pairs);
        let url = format!("{}/", self.url(service));
        let mut call = wire::signed(what, Method::POST, url, wire::FORM, body);
        call.patience = Patience::CALL;
        let answer = self.api(service).call(&call).await?;
        String::from_utf8(answer.body).map_err(|_| Error::Protocol {
            what: call.what,
            reason: "the answer is no text".to_owned(),
        })
    }

    /// Asks the parameter store.
    pub(super) async fn ssm(
        &self,
        what: &str,
        action: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, Error> {
        let call = self.json("ssm", format!("AmazonSSM.{action}"), what, body);
        self.api("ssm").call(&call).await
    }

    /// Asks for limits, not for long: a publish goes on without them.
    pub(super) async fn quotas(
        &self,
        what: &str,
        action: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, Error> {
        let target = format!("{}.{action}", wire::QUOTAS);
        let mut call = self.json("servicequotas", target, what, body);
        call.patience = Patience::ASIDE;
        self.api("servicequotas").call(&call).await
    }

    /// A call of an interface that takes JSON.
    fn json(&self, service: &str, target: String, what: &str, body: &serde_json::Value) -> Call {
        let what = format!("{what} in {}", self.region);
        let url = format!("{}/", self.url(service));
        let kind = "application/x-amz-json-1.1";
        let call = wire::signed(what, Method::POST, url, kind, body.to_string());
        call.with(wire::TARGET, target)
    }

    /// A call of EBS direct with a JSON body, to be sent by [`Api::call`].
    pub(super) fn ebs(&self, what: String, method: Method, path: &str, body: &str) -> Call {
        let url = format!("{}{path}", self.url("ebs"));
        wire::signed(what, method, url, "application/json", body.to_owned())
    }

    /// A call of EBS direct whose body is not signed: a block, which its checksum in the signed head vouches for.
    pub(super) fn block(
        &self,
        what: String,
        path: &str,
        headers: [(HeaderName, String); 3],
    ) -> Call {
        let mut call = Call::new(what, Method::PUT, format!("{}{path}", self.url("ebs")));
        call.headers.extend(headers);
        call
    }
}

/// URL of an interface in a region, or of the one address that was given for all.
pub(super) fn url(endpoint: Option<&str>, service: &str, region: &str) -> String {
    match endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://{service}.{region}.{}", partition(region).1),
    }
}

/// One question to an interface that takes forms.
#[derive(Clone, Debug)]
pub(super) struct Query {
    what: String,
    action: &'static str,
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn new(what: impl Into<String>, action: &'static str) -> Self {
        Self {
            what: what.into(),
            action,
            pairs: Vec::new(),
        }
    }

    /// Adds a value.
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.pairs.push((name.into(), value.into()));
        self
    }

    /// Adds numbered values, such as `Owner.1`.
    pub(super) fn list<T: AsRef<str>>(
        mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        for (index, value) in values.into_iter().enumerate() {
            self = self.with(format!("{name}.{}", index + 1), value.as_ref());
        }
        self
    }

    /// Adds a filter with one value.
    pub(super) fn filter(self, number: usize, name: &str, value: &str) -> Self {
        self.with(format!("Filter.{number}.Name"), name)
            .with(format!("Filter.{number}.Value.1"), value)
    }

    /// Adds tags for an object that is made.
    pub(super) fn tags(mut self, number: usize, kind: &str, tags: &[(String, String)]) -> Self {
        self = self.with(format!("TagSpecification.{number}.ResourceType"), kind);
        for (index, (key, value)) in tags.iter().enumerate() {
            let tag = format!("TagSpecification.{number}.Tag.{}", index + 1);
            self = self
                .with(format!("{tag}.Key"), key)
                .with(format!("{tag}.Value"), value);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_its_address() {
        let cases = [
            (
                None,
                "ebs",
                "eu-west-1",
                "https://ebs.eu-west-1.amazonaws.com",
            ),
            (
                None,
                "ec2",
                "cn-north-1",
                "https://ec2.cn-north-1.amazonaws.com.cn",
            ),
            (
                Some("http://127.0.0.1:4566/"),
                "ssm",
                "eu-west-1",
                "http://127.0.0.1:4566",
            ),
        ];
        for (endpoint, service, region, expected) in cases {
            assert_eq!(url(endpoint, service, region), expected);
        }
    }
}
