//! A fake of Amazon's cloud behind one URL: EBS direct, EC2, the parameter store, the token service, and GitHub's minter of tokens.
//!
//! Signatures are verified, states follow each other, what was made is seen late, and what the documentation forbids is refused.

mod attributes;
mod blocks;
mod describe;
mod ebs;
mod ec2;
mod form;
mod instances;
mod quotas;
mod signature;
mod ssm;
mod state;
mod sts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Method;
use reqsign_core::StaticEnv;
use serde_json::json;

use crate::http::Http;

use super::server::{Called, Kind, Reply, Request, Service};

pub use blocks::SnapshotDisk;
pub use instances::Instance;
pub use state::{Image, Parameter, Snapshot};

use state::State;

/// Access key that the fake knows.
pub const KEY: &str = "AKIAFAKEFAKEFAKEFAKE";
/// Its secret.
pub const SECRET: &str = "fake+secret/of+nobody/and+for+nothing+00";
/// The account that it is of.
pub const ACCOUNT: &str = "111122223333";
/// What GitHub's minter of tokens wants to be shown.
pub const GITHUB: &str = "fake-bearer-of-a-job";

/// How the fake behaves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How often something is seen as pending before it is done.
    pub pending: u32,
    /// How often something new is not seen at all.
    pub hidden: u32,
    /// Regions that there are; one that begins with `-` is there and not enabled.
    pub regions: Vec<String>,
    /// Actions that the credentials do not allow, such as `ec2:CopyImage`.
    pub denied: BTreeSet<String>,
    /// Whether public images are blocked.
    pub block_public: bool,
    /// Whether every new disk is encrypted.
    pub encrypts: bool,
    /// How many calls the credentials of a role are good for.
    pub session: Option<u32>,
    /// What instances say on their consoles; without it, that they are healthy, with the tree that their image's tag names.
    pub console: Option<String>,
    /// Limits of the account that are not the default, by code.
    pub quotas: BTreeMap<String, f64>,
}

impl Default for Rules {
    fn default() -> Self {
        let regions = ["eu-west-1", "eu-north-1", "us-east-1", "-ap-east-1"];
        Self {
            pending: 0,
            hidden: 0,
            regions: regions.map(str::to_owned).into(),
            denied: BTreeSet::new(),
            block_public: false,
            encrypts: false,
            session: None,
            console: None,
            quotas: BTreeMap::new(),
        }
    }
}

/// The fake.
#[derive(Debug)]
pub struct Aws {
    state: Mutex<State>,
}

/// Why a call is refused.
#[derive(Clone, Debug)]
struct Refused {
    status: u16,
    code: &'static str,
    message: String,
}

fn refused(code: &'static str, message: impl Into<String>) -> Refused {
    Refused {
        status: 400,
        code,
        message: message.into(),
    }
}

/// Which call, where, by whom.
#[derive(Clone, Debug)]
struct Context {
    service: &'static str,
    action: String,
    region: String,
}

impl Aws {
    /// A cloud without anything in it.
    #[must_use]
    pub fn new(rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(rules)),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how it behaves.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state().rules);
    }

    /// All images of a region.
    #[must_use]
    pub fn images(&self, region: &str) -> Vec<Image> {
        let state = self.state();
        let images = state.images.values().filter(|image| image.region == region);
        images.cloned().collect()
    }

    /// All snapshots of a region.
    #[must_use]
    pub fn snapshots(&self, region: &str) -> Vec<Snapshot> {
        let state = self.state();
        let snapshots = state
            .snapshots
            .values()
            .filter(|snapshot| snapshot.region == region);
        snapshots.cloned().collect()
    }

    /// All instances of a region, also those that were terminated.
    #[must_use]
    pub fn instances(&self, region: &str) -> Vec<Instance> {
        let state = self.state();
        let instances = state.instances.values();
        let here = instances.filter(|instance| instance.region == region);
        here.cloned().collect()
    }

    /// Puts an instance there, as if somebody else had launched it.
    pub fn put_instance(&self, instance: Instance) {
        let mut state = self.state();
        state.instances.insert(instance.id.clone(), instance);
    }

    /// A parameter of a region.
    #[must_use]
    pub fn parameter(&self, region: &str, name: &str) -> Option<Parameter> {
        let state = self.state();
        state
            .parameters
            .get(&(region.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The disk that a volume made of a finished snapshot has.
    #[must_use]
    pub fn disk(&self, snapshot: &str) -> Option<SnapshotDisk> {
        let state = self.state();
        let snapshot = state.snapshots.get(snapshot)?;
        (snapshot.state == "completed").then(|| snapshot.disk())
    }

    /// Puts an image there, as if somebody else had made it.
    pub fn put_image(&self, image: Image) {
        self.state().images.insert(image.id.clone(), image);
    }

    /// Puts a parameter of text there, as if somebody else had made it.
    pub fn put_text(&self, region: &str, name: &str, value: &str) {
        let parameter = Parameter {
            value: value.to_owned(),
            data_type: "text".to_owned(),
            version: 1,
            ..Parameter::default()
        };
        let place = (region.to_owned(), name.to_owned());
        self.state().parameters.insert(place, parameter);
    }

    /// Puts a snapshot there, as if somebody else had made it.
    pub fn put_snapshot(&self, snapshot: Snapshot) {
        let mut state = self.state();
        state.snapshots.insert(snapshot.id.clone(), snapshot);
    }

    /// Says that something uses an image.
    pub fn refer(&self, image: &str, arn: &str) {
        let mut state = self.state();
        state
            .references
            .entry(image.to_owned())
            .or_default()
            .push(arn.to_owned());
    }

    /// All unfinished snapshots time out.
    pub fn time_out(&self) {
        for snapshot in self.state().snapshots.values_mut() {
            if snapshot.state == "pending" {
                "error".clone_into(&mut snapshot.state);
            }
        }
    }

    /// All images that are not there yet fail for a reason.
    pub fn fail_pending(&self, reason: &str) {
        for image in self.state().images.values_mut() {
            if image.pending > 0 {
                "failed".clone_into(&mut image.state);
                reason.clone_into(&mut image.reason);
                image.pending = 0;
            }
        }
    }

    fn context(request: &Request) -> Context {
        let scope = signature::scope(request);
        let (region, service) = scope.unwrap_or_default();
        let action = if service == "ebs" || request.path.starts_with("/snapshots") {
            return Context {
                service: "ebs",
                action: ebs::action(request).to_owned(),
                region,
            };
        } else if let Some(target) = request.header("x-amz-target") {
            let action = target.rsplit('.').next().unwrap_or_default().to_owned();
            let quotas = target.starts_with("ServiceQuotasV20190624.");
            return Context {
                service: if quotas { "servicequotas" } else { "ssm" },
                action,
                region,
            };
        } else {
            let form = request.form();
            let action = form.into_iter().find(|(name, _)| name == "Action");
            action.map(|(_, action)| action).unwrap_or_default()
        };
        let sts = service == "sts" || action.starts_with("AssumeRole");
        Context {
            service: if sts { "sts" } else { "ec2" },
            action,
            region,
        }
    }

    fn respond(&self, context: &Context, request: &Request) -> Result<Reply, Refused> {
        let mut state = self.state();
        if context.action != "AssumeRoleWithWebIdentity" {
            signature::verify(&mut state, context, request)?;
        }
        let action = format!("{}:{}", context.service, context.action);
        if state.rules.denied.contains(&action) {
            let code = if context.service == "ec2" {
                "UnauthorizedOperation"
            } else {
                "AccessDeniedException"
            };
            let message = match context.service {
                "ec2" => "You are not authorized to perform this operation.".to_owned(),
                _ => format!(
                    "User: arn:aws:iam::{ACCOUNT}:user/ci is not authorized to perform: {action} on resource: *"
                ),
            };
            return Err(Refused {
                status: 403,
                code,
                message,
            });
        }
        match context.service {
            "ebs" => ebs::answer(&mut state, context, request),
            "ssm" => ssm::answer(&mut state, context, request),
            "servicequotas" => quotas::answer(&state, context, request),
            "sts" => sts::answer(&mut state, context, &request.form()),
            _ => ec2::answer(&mut state, context, request),
        }
    }
}

fn reply(context: &Context, refused: &Refused) -> Reply {
    let Refused {
        status,
        code,
        message,
    } = refused;
    match context.service {
        "ebs" => {
            let (reason, text) = message.split_once(": ").unwrap_or(("", message));
            let reason = if reason.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                reason
            } else {
                ""
            };
            Reply::json(*status, &json!({ "Message": text, "Reason": reason }))
                .with("x-amzn-errortype", *code)
        }
        "ssm" | "servicequotas" => {
            Reply::json(*status, &json!({ "__type": code, "message": message }))
        }
        "sts" => Reply::xml(
            *status,
            format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{}</Message></Error><RequestId>fake</RequestId></ErrorResponse>",
                form::escape(message)
            ),
        ),
        _ => Reply::xml(
            *status,
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{}</Message></Error></Errors><RequestID>fake</RequestID></Response>",
                form::escape(message)
            ),
        ),
    }
}

impl Service for Aws {
    fn called(&self, request: &Request) -> Called {
        if request.path == "/github/token" {
            return Called {
                label: "github:Token".to_owned(),
                kind: Kind::Reading,
            };
        }
        let context = Self::context(request);
        let words = ["Describe", "Get", "List", "AssumeRole"];
        let dry = request
            .form()
            .iter()
            .any(|(name, value)| name == "DryRun" && value == "true");
        let reading = dry && context.service == "ec2"
            || words.iter().any(|word| context.action.starts_with(word));
        Called {
            label: format!("{}:{}", context.service, context.action),
            kind: if reading {
                Kind::Reading
            } else {
                Kind::Changing
            },
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        if request.path == "/github/token" && request.method == Method::GET {
            return sts::minted(&mut self.state(), request);
        }
        let context = Self::context(request);
        self.respond(&context, request)
            .unwrap_or_else(|refused| reply(&context, &refused))
    }

    fn throttled(&self, request: &Request) -> Reply {
        let context = Self::context(request);
        let (status, code) = match context.service {
            "ebs" => (400, "RequestThrottledException"),
            "ec2" => (503, "RequestLimitExceeded"),
            _ => (400, "ThrottlingException"),
        };
        reply(
            &context,
            &Refused {
                status,
                code,
                message: "RESOURCE_LEVEL_THROTTLE: Rate exceeded".to_owned(),
            },
        )
    }
}

/// The context of somebody who has nothing but these variables of an environment.
#[must_use]
pub fn context(http: &Http, variables: &[(&str, &str)]) -> reqsign_core::Context {
    let envs = variables.iter();
    let envs = envs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env = StaticEnv {
        home_dir: None,
        envs: envs.collect(),
    };
    crate::authorize::context(http).with_env(env)
}

/// The context of somebody with the access key that the fake knows.
#[must_use]
pub fn keyholder(http: &Http) -> reqsign_core::Context {
    let keys = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    context(http, &keys)
}
