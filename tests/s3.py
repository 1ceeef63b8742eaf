"""An S3 server on this machine: moto's, in a process of its own, failing on purpose if asked to.

python -m tests.s3 PORT SHARE    # answers a share of requests with 503, "slow down"
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs

BUCKET = "robots"


@contextlib.contextmanager
def s3_server(failing: float = 0.0, status: int = 503) -> Iterator[str]:
    """Starts one with a bucket, and tells this process and its children of it; gives s3://BUCKET.

    Args:
        failing: Share of requests that it refuses, once the bucket is there.
        status: How: 503 is tried again, 403 is not.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.s3", str(port), str(failing), str(status)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    said = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.1)
        endpoint = f"127.0.0.1:{port}"
        store = pyarrow.fs.S3FileSystem(
            endpoint_override=endpoint, scheme="http", allow_bucket_creation=True
        )
        store.create_dir(BUCKET)
        yield f"s3://{BUCKET}"
    finally:
        server.kill()
        server.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


ERRORS = {403: ("403 Forbidden", "AccessDenied"), 503: ("503 Slow Down", "SlowDown")}


def main(port: int, failing: float, status: int) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    store = DomainDispatcherApplication(create_backend_app)
    chance = random.Random(0)
    has_begun = False

    def answer(environ, start_response):
        nonlocal has_begun
        if has_begun and chance.random() < failing:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            line, code = ERRORS[status]
            start_response(line, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()]
        has_begun = has_begun or environ["REQUEST_METHOD"] == "PUT"  # which makes the bucket
        return store(environ, start_response)

    run_simple("127.0.0.1", port, answer, threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
