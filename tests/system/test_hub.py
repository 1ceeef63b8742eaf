"""`odac push` and `odac pull`, to a stand-in for the Hugging Face hub and to a directory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import yaml

from rllib_odac import load_policy
from tests.system.commands import BOX, odac

pytest.importorskip("huggingface_hub", reason='needs pip install "rllib-odac[hub]"')
pytestmark = pytest.mark.system

REVISION = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """What the client asks of a hub to make a repository, commit small files and fetch them."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.answer(
                {
                    "url": f"http://{self.headers['Host']}/{asked.get('organization')}/{asked['name']}"
                }
            )
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            how = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.answer({"files": [{"path": name, **how} for name in names]})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            repository = re.match(r"/api/models/(.+)/commit/", self.path)[1]
            for line in lines:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[f"{repository}/{line['value']['path']}"] = content
            url = f"http://{self.headers['Host']}/{repository}/commit/{REVISION}"
            self.answer({"commitUrl": url, "commitOid": REVISION, "success": True})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        else:
            self.send_error(404)

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            self.answer({"id": "ada/box", "sha": REVISION, "siblings": []})
            return
        content = self.files.get(re.sub(r"/resolve/[^/]+", "", self.path)[1:])
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.files.clear()
    # What HF_ENDPOINT and HF_TOKEN set when the package is imported.
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    url = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield Hub
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "box"
    odac("train", *BOX, "--steps", 600, "--seed", 4, "--out", out)
    return out


def check_pulled(run, pulled):
    """It acts and evaluates as the run it came from."""
    policy, original = load_policy(pulled), load_policy(run)
    rng = np.random.default_rng(0)
    batch = {
        name: rng.uniform(-1, 1, (9, *space.shape))
        for name, space in policy.spec.spaces.items()
        if name != "action"
    }
    np.testing.assert_array_equal(policy(batch), original(batch))
    options = ("--episodes", 3, "--json")
    assert (
        odac("evaluate", pulled, *options, ray=False).stdout
        == odac("evaluate", run, *options, ray=False).stdout
    )
    assert not list(pulled.rglob("*.pkl"))


def test_a_policy_goes_to_a_hub_and_comes_back(hub, run, tmp_path):
    odac("push", run, "hf://ada/box", ray=False)
    names = {name.removeprefix("ada/box/") for name in hub.files}
    assert names == {
        "README.md", "config.json", "policy.json", "policy.safetensors", "networks.json",
        "networks.safetensors",
    }  # fmt: skip
    _, front, text = hub.files["ada/box/README.md"].decode().split("---\n", 2)
    card = yaml.safe_load(front)
    summary = json.loads((run / "summary.json").read_text())
    result = card["model-index"][0]["results"][0]
    assert result["dataset"]["type"] == "odac/Box2D-v0"
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["final_distance"] == summary["final_distance"]
    assert "Seed 4, " in text
    assert "odac train --config config.json" in text
    odac("pull", "hf://ada/box", "--out", tmp_path / "pulled", ray=False)
    check_pulled(run, tmp_path / "pulled")


def test_a_directory_is_a_repository_too(run, tmp_path):
    odac("push", run / "checkpoint_final", tmp_path / "shared", ray=False)
    odac("pull", tmp_path / "shared", "--out", tmp_path / "pulled", ray=False)
    check_pulled(run, tmp_path / "pulled")


def test_what_cannot_be_pulled_is_said_in_one_sentence(hub, run, tmp_path):
    out = ("--out", tmp_path / "out")
    missing = odac("pull", "hf://ada/nothing", *out, check=False, ray=False)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: 'hf://ada/nothing' cannot be reached: ")
    (tmp_path / "empty").mkdir()
    empty = odac("pull", tmp_path / "empty", *out, check=False, ray=False)
    assert "holds no pushed policy: 'policy.safetensors' is missing." in empty.stderr
    odac("push", run, tmp_path / "shared", ray=False)
    (tmp_path / "shared" / "policy.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    damaged = odac("pull", tmp_path / "shared", *out, check=False, ray=False)
    assert "which is damaged" in damaged.stderr
    assert not (tmp_path / "out").exists()
