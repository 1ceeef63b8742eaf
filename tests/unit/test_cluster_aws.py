"""cluster/aws.yaml through Ray's own launcher, on moto's EC2 and IAM, which ask for permissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
import yaml
from moto.core.authorization import enable_iam_authentication
from moto.iam.access_control import IAMPolicy, PermissionResult
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).parents[2] / "cluster"
ACCOUNT = "123456789012"
POLICY = (CLUSTER / "aws-head-policy.json").read_text()
# What Ray attaches to the role that it makes for a head without a profile.
OF_RAY = ("AmazonEC2FullAccess", "AmazonS3FullAccess")


@pytest.fixture
def amazon(tmp_path, monkeypatch):
    """An account with the roles and profiles that README.md asks for."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray puts its key
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        iam = boto3.client("iam")
        for name in ("odac-head", "odac-node"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        iam.put_role_policy(RoleName="odac-head", PolicyName="nodes", PolicyDocument=POLICY)
        yield iam


def bootstrapped() -> dict[str, Any]:
    """The configuration as `ray up` writes it onto the head."""
    text = (CLUSTER / "aws.yaml").read_text().replace("ACCOUNT", ACCOUNT)
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return bootstrap_aws(config)


def provider_on_the_head(config: dict[str, Any]) -> AWSNodeProvider:
    """Ray's provider with the rights of the head's role, as its autoscaler has it."""
    role = f"arn:aws:iam::{ACCOUNT}:role/odac-head"
    told = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="head")["Credentials"]
    credentials = {
        "aws_access_key_id": told["AccessKeyId"],
        "aws_secret_access_key": told["SecretAccessKey"],
        "aws_session_token": told["SessionToken"],
    }
    return AWSNodeProvider(config["provider"] | {"aws_credentials": credentials}, "odac")


def create(provider: AWSNodeProvider, config: dict[str, Any], kind: str) -> list[str]:
    """Creates a node as the launcher does; gives its id."""
    node = config["available_node_types"][kind]["node_config"]
    tags = {"ray-node-kind": "head" if kind == "head" else "worker", "ray-user-node-type": kind}
    return list(provider.create_node(node, tags, 1))


def described(node: str) -> dict[str, Any]:
    [reservation] = boto3.client("ec2").describe_instances(InstanceIds=[node])["Reservations"]
    [instance] = reservation["Instances"]
    return instance


def profile_and_market(node: str) -> tuple[str, str]:
    instance = described(node)
    profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    return profile, instance.get("InstanceLifecycle", "on demand")


def test_ray_up_makes_a_key_a_closed_network_and_the_head(amazon, tmp_path):
    config = bootstrapped()
    key = Path(config["auth"]["ssh_private_key"])
    assert key.parent == tmp_path / ".ssh"
    assert key.stat().st_mode & 0o777 == 0o600
    ec2 = boto3.client("ec2")
    [head] = create(AWSNodeProvider(config["provider"], "odac"), config, "head")
    assert profile_and_market(head) == ("odac-head", "on demand")
    assert described(head)["KeyName"] == key.stem
    [group] = [each["GroupId"] for each in described(head)["SecurityGroups"]]
    [rules] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    open_to_the_world = {r.get("FromPort") for r in rules["IpPermissions"] if r["IpRanges"]}
    assert open_to_the_world == {22}
    subnets = {
        tuple(node["node_config"]["SubnetIds"]) for node in config["available_node_types"].values()
    }
    assert len(subnets) == 1  # nodes that do not share a network cannot talk
    names = {each["RoleName"] for each in amazon.list_roles()["Roles"]}
    assert names == {"odac-head", "odac-node"}  # Ray makes none of its own


def test_the_head_starts_and_ends_every_kind_of_worker_with_its_own_rights(amazon):
    config = bootstrapped()
    provider = provider_on_the_head(config)
    started = {}
    with enable_iam_authentication():
        for kind in ("cpu_worker", "gpu_worker"):
            [started[kind]] = create(provider, config, kind)
        workers = provider.non_terminated_nodes({"ray-node-kind": "worker"})
        assert sorted(workers) == sorted(started.values())
        provider.set_node_tags(workers[0], {"ray-node-status": "up-to-date"})
    assert profile_and_market(started["cpu_worker"]) == ("odac-node", "spot")
    assert profile_and_market(started["gpu_worker"]) == ("odac-node", "on demand")
    with enable_iam_authentication():
        provider.terminate_nodes(workers)
        assert provider.non_terminated_nodes({}) == []


def permits(policy: str, action: str, resource: str, values: dict[str, str] | None = None) -> bool:
    result = IAMPolicy(policy).is_action_permitted(
        action, resource, incoming_condition_values=values
    )
    return result is PermissionResult.PERMITTED


def test_the_head_may_pass_the_role_of_its_workers_which_rays_own_may_not(amazon):
    nodes = bootstrapped()["available_node_types"]
    workers = {name: node["node_config"] for name, node in nodes.items() if name != "head"}
    [profile] = {w["IamInstanceProfile"]["Arn"].rpartition("/")[2] for w in workers.values()}
    [role] = amazon.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    of_ray = []
    for name in OF_RAY:
        arn = f"arn:aws:iam::aws:policy/{name}"
        version = amazon.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = amazon.get_policy_version(PolicyArn=arn, VersionId=version)
        of_ray.append(json.dumps(document["PolicyVersion"]["Document"]))
    assert permits(POLICY, "iam:PassRole", role["Arn"])
    assert not any(permits(each, "iam:PassRole", role["Arn"]) for each in of_ray)
    assert not permits(POLICY, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/administrator")


def test_the_head_may_resolve_the_base_image_of_all_nodes():
    nodes = yaml.safe_load((CLUSTER / "aws.yaml").read_text())["available_node_types"]
    [image] = {node["node_config"]["ImageId"] for node in nodes.values()}
    prefix, _, parameter = image.partition("resolve:ssm:")
    assert not prefix
    arn = f"arn:aws:ssm:us-west-2::parameter{parameter}"
    assert permits(POLICY, "ssm:GetParameters", arn)
    assert not permits(POLICY, "ssm:GetParameters", f"arn:aws:ssm:us-west-2:{ACCOUNT}:parameter/x")


def test_the_head_may_start_the_account_s_first_spot_node():
    role = (
        f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    )
    asked = ("iam:CreateServiceLinkedRole", role)
    assert permits(POLICY, *asked, {"iam:AWSServiceName": "spot.amazonaws.com"})
    assert not permits(POLICY, *asked, {"iam:AWSServiceName": "eks.amazonaws.com"})
