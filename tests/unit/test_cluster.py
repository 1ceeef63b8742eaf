"""What a run asks Ray for, and whether a cluster can ever hold it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_odac.runtime.cluster import (
    ROOM_TIMEOUT,
    Processes,
    address_to_join,
    can_be_placed,
    has_node_types,
    join_or_start,
    num_cpus,
    own_process,
    processes,
    room_timeout_s,
)
from tests.conftest import small_config


def kind(count, **resources):
    return Processes("num_learners", count, resources)


def told(config):
    return {each.setting: (each.count, each.reserved) for each in processes(config)}


def test_one_process_starts_no_others():
    assert processes(small_config()) == []
    assert own_process(small_config()).reserved == {"CPU": 1}


def test_each_kind_reserves_what_its_settings_say():
    config = small_config().env_runners(
        num_env_runners=3, num_cpus_per_env_runner=0.5, custom_resources_per_env_runner={"arm": 1}
    )
    config.evaluation(evaluation_num_env_runners=2).learners(num_learners=2)
    assert told(config) == {
        "num_env_runners": (3, {"CPU": 0.5, "arm": 1}),
        "evaluation_num_env_runners": (2, {"CPU": 0.5, "arm": 1}),
        "num_learners": (2, {"CPU": 1}),
    }
    assert num_cpus(processes(config)) == 5  # 4.5
    config.learners(num_gpus_per_learner=1)  # a GPU's learner takes no CPU unless told to
    assert told(config)["num_learners"] == (2, {"GPU": 1})
    config.learners(num_cpus_per_learner=4)
    assert told(config)["num_learners"] == (2, {"CPU": 4, "GPU": 1})


def test_a_local_learner_reserves_its_gpu_with_its_own_process():
    config = small_config(num_gpus_per_learner=1)
    assert processes(config) == []
    assert own_process(config).reserved == {"CPU": 1, "GPU": 1}


@pytest.mark.parametrize(
    ("wanted", "nodes", "fits"),
    [
        ([], [], True),
        ([kind(3)], [], True),  # what reserves nothing
        ([kind(2, CPU=1)], [{"CPU": 1.0}, {"CPU": 1.0, "memory": 5.0}], True),
        ([kind(3, CPU=1)], [{"CPU": 2.0}], False),
        ([kind(3, CPU=0.1)], [{"CPU": 0.3}], True),  # as Ray counts, not as floats do
        ([kind(1, CPU=2)], [{"CPU": 1.0}, {"CPU": 1.0}], False),  # no process spans two nodes
        ([kind(3, CPU=2)], [{"CPU": 3.0}, {"CPU": 3.0}], False),
        ([kind(1, GPU=1)], [{"CPU": 64.0}], False),
        # The only way puts the GPU's process on the one node that could hold both others.
        ([kind(1, CPU=2, GPU=1), kind(2, CPU=2)], [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}], True),
        ([kind(1, CPU=3, GPU=1), kind(2, CPU=2)], [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}], False),
    ],
)
def test_what_fits_on_nodes(wanted, nodes, fits):
    assert can_be_placed(wanted, nodes) == fits


amounts = st.fixed_dictionaries(
    {"CPU": st.sampled_from([0, 0.5, 1, 1.5, 2, 3]), "GPU": st.sampled_from([0, 0, 1])}
)


def by_trying_everything(wanted, nodes):
    """Whether any way of giving every process a node exceeds none of them."""
    each = [kind.resources for kind in wanted for _ in range(kind.count)]
    return any(
        all(
            sum(need[name] for need, place in zip(each, places, strict=True) if place == i)
            <= node[name]
            for i, node in enumerate(nodes)
            for name in node
        )
        for places in itertools.product(range(len(nodes)), repeat=len(each))
    )


@settings(deadline=None)
@given(
    wanted=st.lists(st.builds(Processes, st.just("x"), st.integers(1, 2), amounts), max_size=3),
    nodes=st.lists(amounts, max_size=3),
)
def test_placing_agrees_with_trying_everything(wanted, nodes):
    some = [each for each in wanted if each.reserved]
    assert can_be_placed(wanted, nodes) == by_trying_everything(some, nodes)


def test_a_large_cluster_is_placed():
    wanted = [kind(500, CPU=1), kind(16, CPU=2, GPU=1), kind(20, CPU=1)]
    nodes = [{"CPU": 8.0}] * 65 + [{"CPU": 16.0, "GPU": 8.0}] * 2
    assert can_be_placed(wanted, nodes)
    assert not can_be_placed(wanted, [*nodes[1:], {"CPU": 7.0}])


@pytest.mark.parametrize(
    ("report", "grows"),
    [
        (None, False),  # the first seconds of a cluster
        (b'{"autoscaler_report": null}', False),
        # As Ray 2.60 reports on a cluster put together by hand, and on one that it scales.
        (b'{"autoscaler_report": {"node_type_mapping": {"216f62": "node_216f62"}}}', False),
        (b'{"autoscaler_report": {"node_type_mapping": {"head": "ray.head.default"}}}', True),
    ],
)
def test_which_cluster_may_grow(report, grows):
    assert has_node_types(report) == grows


@pytest.mark.parametrize("told", ["soon", "0", "-1", "nan"])
def test_the_time_for_room_is_a_positive_number_of_seconds(told, monkeypatch):
    monkeypatch.setenv(ROOM_TIMEOUT, told)
    words = rf"^ODAC_ROOM_TIMEOUT_S is '{told}'; it must be a positive number of seconds\.$"
    with pytest.raises(ValueError, match=words):
        room_timeout_s()


@pytest.mark.parametrize(("told", "seconds"), [("", 1800.0), ("90", 90.0)])
def test_the_time_for_room(told, seconds, monkeypatch):
    monkeypatch.setenv(ROOM_TIMEOUT, told)
    assert room_timeout_s() == seconds


def test_which_cluster_is_joined(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_to_join() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as in a job that was submitted
    assert address_to_join() == "10.0.0.1:6379"
    assert address_to_join("10.0.0.2:6379") == "10.0.0.2:6379"
    assert address_to_join("local") is None


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no cluster", "127.0.0.1", "nowhere.invalid:1"])
def test_an_address_without_a_cluster_is_refused(address):
    with pytest.raises(ValueError, match=rf"^address is '{address}', .* must be HOST:PORT"):
        join_or_start(address)
