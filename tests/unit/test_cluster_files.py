"""The files in cluster/: each against its real schema, and the versions in them."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import rllib_odac

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
# The part of KubeRay's schema of `ray.io/v1` that these files use; other fields are refused.
KUBERAY = json.loads((Path(__file__).parent / "data" / "kuberay_schema.json").read_text())
# The same of Kubernetes' own resources.
KUBERNETES = json.loads((Path(__file__).parent / "data" / "kubernetes_schema.json").read_text())
RAY_UP = ("aws", "gcp", "on-prem")
PINS = dict(
    line.strip().split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"REGISTRY/rllib-odac:{PROJECT['version']}"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


# `ray up` -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_takes_the_file(name):
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(name)
    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    validate_config(prepare_config(copy.deepcopy(config)))  # with the provider's defaults


@pytest.mark.parametrize("name", RAY_UP)
def test_every_node_has_the_image_the_token_and_the_storage(name):
    config = read(name)
    image = config["docker"]["image"]
    options = " ".join(config["docker"]["run_options"])
    gpu_image, gpu_options = image, options
    if name != "on-prem":  # whose machines are all of one type, so that one image serves both
        kinds = config["available_node_types"]
        assert [kind for kind in kinds if "docker" in kinds[kind]] == ["gpu_worker"]
        told = kinds["gpu_worker"]["docker"]
        gpu_image, gpu_options = told["worker_image"], " ".join(told["worker_run_options"])
        assert re.fullmatch(r"\S+/rllib-odac:" + PROJECT["version"], image)
        assert image.partition("/")[0] in " ".join(config["initialization_commands"])  # logs in
    assert gpu_image == image.removesuffix("-gpu") + "-gpu"
    assert "NVIDIA_VISIBLE_DEVICES=all" in gpu_options  # else NVIDIA's runtime hands out none
    assert "RAY_AUTH_MODE=token" in options
    assert "ODAC_STORAGE=" in options
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_env_runners_fit_on_cpu_nodes_alone_and_learners_on_gpu_nodes(name):
    nodes = {kind: node["resources"] for kind, node in read(name)["available_node_types"].items()}
    check_places(nodes)


def check_places(nodes: dict[str, dict[str, float]]) -> None:
    """What a trial takes finds its place on one kind of node only."""
    from rllib_odac.experiments.spec import RunSpec
    from rllib_odac.experiments.sweeps.space import read_space
    from rllib_odac.experiments.sweeps.spec import SweepSpec
    from rllib_odac.experiments.sweeps.sweep import Sweep

    study = SweepSpec(RunSpec("odac/Box2D-v0"), read_space({"lr": {"choice": [0.001]}}))
    sweep = Sweep(study, "x", "x", num_env_runners=4, num_learners=1, num_gpus_per_learner=1)
    places = {
        each.setting: [
            kind
            for kind, offered in nodes.items()
            if all(offered.get(name, 0) >= amount for name, amount in each.reserved.items())
        ]
        for each in sweep.processes()
    }
    cpu, gpu = ["cpu_worker"], ["gpu_worker"]
    collect = {"num_env_runners": cpu, "evaluation_num_env_runners": cpu}
    assert places == {"jobs": cpu, "num_learners": gpu} | collect


def test_on_google_the_head_keeps_rays_account_and_gpu_nodes_wait_for_their_driver():
    config = read("gcp")
    nodes = {kind: each["node_config"] for kind, each in config["available_node_types"].items()}
    assert "serviceAccounts" not in nodes["head"]  # ours may start no nodes
    for kind in ("cpu_worker", "gpu_worker"):
        assert nodes[kind]["serviceAccounts"][0]["email"].startswith("odac-node@")
    assert "nvidia-smi" in config["initialization_commands"][-1]


# Kubernetes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kuberay_takes_the_file(name):
    resource = read(name)
    assert resource["apiVersion"] == "ray.io/v1"
    schema = KUBERAY | {"$ref": f"#/{resource['kind']}"}
    jsonschema.validate(resource, schema)
    wrong = copy.deepcopy(resource)
    wrong["spec"]["no_such_field"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
    cluster = resource["spec"].get("rayClusterSpec", resource["spec"])
    del cluster["headGroupSpec"]["template"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(resource, schema)


def test_the_job_has_the_cluster_of_the_other_file():
    assert read("rayjob")["spec"]["rayClusterSpec"] == read("raycluster")["spec"]


@pytest.mark.parametrize("name", ["network-policy", "storage"])
def test_kubernetes_takes_the_file(name):
    resource = read(name)
    schema = KUBERNETES[resource["kind"]]
    jsonschema.validate(resource, schema)
    resource["spec"]["no_such_field"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(resource, schema)


def test_the_network_policy_is_for_pods_of_ray_clusters_and_leaves_the_dashboard_open():
    policy = read("network-policy")
    assert policy["apiVersion"] == "networking.k8s.io/v1"
    pods = {"matchExpressions": [{"key": "ray.io/cluster", "operator": "Exists"}]}
    assert policy["spec"]["podSelector"] == pods
    among_themselves, from_outside = policy["spec"]["ingress"]
    assert among_themselves == {"from": [{"podSelector": pods}]}
    assert from_outside["ports"] == [{"protocol": "TCP", "port": 8265}]


def test_pods_are_placed_as_nodes_are():
    spec = read("raycluster")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    names = {"head": spec["headGroupSpec"], "cpu_worker": groups["cpu-workers"]}
    names["gpu_worker"] = groups["gpu-workers"]
    nodes = {}
    for name, group in names.items():
        told = group["rayStartParams"]
        nodes[name] = {"CPU": int(told["num-cpus"]), "GPU": int(told.get("num-gpus", 0))}
        [container] = group["template"]["spec"]["containers"]
        assert container["image"] == IMAGE + ("-gpu" if name == "gpu_worker" else "")
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        pod = group["template"]["spec"]["securityContext"]
        assert (pod["runAsNonRoot"], pod["fsGroup"]) == (True, 100)  # which owns the claim's files
        assert {"name": "ODAC_STORAGE", "value": "/sweeps"} in container["env"]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert int(gpus) == nodes[name]["GPU"]
    check_places(nodes)
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for group in names.values()
        for volume in group["template"]["spec"]["volumes"]
    }
    assert claims == {read("storage")["metadata"]["name"]}


# Versions, the image and the job's environment ----------------------------------------------------


def test_versions_are_those_that_were_tested():
    assert read("raycluster")["spec"]["rayVersion"] == PINS["ray"]
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    [base] = re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE)
    assert f"{IMAGE}-gpu --build-arg DEVICE=gpu" in dockerfile
    python = PROJECT["requires-python"].removeprefix(">=").replace(".", "")
    assert base == f"rayproject/ray:{PINS['ray']}-py{python}"
    assert IMAGE in dockerfile
    for path in CLUSTER.iterdir():
        for version in re.findall(r"rllib-odac:(\d+\.\d+\.\d+)", path.read_text()):
            assert version == PROJECT["version"], path
    assert rllib_odac.__version__ == PROJECT["version"]


def test_the_image_installs_extras_that_exist_from_files_that_exist():
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    [extras] = re.findall(r'"\.\[([\w,]+)\]"', dockerfile)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    copied = [word for line in re.findall(r"^COPY \S+ (.+) \S+$", dockerfile, re.M)
              for word in line.split()]  # fmt: skip
    let_in = re.findall(r"^!(.+)$", (CLUSTER / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(copied) == sorted(let_in)
    for name in copied:
        assert (ROOT / name).exists()


def test_the_runtime_environment_is_one_that_ray_takes():
    from ray.runtime_env import RuntimeEnv

    told = read("runtime_env")
    environment = RuntimeEnv(**told, working_dir="s3://bucket/checkout.zip")
    assert environment["env_vars"] == {"OMP_NUM_THREADS": "1"}
    for path in told["excludes"]:  # nothing that a sweep reads
        assert not path.startswith(("/rllib_odac", "/tune_configs"))
