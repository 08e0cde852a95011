"""A training process from loading to its second step, run through the simulated allocator.

What is asked for, in this order (each line is what PyTorch or the named library does, not a fit):
- weights one by one, each its own block; a weight that bitsandbytes packs stands in 16 bits beside its packed form while it is
  packed; weights that k-bit preparation raises to float32 are copied one by one once all are there;
- the adapter; DDP's buckets;
- cuBLAS's workspace at the first product, and another one for the thread that runs backward;
- forward and backward; in the first optimizer step its states, tensor by tensor; its temporaries; then gradients and batch go.
Leaves out: temporaries of the load phase beyond these, and everything
outside torch's pool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.allocator import CachingAllocator
from loralens.core.step.optimizer import OPTIMIZERS, Optimizer, Trained
from loralens.core.step.step import step_temporaries

if TYPE_CHECKING:
    from loralens.core.step.events import MemoryRequests, MicroBatch
    from loralens.core.tape.parameter import Parameter

STEPS: Final = 2  # the first one makes the optimizer's states; with one length, a third one reserves nothing more (38 published settings)
VARYING_STEPS: Final = 9  # assumption: so many batches of different lengths, the longest among them
SHORTEST: Final = 8  # assumption: the shortest batch has an eighth of the longest one's length
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Simulation:
    """What one process's allocator came to. Bytes."""

    allocated_bytes: int  # peak, in the allocator's blocks, cuBLAS's workspaces included
    reserved_bytes: int  # peak
    loaded_bytes: int  # reserved at the end of loading
    limit_bytes: int | None  # the limit it kept to, or had to take


class Process:
    """Sends a recorded program's requests to a memory: any object with `allocate(bytes)`, which returns a block, and `free(block)`."""

    def __init__(self, program: MemoryRequests, memory: Any, *, rank: int, workspace_bytes: int = 0) -> None:
        self._program = program
        self._memory = memory
        self._rank = rank
        self._workspaces = [workspace_bytes, workspace_bytes]  # forward's and backward's, until they are made
        self._has_states = False
        self._outputs: list[Any] = []  # blocks of the last step's output, where the loop keeps it

    def load(self) -> None:
        """Weights, adapter, buckets."""
        program, strategy = self._program, self._program.strategy
        held_as = ITEM_BYTES[program.recipe.weights_dtype]
        raised = []
        for parameter in program.weights:
            if parameter.role == "adapter" or strategy.host.weights:
                continue
            values = self._values(parameter)
            if parameter.packing is not None:
                self._pack(parameter, values * held_as)
            elif ITEM_BYTES[parameter.dtype] <= held_as:
                self._ask(self._share(self._bytes(parameter), strategy.parts(parameter)))
            else:
                raised.append(
                    (
                        self._share(self._bytes(parameter), strategy.parts(parameter)),
                        self._ask(self._share(values * held_as, strategy.parts(parameter))),
                    )
                )
        for size, before in raised:
            self._ask(size)
            self._give(before)
        self._ask(program.buffer_bytes)
        for parameter in program.weights:
            if parameter.role == "adapter" and not strategy.host.weights:
                self._ask(self._share(self._bytes(parameter), strategy.parts(parameter)))
        for size in strategy.buckets(sum(self._bytes(weight) for weight in program.weights if weight.trainable)):
            self._ask(size)

    def step(self, batch: int, sequence: int) -> None:
        """One optimizer step on micro batches of this size."""
        first, later = self._program.first, self._program.later
        blocks = self._micro_batch(first, batch, sequence)
        if later is not None:  # every further micro batch is like the second
            self._release(blocks, first.batch)
            again = self._micro_batch(later, batch, sequence)
            self._optimize()
            self._release(again, later.gradients + later.batch)
        else:
            self._optimize()
            self._release(blocks, first.batch)
        self._release(blocks, first.gradients)

    def _release(self, blocks: list[Any], numbers: list[int]) -> None:
        for number in numbers:
            self._give(blocks[number])

    def _micro_batch(self, micro: MicroBatch, batch: int, sequence: int) -> list[Any]:
        requests = [0, *micro.requests(batch, sequence, self._rank)]
        blocks: list[Any] = [None] * len(requests)
        allocate, free, streams = self._memory.allocate, self._memory.free, micro.streams
        for half, part in enumerate((micro.events[: micro.backward], micro.events[micro.backward :])):
            if half:
                for block in self._outputs:
                    self._give(block)
            self._ask(self._workspaces[half])
            self._workspaces[half] = 0
            for event in part:
                if event < 0:
                    if requests[-event]:
                        free(blocks[-event])
                elif streams and event in streams:
                    blocks[event] = allocate(requests[event], streams[event])
                elif requests[event]:
                    blocks[event] = allocate(requests[event])
        self._outputs = [blocks[number] for number in micro.outputs]
        return blocks

    def _optimize(self) -> None:
        program = self._program
        recipe, strategy = program.recipe, program.strategy
        optimizer = OPTIMIZERS[recipe.optimizer]
        trained = [
            self._trained(parameter) for parameter in program.weights if parameter.trainable and not parameter.idle
        ]
        if strategy.host.states or not trained:
            return
        if not self._has_states:
            self._has_states = True
            self._states(optimizer, trained)
        if recipe.optimizer_in_backward:
            return
        if optimizer.step_each:
            parts = [self._share(tensor.bytes.at(1, 1, self._rank), strategy.states) for tensor in trained]
        else:
            parts = [step_temporaries(trained, recipe, strategy).at(1, 1, self._rank)]
        for block in [self._ask(part) for part in parts]:
            self._give(block)

    def _states(self, optimizer: Optimizer, trained: list[Trained]) -> None:
        strategy = self._program.strategy
        if self._program.recipe.autocast == "float16":
            self._ask(4)  # the gradient scaler's scale and growth counter
            self._ask(4)
        for tensor in trained:
            if copied := strategy.master_dtype(tensor.dtype):
                tensor = replace(tensor, dtype=copied)
                self._ask(self._share(tensor.bytes.at(1, 1, self._rank), strategy.states))
            total = self._share(optimizer.state(tensor).at(1, 1, self._rank), strategy.states)
            for size in optimizer.state_blocks(total):
                self._ask(size)
        self._ask(optimizer.tables_bytes)

    def _pack(self, parameter: Parameter, whole: int) -> None:
        """A packed weight, and beside it, while it is packed, the one that it is made of (sharded ones are packed on the host)."""
        packing, parts = parameter.packing, self._program.strategy.parts(parameter)
        assert packing is not None  # the caller looked
        before = self._ask(whole) if packing.on_load and parts == 1 else None
        for size in packing.tensors(parameter):
            self._ask(self._share(size, parts))
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
    """Lengths of padded batches: drawn evenly from an eighth of the longest up to it, the longest last (assumption)."""
    draw = random.Random(seed)
    return [draw.randint(max(1, longest // SHORTEST), longest) for _ in range(count - 1)] + [longest]


def run(
    program: MemoryRequests,
    lengths: Sequence[int],
    *,
    batch: int,
    rank: int,
    workspace_bytes: int = 0,
    expandable_segments: bool = False,
    limit: int | None = None,
    yields: bool = False,
) -> Simulation:
    """Load and take one step for each length.

    Raises:
        OutOfMemory: the program asks for more than `limit` can hold, and the limit does not yield.
    """
    memory = CachingAllocator(expandable_segments=expandable_segments, limit=limit, yields=yields)
    process = Process(program, memory, rank=rank, workspace_bytes=workspace_bytes)
    process.load()
    loaded = memory.reserved
    for length in lengths:
        process.step(batch, length)
    return Simulation(memory.peak_allocated, memory.peak_reserved, loaded, memory.limit)


def least_limit(program: MemoryRequests, lengths: Sequence[int], least: int, **settings: Any) -> int:
    """Memory with which the simulated process runs to its end: near the smallest, and shown to be enough.

    Starts from `least` (what is allocated at the peak), and takes more only where even an emptied cache leaves too little;
    the last run is repeated with the limit that is returned, and ends.
    """
    limit = least
    while True:
        found = run(program, lengths, limit=limit, yields=True, **settings)
        assert found.limit_bytes is not None  # one was given
        if found.limit_bytes == limit:
            return limit
        limit = found.limit_bytes
