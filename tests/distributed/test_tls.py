"""Training where everything between processes is encrypted, as `cluster/README.md` says."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray.util import get_node_ip_address

from tests.system.commands import BOX, wait_for

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture
def variables(tmp_path):
    """The variables that turn it on, with a certificate for this machine."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which makes the certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    names = f"subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{get_node_ip_address()}"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=ray", "-addext", names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return os.environ | {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(certificate),
        "RAY_TLS_SERVER_KEY": str(key),
        "RAY_TLS_CA_CERT": str(certificate),
        "RAY_AUTH_MODE": "disabled",
    }


@pytest.fixture
def head(variables):
    """The address of a cluster that speaks nothing else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--num-cpus=2", f"--port={port}", "--include-dashboard=false"]
    process = subprocess.Popen(
        command, env=variables, start_new_session=True, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
    yield f"127.0.0.1:{port}"
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def test_a_run_trains_where_everything_is_encrypted(head, variables, tmp_path):
    host, _, port = head.partition(":")
    shown = ssl.get_server_certificate((host, int(port)))
    assert shown.split() == Path(variables["RAY_TLS_SERVER_CERT"]).read_text().split()
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rllib_odac.cli", "train", *BOX, "--steps", "1000"]
    command += ["--num-env-runners", "1", "--out", str(out), "--address", head]
    finished = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=250, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert (out / "checkpoint_final").is_dir()
