"""What a call does, counted: ATen operations, new storage, and what autograd keeps. The same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(slots=True)
class CallCounts:
    """Operations by name (views are none), and bytes of the storages that they made."""

    names: list[str] = field(default_factory=list)
    materialised_bytes: int = 0

    @property
    def operations(self) -> int:
        return len(self.names)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = CallCounts()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, object] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        made = {_storage(tensor): tensor for tensor in _tensors(result)}
        new = {key: tensor for key, tensor in made.items() if key not in given}
        if new or func._schema.is_mutable:
            self.counts.names.append(str(func.overloadpacket).removeprefix("aten."))
            self.counts.materialised_bytes += sum(_bytes(tensor) for tensor in new.values())
        return result


def count(call: Callable[[], object]) -> CallCounts:
    """Count the ATen operations of one call and the bytes it allocates for their results."""
    with _Counter() as counter:
        call()
    return counter.counts


def saved_bytes(forward: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, beyond tensors that live anyway (inputs, parameters)."""
    known = {_storage(tensor) for tensor in held}
    kept: dict[Any, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in known:
            kept[_storage(tensor)] = _bytes(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = forward()
    del alive
    return sum(kept.values())


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> Any:
    # Tensors in a library's own layout have no storage that could be asked for.
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    if tensor.is_mkldnn:
        return tensor.numel() * tensor.element_size()
    return int(tensor.untyped_storage().nbytes())
