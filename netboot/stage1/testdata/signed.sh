#!/bin/sh
# Makes the signed manifest of the tests anew, with a key that is thrown away.
set -eu
cd "$(dirname "$0")"
key=$(mktemp)
trap 'rm -f "$key"' EXIT
openssl ecparam -name prime256v1 -genkey -noout -out "$key"
openssl ec -in "$key" -pubout -outform DER 2>/dev/null | tail -c 65 | od -An -v -tx1 | tr -d ' \n' > signer.hex
rootfs=$(printf rootfs | sha256sum | cut -d' ' -f1)
printf '{"layers":[{"digest":"sha256:%s"}]}' "$rootfs" > signed-manifest.json
manifest=$(sha256sum < signed-manifest.json | cut -d' ' -f1)
printf '{"critical":{"identity":{"docker-reference":"host"},"image":{"docker-manifest-digest":"sha256:%s"},"type":"cosign container image signature"},"optional":null}' "$manifest" > signed-payload.json
openssl dgst -sha256 -sign "$key" signed-payload.json | base64 -w0 > signed.sig
