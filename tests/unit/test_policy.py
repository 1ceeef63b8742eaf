"""A policy outside the trainer: loaded, exported, and the same as inside."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import textwrap

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from typer.testing import CliRunner

from rllib_odac import export_policy, goal_env, load_policy
from rllib_odac.cli import app
from rllib_odac.deploy import FORMATS, export
from rllib_odac.deploy.files import read_policy
from rllib_odac.deploy.spec import INPUTS
from rllib_odac.evaluation.checkpoint import CheckpointPolicy
from tests.conftest import small_config, start_ray

OTHER_PACKAGES = ["ray", "gymnasium", "gymnasium_robotics", "mujoco", "pandas", "matplotlib",
                  "typer", "rich", "yaml", "imageio"]  # fmt: skip


def make_pendulum(**kwargs):
    """Its actions have bounds other than one."""
    return goal_env(
        "Pendulum-v1",
        achieved_goal=slice(0, 2),
        desired_goal=gym.spaces.Box(-1, 1, (2,)),
        success_distance=0.1,
        max_episode_steps=40,
        **kwargs,
    )


@pytest.fixture(scope="module")
def checkpoints(ray_ends, tmp_path_factory):
    """Small trained checkpoints by the name of their environment."""
    start_ray()
    directory = tmp_path_factory.mktemp("checkpoints")
    envs = {"box": "odac/Box2D-v0", "pendulum": make_pendulum, "grid": "odac/GridWorld-v0"}
    for name, env in envs.items():
        layers = {} if name == "box" else {"layer_norm": "all"}
        if name == "pendulum":
            layers |= {"fourier_features": 8}
        algorithm = small_config(**layers).environment(env).build_algo()
        algorithm.train()
        assert algorithm.updates > 0
        algorithm.save_to_path(str(directory / name))
        algorithm.stop()
    return directory


@pytest.fixture(scope="module", params=["box", "pendulum", "grid"])
def checkpoint(request, checkpoints):
    return checkpoints / request.param


def states(checkpoint, number=64):
    """A batch of observations, some of them far outside of what was trained on."""
    spec, network = read_policy(checkpoint)
    return dict(zip(INPUTS, export.random_states(network, spec, number, seed=1), strict=True))


def rows(batch):
    return [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]


def test_it_acts_exactly_as_the_env_runner_does(checkpoint):
    policy, runner = load_policy(checkpoint), CheckpointPolicy(checkpoint, trust=True).runner
    actions = []
    for observation in rows(states(checkpoint)):
        wanted = runner.act(observation)
        action = policy(observation)
        assert action.dtype == wanted.dtype
        np.testing.assert_array_equal(action, wanted)
        actions.append(action)
    assert np.ptp(actions) > 0.01
    together = policy(states(checkpoint))
    np.testing.assert_allclose(together, actions, atol=1e-6)
    space = runner.env.single_action_space
    assert all(space.contains(action) for action in together)


def test_sampled_actions_are_the_env_runners_for_the_same_noise(checkpoint):
    batch = states(checkpoint)
    runner = CheckpointPolicy(checkpoint, trust=True).runner
    noise = np.random.default_rng(5).standard_normal(
        (64, runner.module.networks.action_dim), dtype=np.float32
    )
    obs = {name: torch.from_numpy(values) for name, values in batch.items()}
    inputs = {Columns.OBS: obs, "noise": torch.from_numpy(noise)}
    actions = runner.module.forward_exploration(inputs)[Columns.ACTIONS].numpy()
    wanted = runner._action_space.to_env(actions)
    np.testing.assert_array_equal(load_policy(checkpoint, sample=True, seed=5)(batch), wanted)
    drawn = load_policy(checkpoint, sample=True, seed=np.random.default_rng(5))
    np.testing.assert_array_equal(drawn(batch), wanted)
    assert not np.array_equal(drawn(batch), wanted)


@pytest.mark.parametrize("style", FORMATS)
def test_every_format_acts_as_the_checkpoint(checkpoint, tmp_path, style):
    out = tmp_path / "deep" / "policy.bin"
    assert 0 <= export_policy(checkpoint, out, style) <= 1e-5
    assert list(out.parent.iterdir()) == [out]
    exported, policy = load_policy(out), load_policy(checkpoint)
    assert exported.spec == policy.spec
    batch = states(checkpoint)
    half_range = np.ptp([policy.spec.spaces["action"].low, policy.spec.spaces["action"].high]) / 2
    for number in (1, 2, 64):
        part = {name: values[:number] for name, values in batch.items()}
        assert exported(part).shape == (number, *policy.spec.spaces["action"].shape)
        np.testing.assert_allclose(exported(part), policy(part), atol=1e-5 * half_range)
    single = rows(batch)[0]
    np.testing.assert_allclose(exported(single), policy(single), atol=1e-5 * half_range)
    with pytest.raises(ValueError, match="holds the deterministic actions only"):
        load_policy(out, sample=True)


def test_an_onnx_file_names_its_inputs_and_leaves_the_batch_open(checkpoint, tmp_path):
    import onnxruntime

    export_policy(checkpoint, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    sizes = load_policy(checkpoint).spec.spaces
    assert {i.name: i.shape for i in session.get_inputs()} == {
        name: ["batch", sizes[name].size] for name in INPUTS
    }
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("action", ["batch", sizes["action"].size])


def test_a_file_that_acts_otherwise_is_not_left(checkpoints, tmp_path, monkeypatch):
    def wrong(network, spec):
        other = copy.deepcopy(network)
        other.policy.net[-1].bias.add_(0.01)
        return exporter(other, spec)

    exporter = FORMATS["torchscript"]
    out = tmp_path / "policy.pt"
    out.write_text("what was there before")
    monkeypatch.setitem(FORMATS, "torchscript", wrong)
    with pytest.raises(ValueError, match=r"differs from the checkpoint's by .* was not written"):
        export_policy(checkpoints / "pendulum", out, "torchscript")
    assert out.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_sharp_policy_may_differ_by_its_own_rounding(checkpoints, tmp_path):
    policy = tmp_path / "policy"
    shutil.copytree(checkpoints / "box" / "policy", policy)
    with np.load(policy / "policy.npz") as stored:
        arrays = dict(stored)
    arrays["policy.net.0.weight"] *= 30
    arrays["policy.net.2.weight"] *= 30
    np.savez(policy / "policy.npz", **arrays)
    for style in FORMATS:
        assert export_policy(policy, tmp_path / style, style) < 1e-3
    (_, network), states_of = read_policy(policy), states(policy, 1000)
    rounding = network_act_error(network, states_of)
    assert 1e-5 < 4 * rounding < 1e-3  # or this test says nothing


def network_act_error(network, batch):
    tensors = [torch.from_numpy(values) for values in batch.values()]
    exact = copy.deepcopy(network).double()(*(tensor.double() for tensor in tensors))
    return float((network(*tensors) - exact).abs().max())


def test_neither_ray_nor_an_environment_is_needed(checkpoints, tmp_path):
    files = [checkpoints / "box"]
    for style in FORMATS:
        files.append(tmp_path / style)
        export_policy(checkpoints / "box", files[-1], style)
    code = f"""
        import sys

        sys.modules.update(dict.fromkeys({OTHER_PACKAGES}))  # as if they were not installed
        import numpy as np
        import rllib_odac
        assert "torch" not in sys.modules
        for path in {list(map(str, files))}:
            policy = rllib_odac.load_policy(path)
            spaces = policy.spec.spaces
            obs = {{name: np.zeros(box.shape) for name, box in spaces.items()}}
            assert policy(obs).shape == spaces["action"].shape
    """
    run(code)


def test_the_command_exports_without_ray(checkpoints, tmp_path):
    out = tmp_path / "policy.pt2"
    code = f"""
        import sys
        from rllib_odac.cli import app

        app({["export", str(checkpoints / "box"), "--format", "torch-export", "--out", str(out)]},
            standalone_mode=False)
        assert not {{"ray", "gymnasium_robotics"}} & set(sys.modules)
    """
    assert run(code).startswith(f"{out}  (1000 states, largest difference ")
    assert load_policy(out).spec.env == "odac/Box2D-v0"


def run(code):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"desired_goal": None}, "must hold .*, but 'desired_goal' is not in"),
        ({"observation": np.zeros(4)}, r"observation has shape \(4,\), but must have \(3,\), or"),
        ({"observation": 0.5}, r"observation has shape \(\), but must have \(3,\)"),
        ({"achieved_goal": np.zeros((5, 2))}, r"achieved_goal has shape \(5, 2\), but must have"),
        ({"observation": np.zeros((0, 3))}, r"observation has shape \(0, 3\)"),
        ({"observation": [0, np.nan, 0]}, "observation holds NaN or infinity, but every value"),
        ({"observation": [0, 1e300, 0]}, "observation holds NaN or infinity"),
        ({"achieved_goal": ["left", "right"]}, "achieved_goal is .* must be an array of numbers"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow")
def test_an_observation_that_makes_no_sense(checkpoints, change, sentence):
    policy = load_policy(checkpoints / "pendulum")
    observation = {"observation": np.zeros(3), "achieved_goal": [0, 1], "desired_goal": [1, 0]}
    policy(observation | {"image": None})  # what else there is does not matter
    changed = {k: v for k, v in (observation | change).items() if v is not None}
    with pytest.raises(ValueError, match=sentence):
        policy(changed)
    with pytest.raises(ValueError, match="The observation must hold"):
        policy(np.zeros(3))


def test_a_run_is_its_newest_whole_checkpoint(checkpoints, tmp_path):
    def put(path, env_steps, whole=True):
        shutil.copytree(checkpoints / "box" / "policy", path / "policy")
        spec = json.loads((path / "policy" / "policy.json").read_text()) | {"env_steps": env_steps}
        (path / "policy" / "policy.json").write_text(json.dumps(spec))
        if whole:
            (path / "odac.json").write_text(json.dumps({"env_steps": env_steps}))

    with pytest.raises(ValueError, match="holds no policy: it must be a checkpoint"):
        load_policy(tmp_path)
    put(tmp_path / "checkpoints" / "step_000000100", 100)
    put(tmp_path / "checkpoints" / "step_000000300.partial", 300)
    put(tmp_path / "checkpoints" / "step_000000400", 400, whole=False)
    assert load_policy(tmp_path).spec.env_steps == 100
    put(tmp_path / "checkpoint_final", 150)
    assert load_policy(tmp_path).spec.env_steps == 150
    put(tmp_path / "checkpoints" / "step_000000200", 200)
    assert load_policy(tmp_path).spec.env_steps == 200


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("policy.json", b"{", "holds no policy that can be read"),
        ("policy.json", b"[]", "holds no policy that can be read"),
        ("policy.json", b'{"version": 2}', "of version 2, but only version 1"),
        ("policy.json", b'{"version": 1}', "holds no policy that can be read: KeyError"),
        ("policy.npz", b"PK", "policy.npz' is damaged"),
        ("policy.npz", None, "policy.npz' is damaged"),
    ],
)
def test_a_damaged_policy(checkpoints, tmp_path, name, content, sentence):
    shutil.copytree(checkpoints / "box" / "policy", tmp_path / "policy")
    if content is None:
        (tmp_path / "policy" / name).unlink()
    else:
        (tmp_path / "policy" / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_policy(tmp_path)


def test_arrays_of_another_network(checkpoints, tmp_path):
    shutil.copytree(checkpoints / "box" / "policy", tmp_path / "policy")
    shutil.copy(checkpoints / "pendulum" / "policy" / "policy.npz", tmp_path / "policy")
    with pytest.raises(ValueError, match="damaged: The arrays do not fit the policy"):
        load_policy(tmp_path / "policy")


def test_what_cannot_be_exported_or_loaded(checkpoints, tmp_path, monkeypatch):
    box = checkpoints / "box"
    with pytest.raises(ValueError, match="format is 'tflite', but must be one of"):
        export_policy(box, tmp_path / "policy", "tflite")
    with pytest.raises(ValueError, match="is no directory"):
        export_policy(tmp_path / "nowhere", tmp_path / "policy")
    with pytest.raises(ValueError, match="There is no checkpoint"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="seed is 1, but sample is False"):
        load_policy(box, seed=1)
    shutil.copy(box / "odac.json", tmp_path)
    with pytest.raises(ValueError, match="restore it and save it again"):
        load_policy(tmp_path)
    result = CliRunner().invoke(app, ["export", str(tmp_path / "no"), "--out", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"error: '{tmp_path / 'no'}' is no directory; give a checkpoint or a run directory.\n"
    )
    (tmp_path / "text").write_text("no policy")
    with pytest.raises(ValueError, match=r"is no policy that `odac export` wrote"):
        load_policy(tmp_path / "text")
    with pytest.raises(ValueError, match=r"out is .* which cannot be written"):
        export_policy(box, tmp_path / "text" / "policy.onnx")
    export_policy(box, tmp_path / "policy.onnx")
    export_policy(box, tmp_path / "code.onnx", "torchscript")
    with pytest.raises(ValueError, match=r"it is called \.onnx, but is a file of TorchScript\.$"):
        load_policy(tmp_path / "code.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ValueError, match=r'needs the package .*: pip install "rllib-odac\[export\]'
    ):
        load_policy(tmp_path / "policy.onnx")
    monkeypatch.delitem(sys.modules, "rllib_odac.deploy.onnx_graph")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r'package .*: pip install "rllib-odac\[export\]'):
        export_policy(box, tmp_path / "other.onnx")
