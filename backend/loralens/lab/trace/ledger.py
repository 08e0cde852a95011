"""The ledger: every storage on the fake GPU from the operator that made it to the moment it was released."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDING_BYTES = 512  # the caching allocator's smallest block (kMinBlockSize, c10/cuda/CUDACachingAllocator.cpp)


@dataclass(slots=True)
class TracedStorage:
    """One storage: how large, what made it, when and for which module."""

    index: int
    size_bytes: int
    kind: str
    phase: str
    op: str
    owner: str
    shape: tuple[int, ...]
    dtype: str
    recomputed: bool = False

    @property
    def rounded_bytes(self) -> int:
        """What the caching allocator hands out for it."""
        return -(-self.size_bytes // ROUNDING_BYTES) * ROUNDING_BYTES


WeightRow = tuple[str, tuple[int, ...], bool]
"""A parameter's name, its shape (before packing), and whether it trains."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a finished ledger holds: see `TraceLedger`."""

    storages: list[TracedStorage]
    events: list[int]
    marks: list[tuple[str, int]]
    parameters: list[WeightRow] = field(default_factory=list)


class Owners:
    """Which module an operator works for: the innermost running forward, or the forward that made a backward node."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.running: list[str] = []
        self.inside: list[torch.nn.Module] = []  # the modules behind those names
        self.of_node: dict[int, str] = {}
        self._handles: list[Any] = []

    def follow(self, model: torch.nn.Module) -> None:
        """Watch every forward of this model's modules."""
        self.names = {id(module): name for name, module in model.named_modules()}
        register = torch.nn.modules.module
        self._handles = [
            register.register_module_forward_pre_hook(self._enter),
            register.register_module_forward_hook(self._leave, always_call=True),
        ]

    def stop(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _enter(self, module: torch.nn.Module, _inputs: Any) -> None:
        self.running.append(self.names.get(id(module), ""))
        self.inside.append(module)

    def _leave(self, _module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
        if self.running:
            self.running.pop()
            self.inside.pop()

    def current(self, phase: str) -> str:
        """The owner of the operator that runs now."""
        if self.running:
            owner = self.running[-1]
        elif phase == "backward":
            node = torch._C._current_autograd_node()
            return self.of_node.get(node._sequence_nr(), "") if node is not None else ""
        else:
            owner = ""
        if phase != "backward":
            # the node was numbered just before its operator ran; later operators without a node must not take it over
            self.of_node.setdefault(torch.autograd._get_sequence_nr() - 1, owner)  # type: ignore[attr-defined]
        return owner


_ADD = torch.ops.aten.add.Tensor
_SCATTER_ADD = torch.ops.aten.scatter_add.default
_TENSOR_REFERENCES, _STORAGE_REFERENCES = 4, 2  # of a tensor that only the engine holds, seen from a dispatch mode


def sole_owner(tensor: torch.Tensor) -> bool:
    """Whether a tensor and its storage are referred to by the caller alone."""
    storage = tensor.untyped_storage()
    in_storage = torch._C._storage_Use_Count(storage._cdata)
    return in_storage == _STORAGE_REFERENCES and tensor._use_count() == _TENSOR_REFERENCES  # type: ignore[attr-defined]


def _called_from_engine() -> bool:
    """Whether the operator was called by the engine, and not by a module that runs again or a Python backward."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_code.co_name in ("_fn", "inner"):  # torch's wrapper of every dispatch
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_engine_run_backward"


def _node_number() -> int:
    node = torch._C._current_autograd_node()
    return -1 if node is None else node._sequence_nr()


class TraceLedger(TorchDispatchMode):
    """Log each storage's birth (an operator returns one not seen before) and death (its last reference goes)."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "setup"
        self.kind: str | None = None
        self.owner: str | None = None
        self.owners = Owners()
        self.storages: list[TracedStorage] = []
        self.events: list[int] = []  # index + 1 when born, -(index + 1) when released
        self.marks: list[tuple[str, int]] = []  # a phase and the event at which it begins
        self.parameters: list[WeightRow] = []
        self.overrides: dict[Any, Callable[..., Any]] = {}
        self.workspaces: dict[Any, Callable[..., Iterable[int]]] = {}
        self._live: dict[int, tuple[int, Any]] = {}
        self._node_of: dict[int, int] = {}  # backward's storages: the node that was running

    def recorded(self) -> Recorded:
        """What is left when the tensors are gone."""
        return Recorded(self.storages, self.events, self.marks, self.parameters)

    def begin(self, phase: str) -> None:
        """A new phase starts here."""
        self.phase = phase
        self.marks.append((phase, len(self.events)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        override = self.overrides.get(func)
        if func is _ADD and self.phase == "backward" and self._sums_gradients(args, kwargs):
            result = args[0].add_(args[1])
        elif func is _SCATTER_ADD and self.phase == "backward" and _called_from_engine():
            # gather's backward, which adds into its zeros but for tensors of a subclass (FunctionsManual, `gather_backward`)
            result = args[0].scatter_add_(*args[1:])
        elif override is not None:
            result = override(func, *args, **kwargs)
        else:
            result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            self._book(result, func)
        elif isinstance(result, (tuple, list)):
            for item in result:
                if isinstance(item, torch.Tensor):
                    self._book(item, func)
                elif isinstance(item, (tuple, list)):
                    for inner in item:
                        if isinstance(inner, torch.Tensor):
                            self._book(inner, func)
        workspace = self.workspaces.get(func)
        if workspace is not None:
            self._borrow(func, workspace(*args, **kwargs))
        return result

    @contextmanager
    def naming(self, kind: str, owner: str = "") -> Iterator[None]:
        """Give everything that is born inside this kind and owner (a weight, a buffer, an optimizer's state)."""
        before = self.kind, self.owner
        self.kind, self.owner = kind, owner
        try:
            yield
        finally:
            self.kind, self.owner = before

    def _sums_gradients(self, args: Any, kwargs: Any) -> bool:
        """Whether this is the engine adding a second gradient of one tensor to the first, and would do so in place.

        On a card the engine adds into the first gradient when nothing else refers to it; with any Python mode active
        it makes a new tensor instead (torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`, torch 2.13).
        The engine calls from C++, so no Python frame but its own lies below; the first gradient is another node's.
        """
        first, second = args
        if kwargs or not isinstance(second, torch.Tensor) or first.shape != second.shape:
            return False
        if first.device.type != "cuda" or not _called_from_engine():
            return False
        entry = self._live.get(first.untyped_storage()._cdata)
        if entry is None or self.storages[entry[0]].phase != "backward":
            return False
        if self._node_of.get(entry[0]) == _node_number():
            return False
        return sole_owner(first) and torch.ops.aten.is_non_overlapping_and_dense.default(first)

    def live_index(self, tensor: torch.Tensor) -> int | None:
        """The storage's place in the ledger, or None when it is not booked."""
        entry = self._live.get(tensor.untyped_storage()._cdata)
        return None if entry is None else entry[0]

    def _book(self, tensor: torch.Tensor, op: Any) -> None:
        if tensor.device.type != "cuda":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        index = self._append(storage.nbytes(), str(op), tuple(tensor.shape), str(tensor.dtype)[6:])
        if self.phase == "backward":
            self._node_of[index] = _node_number()
        self._follow(key, index, storage)

    def _follow(self, key: int, index: int, storage: torch.UntypedStorage) -> None:
        """Book the storage's release when its last reference goes, unless it is booked before."""

        def released(_: object) -> None:
            if self._live.get(key, (None,))[0] == index:
                self._release(key, index)

        self._live[key] = (index, weakref.ref(storage, released))

    def _append(self, size: int, op: str, shape: tuple[int, ...], dtype: str) -> int:
        index = len(self.storages)
        owner = self.owner or self.owners.current(self.phase)
        again = self.phase == "backward" and bool(self.owners.running)  # a forward runs again inside backward
        self.storages.append(TracedStorage(index, size, self.kind or "", self.phase, op, owner, shape, dtype, again))
        self.events.append(index + 1)
        return index

    def _release(self, key: int, index: int) -> None:
        del self._live[key]
        self.events.append(-(index + 1))

    def _borrow(self, op: Any, sizes: Iterable[int]) -> None:
        """Scratch that a kernel allocates beside its result and gives back before it returns."""
        kind, self.kind = self.kind, "workspace"
        taken = [self._append(size, f"{op} (scratch)", (size,), "uint8") for size in sizes if size]
        self.kind = kind
        self.events.extend(-(index + 1) for index in taken)
