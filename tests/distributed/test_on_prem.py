"""`ray up cluster/on-prem.yaml` as README.md has it, onto machines made of this one's namespaces.

Each machine has a network, processes and files of its own (an overlay over this one's), and sshd.
There is no Docker in them: what its `--env` says stands in ~/.bashrc, and the checkout where the
image has it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import starts_trials

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "cluster" / "on-prem.yaml").read_text())
HEAD = CONFIG["provider"]["head_ip"]
WORKER = CONFIG["provider"]["worker_ips"][0]
LAPTOP = "192.0.2.2"
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
TOOLS = ("unshare", "ip", "ssh", "sshd", "ssh-keygen", "rsync")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def why_not() -> str:
    """What this machine lacks for machines of its own, or nothing."""
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]:
        return f"needs {' and '.join(missing)}"
    try:
        bridge = ["ip", "link", "add", "lan", "type", "bridge"]
        subprocess.run([*NAMESPACES, *bridge], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        return "needs the right to make namespaces and bridges, as root has it"
    return ""


REASON = why_not()
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    starts_trials,
    pytest.mark.skipif(bool(REASON), reason=REASON),
    pytest.mark.timeout(360),
]

# A network with the machines on it, which all end with this process.
NETWORK = """
set -eu
ip link add lan type bridge
ip link set lan up
for each in laptop:$LAPTOP head:$HEAD worker:$WORKER; do
    name=${each%:*}
    unshare --net --mount --pid --fork --kill-child bash machine.sh $name ${each#*:} &
    until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.1; done
    ip link add of-$name type veth peer name eth0 netns $!
    ip link set of-$name master lan up
done
wait -n # the laptop ends first, or what fails
"""

# One machine: the files of this one, with changes kept in memory, an empty /tmp, and /nfs/odac.
MACHINE = """
set -eu
name=$1 address=$2
until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip address add $address/24 dev eth0
ip link set eth0 up
ip route add default dev eth0 # by which Ray finds its own address; nothing else is there
mkdir $name
mount -t tmpfs memory $name
mkdir $name/changes $name/work $name/files
mount -t overlay files -o lowerdir=/,upperdir=$name/changes,workdir=$name/work $name/files
cd $name/files
mount -t proc proc proc
mount --rbind /dev dev
for each in dev/shm tmp run; do mount -t tmpfs memory $each; done
mkdir -p run/sshd nfs/odac
mount --bind $DIRECTORY/nfs nfs/odac
for each in $CHECKOUT $ENVIRONMENT; do # which lie in /tmp, or on a disk of their own
    [ -e .$each/bin ] || [ -e .$each/cluster ] || { mkdir -p .$each; mount --rbind $each .$each; }
done
cp -r $DIRECTORY/home-$name home/ray
ln -s $CHECKOUT home/ray/rllib_odac
chown -R 0:0 home/ray
chmod -R go-rwx home/ray
sed -i "1i $USER_NAME:x:0:0::/home/ray:/bin/bash" etc/passwd # ssh takes the first of a number
[ $name != laptop ] || exec chroot . bash /home/ray/laptop.sh
exec chroot . /usr/sbin/sshd -D -e -h /home/ray/.ssh/host -o PermitRootLogin=yes -o UsePAM=no
"""

# What README.md says, from making a token on.
ON_THE_LAPTOP = """
set -eu
export HOME=/home/ray RAY_AUTH_MODE=token
. ~/.bashrc
cd ~
for each in $HEAD $WORKER; do
    until ssh-keyscan $each >/dev/null 2>&1; do sleep 0.5; done
done
ray get-auth-token --generate
ray up --yes --no-config-cache on-prem.yaml
ray dashboard on-prem.yaml &
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
until ray job list >/dev/null 2>&1; do sleep 1; done
ray job submit --working-dir job -- python job.py
ray job submit -- python tune_configs/sweep.py --smoke
RAY_AUTH_MODE=disabled ray job list && exit 1 || echo refused without a token
ray down --yes on-prem.yaml
"""

JOB = """
import json, os, socket, time
import ray
import rllib_odac

ray.init()
while not (cpus := ray.cluster_resources().get("CPU")):
    time.sleep(1)

@ray.remote(num_cpus=1)
def where():
    return ray.util.get_node_ip_address()

head = [node for node in ray.nodes() if "node:__internal_head__" in node["Resources"]][0]
found = {
    "driver": ray.util.get_node_ip_address(),
    "task": ray.get(where.remote()),
    "cpus of the head": head["Resources"].get("CPU", 0),
    "cpus": cpus,
    "package": rllib_odac.__file__,
}
with open(os.path.join(os.environ["ODAC_STORAGE"], "found.json"), "w") as file:
    json.dump(found, file)
"""


def without_docker(config: dict[str, Any]) -> dict[str, Any]:
    """The file with one worker, and no container to start on it."""
    provider = config["provider"] | {"worker_ips": [WORKER]}
    return {k: v for k, v in config.items() if k != "docker"} | {
        "provider": provider,
        "max_workers": 1,
    }


def exports() -> str:
    told = re.findall(r"--env (\S+)", " ".join(CONFIG["docker"]["run_options"]))
    path = f"PATH={Path(sys.executable).parent}:$PATH"
    return "".join(f"export {each}\n" for each in (path, *told))


@pytest.fixture
def directory(tmp_path):
    """Homes of the machines, the storage that they share, and the scripts."""
    (tmp_path / "nfs").mkdir()
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for name in ("laptop", "head", "worker"):
        home = tmp_path / f"home-{name}"
        (home / ".ssh").mkdir(parents=True)
        (home / ".bashrc").write_text(exports())
        shutil.copy(key, home / ".ssh" / ("id_ed25519" if name == "laptop" else "host"))
        shutil.copy(f"{key}.pub", home / ".ssh" / "authorized_keys")
    laptop = tmp_path / "home-laptop"
    (laptop / "job").mkdir()
    (laptop / "job" / "job.py").write_text(JOB)
    (laptop / "laptop.sh").write_text(ON_THE_LAPTOP)
    (laptop / "on-prem.yaml").write_text(yaml.safe_dump(without_docker(CONFIG)))
    (tmp_path / "machine.sh").write_text(MACHINE)
    return tmp_path


def test_ray_up_brings_the_cluster_up_and_a_sweep_runs_on_the_worker(directory):
    environment = {
        "PATH": PATH,
        "LAPTOP": LAPTOP,
        "HEAD": HEAD,
        "WORKER": WORKER,
        "DIRECTORY": str(directory),
        "CHECKOUT": str(ROOT),
        "ENVIRONMENT": sys.prefix,
        "USER_NAME": CONFIG["auth"]["ssh_user"],
    }
    with (directory / "log").open("w") as log:
        code = subprocess.call(
            ["timeout", "--kill-after=5", "300", *NAMESPACES, "bash", "-c", NETWORK],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    output = (directory / "log").read_text()
    assert code == 0, output
    assert "refused without a token" in output
    found = json.loads((directory / "nfs" / "found.json").read_text())
    assert found["driver"] == HEAD
    assert found["task"] == WORKER
    assert found["cpus of the head"] == 0
    assert found["cpus"] == os.cpu_count()
    assert Path(found["package"]).parents[1].resolve() == ROOT
    [report] = (directory / "nfs").glob("fetch_reach-*/results/report.html")  # of the sweep
    assert report.stat().st_size > 0
