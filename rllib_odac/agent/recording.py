"""What PyTorch's operations do, seen from below: where the host waits, and how to do it again.

Both are dispatch modes: they see every operation of a pass, those of the backward pass included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

Result = TypeVar("Result")
_READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds operations that keep a pass from being captured, and counts what it allocates.

    Attributes:
        found: The operations at which a GPU's host waits, whose result has a shape that depends on
            data, or that copy from one device to another; in order.
        operations: Number of operations that are no views.
        allocated: Number of tensors with memory of their own that were made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.operations = 0
        self.allocated = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        if _is_read(func, inputs, outputs):
            self.found.append(str(func))
        made = _made(inputs, outputs)
        self.allocated += len(made)
        self.operations += bool(made) or func._schema.is_mutable
        return result


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Repeats operations on the tensors of the first time, as a CUDA graph does.

    What is no operation on tensors, such as a number that Python computed, is repeated as it was.
    It takes several times the memory of a pass, and is for the CPU, where it shows what a graph
    would do.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Callable[..., Any], Sequence[Any], Any, list[Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = _made(_tensors((args, kwargs)), _tensors(result))
        if made or func._schema.is_mutable:
            self._calls.append((func, args, kwargs, tree_flatten(result)[0] if made else []))
        return result

    def record(self, work: Callable[[], Result]) -> Result:
        """Does the work, and remembers it; nothing of it is compiled."""
        with torch.compiler.set_stance("force_eager"), self:
            return work()

    @torch.no_grad()
    def replay(self) -> None:
        """Does it again: what it made then holds what it makes now."""
        for func, args, kwargs, before in self._calls:
            now = func(*args, **kwargs)
            for old, new in zip(before, tree_flatten(now)[0] if before else (), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _made(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs that share no memory with an input."""
    known = {tensor.untyped_storage()._cdata for tensor in inputs}
    return [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in known]


def _is_read(func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    name = func.overloadpacket.__name__
    if name in _INDEXING:  # tagged, but only masks have to be counted
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in inputs[1:])
    # Other operations take a number on the CPU as an argument, without a copy.
    is_copy = name in ("_to_copy", "copy_")
    tensors = [each for each in (*inputs, *outputs) if is_copy or each.dim() or each.is_cuda]
    return bool(_READS & set(func.tags)) or len({each.device for each in tensors}) > 1
