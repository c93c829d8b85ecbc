"""Reads and makes blobs with the cloud's own library, which no one here wrote.

blobs.py create CONTAINER            makes a container
blobs.py fetch CONTAINER BLOB FILE   writes what was written of a page blob, and says what it is
"""

import json
import os
import sys

from azure.storage.blob import BlobServiceClient

# Emulators are older than libraries.
service = BlobServiceClient.from_connection_string(
    os.environ["CONNECTION"], api_version="2023-11-03"
)
verb, container, *rest = sys.argv[1:]
if verb == "create":
    service.create_container(container)
else:
    name, path = rest
    blob = service.get_blob_client(container, name)
    seen = blob.get_blob_properties()
    ranges = [(part.start, part.end + 1) for part in blob.list_page_ranges()]
    with open(path, "wb") as file:
        file.truncate(seen.size)
        for start, end in ranges:
            file.seek(start)
            file.write(blob.download_blob(start, end - start).readall())
    said = {
        "kind": seen.blob_type,
        "size": seen.size,
        "sent": sum(end - start for start, end in ranges),
        "sequence": seen.page_blob_sequence_number,
        "etag": seen.etag,
        "notes": seen.metadata,
    }
    print(json.dumps(said))
