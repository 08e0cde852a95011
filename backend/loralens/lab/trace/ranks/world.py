"""A process group of which only one rank runs: collectives answer at once, and what they would have sent is written down.

Everything that is allocated for them is the library's own and is followed like all else. Streams and events do nothing:
FSDP2 orders its frees by references, never by streams, so lifetimes are those of the references.

Source: torch 2.13 testing/_internal/distributed/fake_pg.py (backend "fake"); distributed/fsdp/_fully_shard/_fsdp_param.py
(`alloc_storage`, `free_storage` resize storages, which no operator shows); distributed/tensor/_sharding_prop.py (DTensor runs
operators on tensors of the whole size to learn shapes: no allocation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.utils._pytree as pytree
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.fsdp._fully_shard import _fsdp_param, _fsdp_param_group
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.testing._internal.distributed.fake_pg import FakeStore

from loralens.lab.trace.ledger import TraceLedger

KINDS: Final = {
    "_allgather_base_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce",
    "all_reduce": "all_reduce",
    "alltoall_base_": "all_to_all",
    "all_to_all_single": "all_to_all",
    "send": "send",
    "recv_": "receive",
}
Sent = dict[str, list[int]]
"""`phase.kind`: calls, and bytes of the largest tensor of each, results included."""


class _Nothing:
    """A stream, an event or a device handle: whatever is called answers with another one."""

    device_type, device_index, stream_id, priority, cuda_stream = 1, 0, 0, 0, 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None: ...


class RankLedger(TraceLedger):
    """The ledger of one rank: local tensors alone are booked, and collectives are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: Sent = {}
        self.paused = False
        self.overrides[torch.ops.aten.index_put.default] = _added_in_place
        self.overrides[torch.ops._c10d_functional.wait_tensor.default] = _same

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        if any(issubclass(kind, (DTensor, AsyncCollectiveTensor)) for kind in types):
            return NotImplemented  # they unwrap themselves, and their local tensors come here
        given = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if given and not any(isinstance(one, FakeTensor) for one in given):  # a mesh reads its ranks
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        result = super().__torch_dispatch__(func, types, args, kwargs)
        kind = KINDS.get(func._schema.name.rpartition("::")[2])
        if kind is not None and "c10d" in func.namespace:
            sums = self.sent.setdefault(f"{self.phase}.{kind}", [0, 0])
            sums[0] += 1
            sums[1] += max(_sizes((args, result)), default=0)
        return result

    def resized(self, storage: torch.UntypedStorage, label: str) -> None:
        """A storage got or lost its bytes, without an operator."""
        key, size = storage._cdata, storage.size()
        entry = self._live.get(key)
        if entry is not None and self.storages[entry[0]].size_bytes == size:
            return
        if entry is not None:
            self._release(key, entry[0])
        if size:
            index = self._append(size, label, (size,), "uint8")
            self._follow(key, index, storage)


def _added_in_place(
    func: Any, target: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False
) -> Any:
    """What backward of an index does on a card; a fake tensor gets a second result in its place.

    Source: aten/src/ATen/native/TensorAdvancedIndexing.cpp, `index_backward` (`areAnyTensorSubclassLike`).
    """
    return target.index_put_(indices, values, True) if accumulate else func(target, indices, values)


def _same(_func: Any, tensor: torch.Tensor) -> torch.Tensor:
    """Waiting returns what it waited for (csrc/distributed/c10d/Functional.cpp, `wait_tensor`); a fake tensor gets a copy."""
    return tensor


def _sizes(given: Any) -> Iterator[int]:
    if isinstance(given, torch.Tensor):
        yield given.numel() * given.element_size()
    elif isinstance(given, (list, tuple)):
        for each in given:
            yield from _sizes(each)


@contextmanager
def world(gpus: int, rank: int, ledger: RankLedger) -> Iterator[None]:
    """While it lasts this process is `rank` of so many."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=gpus)
    try:
        with ExitStack() as stack:
            for where, name, answer in _answers(ledger):
                stack.enter_context(_replaced(where, name, answer))
            yield
    finally:
        dist.destroy_process_group()


def _answers(ledger: RankLedger) -> Iterator[tuple[Any, str, Any]]:
    for name in ("Stream", "Event", "current_stream", "stream", "default_stream"):
        yield torch.cuda, name, _Nothing
    yield torch.accelerator, "current_stream", _Nothing
    for module in (_fsdp_param, _fsdp_param_group):
        for name in ("alloc_storage", "free_storage"):
            if hasattr(module, name):
                yield module, name, _noted(getattr(_fsdp_param, name), ledger)
    propagate = ShardingPropagator._propagate_tensor_meta_non_cached

    def quietly(self: Any, *args: Any) -> Any:
        before, ledger.paused = ledger.paused, True
        try:
            return propagate(self, *args)
        finally:
            ledger.paused = before

    yield ShardingPropagator, "_propagate_tensor_meta_non_cached", quietly


def _noted(resize: Callable[[torch.Tensor], None], ledger: RankLedger) -> Callable[[torch.Tensor], None]:
    def noted(tensor: torch.Tensor) -> None:
        resize(tensor)
        ledger.resized(tensor.untyped_storage(), resize.__name__)

    return noted


@contextmanager
def _replaced(where: Any, name: str, answer: Any) -> Iterator[None]:
    before = getattr(where, name)
    setattr(where, name, answer)
    try:
        yield
    finally:
        setattr(where, name, before)
