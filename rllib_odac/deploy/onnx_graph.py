"""A policy as an ONNX graph, built node by node: a dozen operations need no tracing compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor, nn

from rllib_odac.agent.networks import FourierFeatures
from rllib_odac.deploy.network import PolicyNetwork
from rllib_odac.deploy.spec import ACTION, INPUTS, PolicySpec

OPSET = 17  # old enough for the runtimes that robots carry
IR_VERSION = 8
BATCH = "batch"


class _Graph:
    """Nodes and constants, each named when it is made."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
        self.constants.append(numpy_helper.from_array(array.astype(dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def onnx_model(network: PolicyNetwork, spec: PolicySpec, metadata: str) -> ModelProto:
    """The model of a policy: named float32 inputs (batch, D), (batch, G), (batch, G) and output.

    Args:
        network: The policy.
        spec: Its spaces.
        metadata: Name of the model's property that holds `spec` as JSON.
    """
    graph = _Graph()
    output = _actions(graph, network, _normalized_inputs(graph, network))
    graph.nodes.append(helper.make_node("Identity", [output], [ACTION]))
    output_type = TensorProto.FLOAT if network.choices is None else TensorProto.INT64
    inputs, outputs = (
        [
            helper.make_tensor_value_info(name, kind, [BATCH, spec.spaces[name].size])
            for name in names
        ]
        for names, kind in ((INPUTS, TensorProto.FLOAT), ((ACTION,), output_type))
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, "odac_policy", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="rllib_odac",
    )
    helper.set_model_props(model, {metadata: spec.to_json()})
    checker.check_model(model, full_check=True)
    return model


def _normalized_inputs(graph: _Graph, network: PolicyNetwork) -> str:
    """`networks.policy_inputs`."""
    observation, achieved_goal, goal = INPUTS
    normalizer = network.observation_normalizer
    scale = graph.constant(network.goal_scale)
    bounds = graph.constant(-normalizer.clip), graph.constant(normalizer.clip)
    parts = [
        (observation, graph.constant(normalizer.mean), graph.constant(normalizer.std)),
        (goal, graph.constant(network.goal_center), scale),
        (goal, achieved_goal, scale),
    ]
    normalized = [
        graph.add("Clip", graph.add("Div", graph.add("Sub", value, center), unit), *bounds)
        for value, center, unit in parts
    ]
    return graph.add("Concat", *normalized, axis=1)


def _actions(graph: _Graph, network: PolicyNetwork, hidden: str) -> str:
    """`PolicyNetwork.forward` from the normalised inputs on."""
    *layers, last = network.policy.net
    assert isinstance(last, nn.Linear)
    for layer in layers:
        match layer:
            case FourierFeatures():
                waves = graph.constant(layer.frequencies), graph.constant(layer.phases)
                sines = graph.add("Sin", graph.add("Gemm", hidden, *waves))
                hidden = graph.add("Concat", hidden, sines, axis=1)
            case nn.Linear():
                weights = graph.constant(layer.weight), graph.constant(layer.bias)
                hidden = graph.add("Gemm", hidden, *weights, transB=1)
            case nn.LayerNorm():
                gains = graph.constant(layer.weight), graph.constant(layer.bias)
                hidden = graph.add("LayerNormalization", hidden, *gains, epsilon=layer.eps)
            case nn.ReLU():
                hidden = graph.add("Relu", hidden)
    if network.choices is not None:
        logits = graph.add(
            "Gemm", hidden, graph.constant(last.weight), graph.constant(last.bias), transB=1
        )
        index = graph.add("ArgMax", logits, axis=1, keepdims=0)
        return graph.add("Gather", graph.constant(network.choices, np.int64), index, axis=0)
    action_dim = len(network.action_low)  # the other half of the outputs is the deviation
    weights = graph.constant(last.weight[:action_dim]), graph.constant(last.bias[:action_dim])
    actions = graph.add("Tanh", graph.add("Gemm", hidden, *weights, transB=1))
    if network.is_unit_box:
        return actions
    low, high = graph.constant(network.action_low), graph.constant(network.action_high)
    share = graph.add("Div", graph.add("Add", actions, graph.constant(1)), graph.constant(2))
    scaled = graph.add("Add", low, graph.add("Mul", share, graph.constant(network.action_range)))
    return graph.add("Min", graph.add("Max", scaled, low), high)
