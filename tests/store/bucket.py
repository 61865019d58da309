"""A bucket on loopback: moto's S3 server in a process of its own, for the real client."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.embedded.children import ROOT, Launch, free_port, kill, python, spawn, until

START_S = 30
NAME = "pictures"
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20261124/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@contextmanager
def bucket(log: Path) -> Iterator[dict[str, str]]:
    """Settings of an empty bucket, whose server lives until the end of the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        child = spawn(Launch(python("moto.server", "-H", "127.0.0.1", "-p", str(port)), cwd=ROOT), output=out)
        try:
            assert until(lambda: _made(url), timeout_s=START_S), log.read_text()
            yield {
                "s3_endpoint": url,
                "s3_bucket": NAME,
                "s3_region": "us-east-1",
                "s3_access_key": "key",
                "s3_secret_key": "secret",
            }
        finally:
            kill(child)


def _made(url: str) -> bool:
    request = urllib.request.Request(f"{url}/{NAME}", method="PUT", headers={"Authorization": SIGNED})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False
