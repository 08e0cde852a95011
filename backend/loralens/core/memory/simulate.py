"""A training process from loading to its third step, run through the simulated allocator.

What is asked for, in this order (each line is what PyTorch or the named library does, not a fit):
- weights one by one, each its own block; a weight that bitsandbytes packs stands in 16 bits beside its packed form while it is
  packed; weights that k-bit preparation raises to float32 are copied one by one once all are there;
- the adapter; DDP's buckets of 25 MiB (torch nn/parallel/distributed.py, `bucket_cap_mb`);
- cuBLAS's workspace at the first product, and another one for the thread that runs backward;
- forward and backward; in the first optimizer step its states, tensor by tensor; its temporaries; then gradients and batch go.
Leaves out: temporaries of the load phase beyond these, several streams (FSDP's gathering has one of its own), and everything
outside torch's pool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from loralens.core.memory import events
from loralens.core.memory.allocator import CachingAllocator
from loralens.core.memory.optimizer import OPTIMIZERS, Optimizer, Trained
from loralens.core.precision import ITEM_BYTES

if TYPE_CHECKING:
    from loralens.core.architecture.module import Parameter
    from loralens.core.memory.events import Events, MicroBatch
    from loralens.core.model import Model
    from loralens.core.recipe import Recipe

BUCKET: Final = 25 * 2**20
STEADY_STEPS: Final = 2  # after the first one; nothing changes after them with batches of one length
VARYING_STEPS: Final = 12  # assumption: so many batches of different lengths, the longest among them
SHORTEST: Final = 8  # assumption: the shortest batch has an eighth of the longest one's length
SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Simulation:
    """What one process's allocator came to. Bytes."""

    allocated_bytes: int  # peak, in blocks of 512 bytes, cuBLAS's workspaces included
    reserved_bytes: int  # peak
    held_bytes: int  # peak of what could not be returned to CUDA
    loaded_bytes: int  # reserved at the end of loading


class Process:
    """Sends a recorded program's requests to a memory: something with `allocate(bytes)` and `free(what it gave)`."""

    def __init__(self, program: Events, memory: Any, *, rank: int, workspace_bytes: int = 0) -> None:
        self._program = program
        self._memory = memory
        self._rank = rank
        self._workspaces = [workspace_bytes, workspace_bytes]  # forward's and backward's, until they are made
        self._has_states = False

    def load(self) -> None:
        """Weights, adapter, buckets."""
        program, sharding = self._program, self._program.sharding
        held_as = ITEM_BYTES[program.recipe.weights_dtype]
        raised = []
        for parameter in program.weights:
            if parameter.role == "adapter" or sharding.host_weights:
                continue
            size, values = self._share(self._bytes(parameter), sharding.weights), self._values(parameter)
            if parameter.packing is not None:
                self._pack(parameter, size, 0 if sharding.weights > 1 else values * held_as)
            elif size < values * ITEM_BYTES[parameter.dtype] or ITEM_BYTES[parameter.dtype] <= held_as:
                self._ask(size)
            else:
                raised.append((size, self._ask(values * held_as)))
        for size, before in raised:
            self._ask(size)
            self._give(before)
        self._ask(program.buffer_bytes)
        for parameter in program.weights:
            if parameter.role == "adapter" and not sharding.host_weights:
                self._ask(self._share(self._bytes(parameter), sharding.weights))
        if sharding.buckets:
            left = sum(self._bytes(parameter) for parameter in program.weights if parameter.trainable)
            while left > 0:
                self._ask(min(left, BUCKET))
                left -= BUCKET

    def step(self, batch: int, sequence: int) -> None:
        """One optimizer step on micro batches of this size."""
        program = self._program
        blocks = self._micro_batch(program.first, batch, sequence)
        if program.later is not None:
            again = self._micro_batch(program.later, batch, sequence)
            for number in program.later.alive:
                self._give(again[number])
        self._optimize()
        for number in program.first.alive:
            self._give(blocks[number])

    def _micro_batch(self, micro: MicroBatch, batch: int, sequence: int) -> list[Any]:
        requests = [0, *micro.requests(batch, sequence, self._rank)]
        blocks: list[Any] = [None] * len(requests)
        allocate, free = self._memory.allocate, self._memory.free
        for half, part in enumerate((micro.events[: micro.backward], micro.events[micro.backward :])):
            self._ask(self._workspaces[half])
            self._workspaces[half] = 0
            for event in part:
                if event > 0:
                    if requests[event]:
                        blocks[event] = allocate(requests[event])
                elif requests[-event]:
                    free(blocks[-event])
        return blocks

    def _optimize(self) -> None:
        program = self._program
        recipe, sharding = program.recipe, program.sharding
        optimizer = OPTIMIZERS[recipe.optimizer]
        trained = [self._trained(parameter) for parameter in program.weights if parameter.trainable]
        if sharding.host_states or not trained:
            return
        if not self._has_states:
            self._has_states = True
            self._states(optimizer, trained)
        if recipe.optimizer_in_backward:
            return
        if optimizer.step_each:
            parts = [self._share(tensor.bytes.at(1, 1, self._rank), sharding.states) for tensor in trained]
        else:
            parts = [self._share(optimizer.step(trained).at(1, 1, self._rank), sharding.states)]
        for block in [self._ask(part) for part in parts]:
            self._give(block)

    def _states(self, optimizer: Optimizer, trained: list[Trained]) -> None:
        sharding = self._program.sharding
        if self._program.recipe.autocast == "float16":
            self._ask(4)  # the gradient scaler's scale and growth counter
            self._ask(4)
        for tensor in trained:
            if sharding.master_weights and tensor.dtype != "float32":
                tensor = replace(tensor, dtype="float32")
                self._ask(self._share(tensor.bytes.at(1, 1, self._rank), sharding.states))
            total = self._share(optimizer.state(tensor).at(1, 1, self._rank), sharding.states)
            for size in optimizer.state_blocks(total):
                self._ask(size)
        self._ask(optimizer.tables_bytes)

    def _pack(self, parameter: Parameter, size: int, whole: int) -> None:
        """A packed weight, and beside it the one that it was made of (none where it came packed)."""
        before = self._ask(whole if getattr(parameter.packing, "on_load", False) else 0)
        scales = size // 16  # packed values and their scales are tensors of their own
        self._ask(size - scales)
        self._ask(scales)
        self._give(before)

    def _trained(self, parameter: Parameter) -> Trained:
        return Trained(parameter.numel, parameter.shape, parameter.dtype, 1, self._values(parameter))

    def _values(self, parameter: Parameter) -> int:
        return parameter.numel.at(1, 1, self._rank)

    def _bytes(self, parameter: Parameter) -> int:
        return parameter.bytes.at(1, 1, self._rank)

    @staticmethod
    def _share(size: int, parts: int) -> int:
        return -(-size // parts)

    def _ask(self, size: int) -> Any:
        return self._memory.allocate(size) if size > 0 else None

    def _give(self, block: Any) -> None:
        if block is not None:
            self._memory.free(block)


def varying_lengths(longest: int, count: int = VARYING_STEPS, seed: int = SEED) -> list[int]:
    """Lengths of padded batches: evenly spread from an eighth of the longest to the longest, in random order (assumption)."""
    shortest = max(1, longest // SHORTEST)
    lengths = [shortest + (longest - shortest) * index // (count - 1) for index in range(count)]
    random.Random(seed).shuffle(lengths)
    return lengths


def run(
    program: Events,
    lengths: Sequence[int],
    *,
    batch: int,
    rank: int,
    workspace_bytes: int = 0,
    expandable_segments: bool = False,
    limit: int | None = None,
) -> Simulation:
    """Load and take one step for each length.

    Raises:
        OutOfMemory: the program asks for more than `limit` can hold.
    """
    memory = CachingAllocator(expandable_segments=expandable_segments, limit=limit)
    process = Process(program, memory, rank=rank, workspace_bytes=workspace_bytes)
    process.load()
    loaded = memory.reserved
    for length in lengths:
        process.step(batch, length)
    return Simulation(memory.peak_allocated, memory.peak_reserved, memory.peak_held, loaded)
