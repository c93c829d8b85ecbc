//! `imagebuild sign` and `imagebuild key`: signatures, and the keys that make them.
//!
//! It refuses keys and passphrases on the command line: every user of a computer sees those.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use image_manifest::layout::Layout;
use imagebuild::sign::key::Protection;
use imagebuild::sign::{self, KeyError, PrivateKey, PublicKey, Unlock};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it, and takes the signature.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Where a private key comes from.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File of the private key [default: the text of the variable `IMAGEBUILD_KEY`].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the key's passphrase [default: the variable `IMAGEBUILD_KEY_PASSPHRASE`].
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File with an identity of age that opens the key [default: the one that `IMAGEBUILD_IDENTITY` names].
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct KeyVerbArgs {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Makes a key: FILE, which only its owner may read, and FILE.pub.
    Make(MakeArgs),
    /// Writes the public key of a private one.
    Public(PublicArgs),
}

#[derive(Debug, Args)]
struct MakeArgs {
    /// The file; it must not be there.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Keep it under the passphrase in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "age")]
    passphrase_file: Option<PathBuf>,
    /// Encrypt it with age for a recipient; may be given several times.
    #[arg(long, value_name = "RECIPIENT")]
    age: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PublicArgs {
    /// The file; it must not be there.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    public_key: PathBuf,
}

impl KeyArgs {
    /// The key, when one is named.
    pub(super) fn given(&self) -> Result<Option<PrivateKey>, Failure> {
        if self.key.is_none() && std::env::var_os("IMAGEBUILD_KEY").is_none() {
            return Ok(None);
        }
        self.find().map(Some)
    }

    fn find(&self) -> Result<PrivateKey, Failure> {
        let unlock = Unlock::find(self.passphrase_file.as_deref(), self.identity.as_deref());
        let unlock = unlock.map_err(bad_key)?;
        PrivateKey::find(self.key.as_deref(), &unlock).map_err(bad_key)
    }
}

/// A key that cannot be used stays so.
pub(super) fn bad_key(error: KeyError) -> Failure {
    Failure::told(error, Exit::Configuration)
}

pub(super) fn run(args: &SignArgs) -> Result<(), Failure> {
    let key = args.key.find()?;
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let signed = sign::sign(&store, &args.image, &key);
    let signed = signed.map_err(|error| Failure::told(error, Exit::Failed))?;
    if args.json {
        return print_json(&signed);
    }
    for one in &signed {
        print(&format!("{}@{}", one.name, one.manifest))?;
        print(&format!("signature {}", one.stored_as))?;
    }
    Ok(())
}

pub(super) fn key(args: &KeyVerbArgs) -> Result<(), Failure> {
    match &args.verb {
        KeyVerb::Make(args) => make(args),
        KeyVerb::Public(args) => {
            let key = args.key.find()?;
            key.public().save(&args.file).map_err(bad_key)?;
            tell(None, &args.file, args.json)
        }
    }
}

fn make(args: &MakeArgs) -> Result<(), Failure> {
    let protection = if args.age.is_empty() {
        let unlock = match &args.passphrase_file {
            Some(file) => Unlock::find(Some(file), None).map_err(bad_key)?,
            None => Unlock::default(),
        };
        unlock
            .passphrase
            .map_or(Protection::Plain, Protection::Passphrase)
    } else {
        Protection::Age(args.age.clone())
    };
    let key = PrivateKey::generate();
    let mut public = args.file.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    key.save(&args.file, &protection).map_err(bad_key)?;
    key.public().save(&public).map_err(bad_key)?;
    tell(Some(&args.file), &public, args.json)
}

fn tell(key: Option<&Path>, public: &Path, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&Written {
            key: key.map(Path::to_owned),
            public_key: public.to_owned(),
        });
    }
    if let Some(key) = key {
        print(&format!("key        {}", key.display()))?;
    }
    print(&format!("public key {}", public.display()))
}

/// Checks that one of the keys in files signed an image.
pub(super) fn check(store: &Layout, image: &str, keys: &[PathBuf]) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let found = store.resolve(image).map_err(Failure::Store)?;
    let keys = keys.iter().map(|path| PublicKey::load(path));
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(bad_key)?;
    sign::check(store, image, &found.digest, &keys)
        .map_err(|error| Failure::told(error, Exit::Failed))
}
