"""Witnesses of Amazon's interfaces that no one here wrote: moto and ministack take our calls, boto3 reads our fake.

  aws.py mirror FAKE WITNESS CALLS   stands before the fake, and sends each call of CALLS (with commas) to the witness too
  aws.py read URL REGION ...         reads what is published, as JSON

Ids differ from cloud to cloud, so the mirror changes those of the fake into those of the witness.
"""

import hashlib
import http.client
import http.server
import json
import re
import sys
import threading
import urllib.parse

import base64
import boto3

ID = re.compile(rb"\b(?:ami|snap|i)-[0-9a-f]{8,17}\b")
LOCK = threading.Lock()


def call_of(method, path, headers, body):
    """The name of a call."""
    if "x-amz-target" in headers:
        return "ssm:" + headers["x-amz-target"].split(".")[-1]
    parts = path.split("?")[0].split("/")[1:]
    if parts[0] == "snapshots":
        if method == "POST":
            return "ebs:CompleteSnapshot" if "completion" in parts else "ebs:StartSnapshot"
        if method == "PUT":
            return "ebs:PutSnapshotBlock"
        return "ebs:ListSnapshotBlocks" if parts[-1] == "blocks" else "ebs:GetSnapshotBlock"
    action = dict(urllib.parse.parse_qsl(body.decode()))["Action"]
    return ("sts:" if action == "GetCallerIdentity" else "ec2:") + action


def send(url, method, path, headers, body):
    host = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(host.hostname, host.port, timeout=60)
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.getheaders(), answer.read()
    connection.close()
    return found


class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake, witness, known = None, None, set()
    ids, taken, refused = {}, {}, []

    def handle_call(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = dict(self.headers.items())
        status, answered, content = send(self.fake, self.command, self.path, headers, body)
        name = call_of(self.command, self.path, self.headers, body)
        if name in self.known and status < 300:
            self.tell_witness(name, headers, body, content)
        self.send_response(status)
        for key, value in answered:
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(key, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = handle_call

    def tell_witness(self, name, headers, body, content):
        theirs = lambda match: self.ids.get(match.group(), match.group())
        with LOCK:
            path = ID.sub(theirs, self.path.encode()).decode()
            binary = name == "ebs:PutSnapshotBlock"
            sent = body if binary else ID.sub(theirs, body)
            # The snapshot of a copy is made by the cloud, so the witness has another that no answer named. One that
            # makes no snapshots takes any.
            named = ID.findall(self.path.encode() + (b"" if binary else body))
            counts = lambda id: id.startswith(b"ami-") or "ebs:StartSnapshot" in self.known
            if any(id not in self.ids and counts(id) for id in named):
                return
        status, _, answer = send(self.witness, self.command, path, headers, sent)
        with LOCK:
            if status >= 300:
                self.refused.append([name, status, answer[:400].decode(errors="replace")])
                return
            self.taken[name] = self.taken.get(name, 0) + 1
            if name in ("ebs:StartSnapshot", "ec2:RegisterImage", "ec2:CopyImage", "ec2:RunInstances"):
                ours, theirs = ID.search(content), ID.search(answer)
                self.ids[ours.group()] = theirs.group()

    def log_message(self, *_):
        pass


def mirror(fake, witness, calls):
    Mirror.fake, Mirror.witness, Mirror.known = fake, witness, set(calls.split(","))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
    print(json.dumps({"taken": Mirror.taken, "refused": Mirror.refused}))


def read(url, region, key, secret, parameter, *parts):
    """What boto3 sees: images, who may use them, their snapshots with blocks, a parameter."""
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    client = lambda service: boto3.client(service, endpoint_url=url, region_name=region, **keys)
    ec2, ebs, ssm = client("ec2"), client("ebs"), client("ssm")
    found = {"account": client("sts").get_caller_identity()["Account"], "images": []}
    pages = ec2.get_paginator("describe_images").paginate(Owners=["self"])
    for image in (image for page in pages for image in page["Images"]):
        if not image["Name"].startswith("host-"):
            continue
        told = {name: image.get(name) for name in (
            "ImageId", "Name", "Architecture", "BootMode", "TpmSupport", "ImdsSupport", "EnaSupport", "State",
            "RootDeviceName", "DeprecationTime", "DeregistrationProtection")}
        told["tags"] = {tag["Key"]: tag["Value"] for tag in image.get("Tags", [])}
        if "grants" in parts:
            grants = ec2.describe_image_attribute(ImageId=image["ImageId"], Attribute="launchPermission")
            told["grants"] = grants["LaunchPermissions"]
        disk = image["BlockDeviceMappings"][0]["Ebs"]
        told["size"], told["snapshot"] = disk["VolumeSize"], disk.get("SnapshotId")
        found["images"].append(told)
    value = ssm.get_parameter(Name=parameter)["Parameter"]
    found["parameter"] = [value["Value"], value.get("DataType")]
    if "snapshots" in parts:
        found["snapshots"] = []
        pages = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"])
        for snapshot in (snapshot for page in pages for snapshot in page["Snapshots"]):
            tags = {tag["Key"]: tag["Value"] for tag in snapshot.get("Tags", [])}
            if "firstboot:manifest" not in tags:
                continue
            blocks = ebs.list_snapshot_blocks(SnapshotId=snapshot["SnapshotId"])["Blocks"]
            told = []
            # moto lists them as they came.
            for block in sorted(blocks, key=lambda block: block["BlockIndex"]):
                index = block["BlockIndex"]
                read = ebs.get_snapshot_block(
                    SnapshotId=snapshot["SnapshotId"], BlockIndex=index, BlockToken=block["BlockToken"])
                digest = hashlib.sha256(read["BlockData"].read())
                same = base64.b64encode(digest.digest()).decode() == read["Checksum"]
                told.append([index, digest.hexdigest() if same else "not of its checksum"])
            found["snapshots"].append({"state": snapshot["State"], "tags": tags, "blocks": told})
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    {"mirror": mirror, "read": read}[sys.argv[1]](*sys.argv[2:])
