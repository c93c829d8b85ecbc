//! Amazon's interfaces before witnesses: moto and ministack take the calls that they know, boto3 reads our fake and agrees.

use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud::aws::{Publisher, Target};
use cloud::fake::aws::{Aws, KEY, Rules, SECRET, keyholder};
use cloud::{Disk, Options, Progress, Provider as _, Stage, Step, Subject};
use e2e::need;
use e2e::shop;
use image_manifest::block_map::{Kind, Run};
use image_manifest::{BlockMap, Digest, FormKind};
use lab::python::Environment;
use serde_json::{Value, json};

use super::desk::{RUNTIME, listen};

const TARGET: &str = "
name = 'prod'
regions = ['eu-west-1', 'us-east-1']
accounts = ['444455556666']
tags = { team = 'boot' }
parameters = ['/images/host/newest']
deprecate-after = 30
deregistration-protection = true
tpm = true
launch = { type = 't3.small' }
";
/// What moto knows of what we call.
const MOTO: &str = "ebs:StartSnapshot,ebs:PutSnapshotBlock,ebs:CompleteSnapshot,ec2:RegisterImage,ec2:CopyImage,\
    ec2:CreateTags,ec2:DescribeImages,ec2:DescribeSnapshots,ec2:DescribeRegions,ec2:ModifyImageAttribute,\
    ec2:ModifySnapshotAttribute,ec2:DescribeImageAttribute,ec2:DescribeSnapshotAttribute,ssm:PutParameter,\
    ssm:GetParameters,sts:GetCallerIdentity,ec2:RunInstances,ec2:DescribeInstances,ec2:GetConsoleOutput,ec2:TerminateInstances";
/// What ministack knows of it.
const MINISTACK: &str = "ec2:RegisterImage,ec2:DescribeImages,ec2:DescribeRegions,ssm:PutParameter,ssm:GetParameters,\
    sts:GetCallerIdentity";

/// A few blocks of each kind.
#[derive(Debug)]
struct Small(BlockMap);

impl Small {
    fn new() -> Self {
        let run = |kind, first, count| Run { kind, first, count };
        let runs = vec![
            run(Kind::Data, 0, 2),
            run(Kind::NeverWritten, 2, 5),
            run(Kind::MustBeZero, 7, 1),
            run(Kind::Data, 8, 1),
        ];
        let size = 9 * BlockMap::BLOCK;
        let (schema, block_size) = (BlockMap::SCHEMA, BlockMap::BLOCK);
        Self(BlockMap {
            schema,
            block_size,
            size,
            runs,
        })
    }

    fn block(&self, index: u64) -> Vec<u8> {
        let mut block = vec![0; 512 << 10];
        self.read_at(index * BlockMap::BLOCK, &mut block)
            .expect("a block");
        block
    }
}

impl Disk for Small {
    fn blocks(&self) -> &BlockMap {
        &self.0
    }

    fn form(&self, _: FormKind) -> Option<(Digest, u64)> {
        None
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let index = at / BlockMap::BLOCK;
        // Whole blocks are read; the seventh is the one of zeros.
        buffer.fill(if index == 7 {
            0
        } else {
            b"abcdefghi"[usize::try_from(index).unwrap_or(0)]
        });
        Ok(())
    }

    fn vhd_footer(&self) -> [u8; 512] {
        [0; 512]
    }

    fn open(&self, _: FormKind, _: u64) -> io::Result<Box<dyn Read + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct Silent;

impl Progress for Silent {
    fn begins(&self, _: &Step) {}
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn waits(&self, _: &str, _: &str) {}
}

/// A program of others, until it is dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().unwrap_or_default();
        self.0.wait().ok();
    }
}

/// Starts a server that takes its port by arguments or variables, and waits until it answers.
fn serve(program: PathBuf, arguments: &[&str], variables: &[&str]) -> (Peer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = listener.local_addr().expect("its address");
    drop(listener);
    let port = address.port().to_string();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut server = Command::new(program);
    server.args(arguments.iter().map(|word| word.replace("PORT", &port)));
    for variable in variables {
        let (name, value) = variable.split_once('=').expect("a variable");
        server.env(name, value.replace("PORT", &port));
    }
    server
        .env_remove("AWS_ENDPOINT_URL")
        .env("HOME", folder.path());
    server
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut peer = Peer(server.spawn().expect("the server starts"));
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        let ended = peer.0.try_wait().expect("its state");
        assert!(
            ended.is_none() && begun.elapsed() < Duration::from_mins(1),
            "{server:?} does not listen: {ended:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    (peer, format!("http://{address}"))
}

fn script() -> PathBuf {
    shop::workspace()
        .root
        .join("tests/e2e/tests/publish/aws.py")
}

/// Stands between the publisher and the fake, and tells the witness.
struct Mirror {
    process: Peer,
    said: BufReader<ChildStdout>,
    url: String,
}

impl Mirror {
    fn start(python: &Path, fake: &str, witness: &str, calls: &str) -> Self {
        let mut mirror = Command::new(python);
        mirror.arg(script()).args(["mirror", fake, witness, calls]);
        mirror.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Peer(mirror.spawn().expect("python"));
        let mut said = BufReader::new(process.0.stdout.take().expect("its output"));
        let mut url = String::new();
        said.read_line(&mut url).expect("its address");
        Self {
            process,
            said,
            url: url.trim().to_owned(),
        }
    }

    /// What the witness took.
    fn end(mut self) -> Value {
        drop(self.process.0.stdin.take());
        let mut line = String::new();
        self.said.read_line(&mut line).expect("what it saw");
        serde_json::from_str(&line).expect("JSON")
    }
}

fn read(python: &Path, url: &str, keys: [&str; 2], parts: &[&str]) -> Value {
    let mut reader = Command::new(python);
    reader
        .arg(script())
        .args(["read", url, "eu-west-1"])
        .args(keys);
    reader.arg("/images/host/newest").args(parts);
    let output = reader.output().expect("python");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn subject(disk: &Arc<Small>) -> Subject {
    Subject {
        name: "host".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        version: "20260102-0123abcd".to_owned(),
        manifest: Digest::of(b"manifest"),
        tree: Digest::of(b"tree"),
        source_date: 1_767_312_000,
        disk: Some(disk.clone()),
    }
}

fn publish(url: &str, disk: &Arc<Small>) {
    let mut target: Target = toml::from_str(TARGET).expect("a target");
    target.endpoint = Some(url.to_owned());
    let journal = tempfile::tempdir().expect("a temporary directory");
    let http = cloud::http::Http::new();
    let context = keyholder(&http);
    let options = Options {
        journal: journal.path().to_owned(),
        http,
    };
    let mut publisher =
        Publisher::within(&target, &subject(disk), &options, context).expect("it fits");
    RUNTIME.block_on(async {
        publisher.observe().await.expect("what there is");
        assert_eq!(publisher.check().await.expect("findings"), []);
        for stage in Stage::ALL {
            publisher.advance(stage, &Silent).await.expect("a stage");
        }
    });
}

#[test]
fn moto_and_ministack_take_our_calls_and_boto3_reads_our_fake() {
    let environment = Environment::of(&shop::state());
    let program = |name| environment.program(name);
    let (Some(python), Some(moto), Some(ministack)) = (
        program("python3"),
        program("moto_server"),
        program("ministack"),
    ) else {
        assert!(!need::is_ci(), "no moto or ministack");
        eprintln!("SKIPPED for want of moto: `cargo lab test --install`");
        return;
    };
    let (_moto, moto) = serve(moto, &["-H", "127.0.0.1", "-p", "PORT"], &[]);
    let (_ministack, ministack) = serve(
        ministack,
        &[],
        &["BIND_HOST=127.0.0.1", "GATEWAY_PORT=PORT"],
    );
    let disk = Arc::new(Small::new());
    for (witness, calls) in [(&moto, MOTO), (&ministack, MINISTACK)] {
        let aws = Aws::new(Rules::default());
        let server = listen(aws.clone());
        let mirror = Mirror::start(&python, &server.url(), witness, calls);
        publish(&mirror.url, &disk);
        let told = mirror.end();
        assert_eq!(told["refused"], json!([]));
        for call in calls.split(',').filter(|call| *call != "ec2:CreateTags") {
            assert!(
                told["taken"][call].as_u64().is_some_and(|count| count > 0),
                "{call}: {told}"
            );
        }
        check_fake(
            &read(
                &python,
                &server.url(),
                [KEY, SECRET],
                &["grants", "snapshots"],
            ),
            &disk,
        );
    }
    check_moto(
        &read(&python, &moto, ["a", "b"], &["grants", "snapshots"]),
        &disk,
    );
    check_ministack(&read(&python, &ministack, ["a", "b"], &[]), &disk);
}

/// Blocks that were sent, as index and digest.
fn sent(disk: &Small) -> Value {
    let blocks = disk
        .0
        .written()
        .map(|(index, _)| json!([index, Digest::of(&disk.block(index)).hex()]));
    blocks.collect()
}

fn check_tags(tags: &Value, disk: &Arc<Small>) {
    for (key, value) in subject(disk).tags() {
        assert_eq!(tags[&key], json!(value), "{tags}");
    }
    assert_eq!(tags["team"], "boot");
}

/// boto3 sees on our fake what was asked for.
fn check_fake(found: &Value, disk: &Arc<Small>) {
    let image = &found["images"][0];
    let expected = json!({
        "Architecture": "x86_64", "BootMode": "uefi", "TpmSupport": "v2.0", "ImdsSupport": "v2.0", "EnaSupport": true,
        "State": "available", "size": 1, "DeregistrationProtection": "enabled-without-cooldown",
        "grants": [{ "UserId": "444455556666" }], "RootDeviceName": "/dev/xvda",
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(image[name], *value, "{name}");
    }
    assert!(image["DeprecationTime"].is_string(), "{image}");
    assert_eq!(
        found["parameter"],
        json!([image["ImageId"], "aws:ec2:image"])
    );
    check_tags(&image["tags"], disk);
    check_tags(&found["snapshots"][0]["tags"], disk);
    assert_eq!(found["snapshots"][0]["blocks"], sent(disk));
}

/// moto has what it keeps: the blocks, the name, who may use it, the parameter.
fn check_moto(found: &Value, disk: &Arc<Small>) {
    let image = &found["images"][0];
    assert_eq!(image["Name"], "host-20260102-0123abcd-amd64");
    assert_eq!(image["grants"], json!([{ "UserId": "444455556666" }]));
    assert_eq!(found["parameter"][0], image["ImageId"]);
    let snapshot = &found["snapshots"][0];
    assert_eq!(snapshot["state"], "completed");
    check_tags(&snapshot["tags"], disk);
    let indexes = |blocks: &Value| -> Vec<Value> {
        blocks
            .as_array()
            .expect("blocks")
            .iter()
            .map(|block| block[0].clone())
            .collect()
    };
    assert_eq!(indexes(&snapshot["blocks"]), indexes(&sent(disk)));
}

/// ministack has what it keeps: architecture, tags, the kind of the parameter.
fn check_ministack(found: &Value, disk: &Arc<Small>) {
    let image = &found["images"][0];
    assert_eq!(image["Architecture"], "x86_64");
    check_tags(&image["tags"], disk);
    assert_eq!(
        found["parameter"],
        json!([image["ImageId"], "aws:ec2:image"])
    );
}
