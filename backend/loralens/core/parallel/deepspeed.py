"""DeepSpeed's ZeRO: stage 1 divides the optimizer states, stage 2 the gradients too, stage 3 the weights too.

Sources: DeepSpeed runtime/zero (float32 master weights and moments): config.py (the defaults below), stage_1_and_2.py
(`backward` makes the reduce bucket, `step` the partition's float32 gradient), stage3.py (the bucket is there from the
start), partitioned_param_coordinator.py (a module's weights are fetched when it runs, the next ones up to the prefetch
bucket, and stay where they are used again within the reuse distance); runtime/engine.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from loralens.core.parallel.sharded import SHARDING, Sharded, bytes_of
from loralens.core.parallel.strategy import Setting
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ONE, ZERO, Size, share

if TYPE_CHECKING:
    from loralens.core.tape.graph import Ends, Weight
    from loralens.core.tape.ledger import Ledger
    from loralens.core.tape.tape import Tape

# DeepSpeed's documented defaults, in elements (https://www.deepspeed.ai/docs/config-json, runtime/zero/config.py)
REDUCE_BUCKET: Final = 500_000_000  # reduce_bucket_size; transformers' "auto" makes it the hidden size squared
PREFETCH_BUCKET: Final = 50_000_000  # stage3_prefetch_bucket_size
SECOND: Final = "hpz"  # a dimension of the mesh: the GPUs of a machine, of all that shard
REUSE_DISTANCE: Final = 1_000_000_000  # stage3_max_reuse_distance; twice the way to the end of the model
PERSISTENT: Final = (
    100_000  # stage3_param_persistence_threshold; below a thousandth of a model: booked only where it is said
)
AUTO: Final[dict[str, Callable[[int], float]]] = {
    "reduce_bucket_size": lambda hidden: hidden * hidden,
    "prefetch_bucket_size": lambda hidden: 0.9 * hidden * hidden,
    "persistence_threshold": lambda hidden: 10 * hidden,
}
SUB_GROUP: Final = 1_000_000_000  # sub_group_size: elements that stage 3 updates at a time
ON_DRIVE: Final = (
    "ZeRO-Infinity as DeepSpeed 0.19.6 has it: parts of weights and gradients below 1 MiB stay off the drive, and what goes there passes "
    "through pinned buffers; every layer's backward pass counted with a full reduce bucket in float32; pipelined swapping, and what making "
    "the files takes, are not counted; no time is said, since it depends on the drive's reads and writes"
)
FUSES: Final = ("adamw_foreach", "adamw_loop")  # runtime/engine.py, `_configure_basic_optimizer`: one kernel


class Zero1(Sharded):
    """Optimizer states are divided; a reduce bucket stands while backward runs."""

    prepares_k_bit = False  # it would undo it

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.states = setting.gpus
        self._bucket: Storage | None = None
        self._trained = ZERO
        self._hidden = 0

    def master_dtype(self, dtype: str) -> str | None:
        """A float32 copy of every trained weight."""
        return None if dtype == "float32" else "float32"

    def replaces(self, optimizer: str) -> bool:
        """DeepSpeed's AdamW is one kernel."""
        return optimizer in FUSES

    def step_extra(self, elements: Size, dtype: str, rank: int) -> Size:
        """This GPU's gradients flattened, and again in float32."""
        if self.host.states or dtype == "float32":
            return ZERO
        return self._flattened(share(elements, self.states), dtype, rank)

    def _flattened(self, part: Size, dtype: str, rank: int) -> Size:
        return part * (4 + ITEM_BYTES[dtype])

    def adapter_dtype(self, asked: str, weights_dtype: str) -> str:
        """It casts the whole model, adapters too, to its 16-bit dtype (`_configure_distributed_model`)."""
        return asked if weights_dtype == "float32" else weights_dtype

    def _elements(self, word: str, default: int) -> int:
        """A knob's value; `auto` as transformers 5.23 integrations/deepspeed.py (`trainer_config_finalize`) works it out."""
        value = getattr(self.setting.recipe.parallelism, word)
        if value is None:
            return default
        return int(AUTO[word](self._hidden)) if value == "auto" else int(value)

    def before_forward(self, t: Tape, root: Ends, placed: Sequence[tuple[Weight, int]]) -> list[Storage]:
        """As any sharded step; the model's width is noted."""
        self._note_width(root, placed)
        return super().before_forward(t, root, placed)

    def _note_width(self, root: Ends, placed: Sequence[tuple[Weight, int]]) -> None:
        """What `auto` is worked out from: the width of the hidden states."""
        tables = [weight for weight in root.all if len(weight.shape) == 2] or [weight for weight, _ in placed]
        width = tables[0].shape[-1]
        self._hidden = width if isinstance(width, int) else 0

    def reduce_bucket(self, t: Tape) -> Storage:
        """The contiguous buffer of gradients that are to be reduced, in the dtype of the weights."""
        size = ONE * (
            self._elements("reduce_bucket_size", REDUCE_BUCKET) * ITEM_BYTES[self.setting.recipe.weights_dtype]
        )
        return Storage(t.ledger, size, "gradients", "DeepSpeed's reduce bucket")

    def book_gradients(self, ledger: Ledger, gradients: Size, layers: Iterable[Sequence[Weight]]) -> None:
        """Nothing beside them."""
        self._trained = gradients

    def after_backward(self, t: Tape) -> None:
        """Gradients are reduced to the partitions, whose updated weights all then gather (stage 3 gathers before use)."""
        super().after_backward(t)
        if self.gradients == 1 < self.states:
            t.traffic.sent("reduce_scatter", self._trained, SHARDING, once=True)
        if self.weights == 1 < self.states:
            t.traffic.sent("all_gather", self._trained, SHARDING, once=True)

    def before_backward(self, t: Tape) -> None:
        """The bucket is made."""
        self._bucket = self.reduce_bucket(t)

    def done(self, t: Tape) -> None:
        """And goes, after all else."""
        super().done(t)
        t.ledger.settle()
        t.end(self._bucket)
        self._bucket = None

    def assumptions(self) -> list[str]:
        """Master weights and the bucket's size."""
        if self.setting.recipe.parallelism.reduce_bucket_size is not None:
            return [*super().assumptions(), "DeepSpeed keeps float32 master weights beside 16-bit ones"]
        return [
            *super().assumptions(),
            "DeepSpeed keeps float32 master weights beside 16-bit ones, and a reduce bucket of 5e8 elements (assumption: its "
            'default, 0.93 GiB in 16 bits; transformers\' "auto" makes it the hidden size squared, at most 0.50 GiB up to a width of 16,384)',
        ]


class Zero2(Zero1):
    """Gradients are divided too."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gradients = setting.gpus


class Zero3(Zero2):
    """Weights are divided too, and fetched module by module, not unit by unit."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.weights = setting.gpus
        self._reused: Storage | None = None
        self._group = setting.recipe.parallelism.hpz_partition if self.weights > 1 else None
        self.backward_over = SECOND if self._group else SHARDING

    def gathered(self, t: Tape, weights: Sequence[Weight], *, ahead: bool) -> Storage:
        """The largest weight of a layer, and what is fetched ahead of it, which is at most the layer."""
        ahead_elements = self._elements("prefetch_bucket_size", PREFETCH_BUCKET)
        return Storage(t.ledger, _fetched(weights, ahead_elements), "temporaries", "weights of fetched modules")

    def before_forward(self, t: Tape, root: Ends, placed: Sequence[tuple[Weight, int]]) -> list[Storage]:
        """Weights at the end of the model stay gathered from their forward to their backward; the bucket stays for good."""
        self._note_width(root, placed)
        held = [self.reduce_bucket(t)]
        if self.gathers:
            least = self._elements("persistence_threshold", PERSISTENT)
            if self.setting.recipe.parallelism.persistence_threshold is not None:
                held.append(
                    Storage(t.ledger, _persistent(t, placed, least, self.weights), "weights", "small weights, whole")
                )
            self._reused = Storage(t.ledger, _reused(placed), "temporaries", "weights kept gathered for their backward")
        if self._group:
            held += self._second_copy(t, placed, self._group)
        return held

    def _second_copy(self, t: Tape, placed: Sequence[tuple[Weight, int]], group: int) -> list[Storage]:
        """hpZ: every weight's part in a group of GPUs, beside its part among all.

        Source: DeepSpeed 0031ae39, runtime/zero/partition_parameters.py, `Init._partition_param_sec` (made when a weight is first
        divided, and kept; in host memory where weights are offloaded).
        """
        total = ZERO
        for weight, count in placed:
            total = total + share(weight.bytes, group) * count
        if self.host.weights:
            self.host_bytes = self.host_bytes + total
            return []
        return [Storage(t.ledger, total, "weights", "second copy of the weights, a machine's part")]

    def before_backward(self, t: Tape) -> None:
        """The bucket is there."""

    def reduce(self, t: Tape, number: int) -> None:
        """With states on a drive, this GPU's part of a bucket becomes float32 before it goes there."""
        super().reduce(t, number)
        if self.setting.recipe.parallelism.offload_device == "nvme":
            t.end(Storage(t.ledger, self._on_its_way(), "gradients", "float32 gradients on their way to the drive"))

    def _on_its_way(self) -> Size:
        """Source: DeepSpeed edaa722 runtime/zero/stage3.py, `partition_grads` (a whole bucket's, then they are written)."""
        whole = self._trained * (4 // ITEM_BYTES[self.setting.recipe.weights_dtype])
        bucket = 4 * self._elements("reduce_bucket_size", REDUCE_BUCKET)
        return share(ONE * bucket if not self.setting.adapters and whole[0] > bucket else whole, self.gradients)

    def after_layer(self, t: Tape, weights: Sequence[Weight], number: int) -> None:
        """What was kept for reuse has been used."""
        t.end(self._together.pop(number, None), self._reused)
        self._reused = None
        self.reduce(t, number)

    def done(self, t: Tape) -> None:
        """Also where no layer ran backward."""
        t.end(self._reused)
        self._reused = None
        super().done(t)

    def _flattened(self, part: Size, dtype: str, rank: int) -> Size:
        """Of one sub-group at a time, which needs no flat copy."""
        most = self.setting.recipe.parallelism.sub_group_size or SUB_GROUP
        return (ONE * most if part.at(1, 1, rank) > most else part) * 4

    def assumptions(self) -> list[str]:
        """The coordinator's defaults."""
        found = super().assumptions()
        on_drive = self.setting.recipe.parallelism.offload_device == "nvme"
        return [
            *([ON_DRIVE] if on_drive else []),
            "ZeRO-3 with DeepSpeed's defaults: prefetch of 5e7 and reuse within 1e9 elements; the running module's weights are gathered",
            found[-1],
        ]


def _persistent(t: Tape, placed: Sequence[tuple[Weight, int]], most: int, parts: int) -> Size:
    """What a GPU has beside its own part of the weights that stay whole."""
    total = ZERO
    for weight, count in placed:
        each = weight.numel[1]  # elements for each unit of rank
        small = not t.validity.exceeds("rank", most // each) if each else weight.numel[0] <= most
        if small:
            total = total + (weight.bytes - share(weight.bytes, parts)) * count
    return total


def _fetched(weights: Sequence[Weight], elements: int) -> Size:
    largest = max(weights, key=lambda weight: weight.bytes[0], default=None)
    if largest is None:
        return ZERO
    whole, ahead = bytes_of(weights), elements * _item(largest)
    return whole if whole[0] <= largest.bytes[0] + ahead else largest.bytes + ONE * ahead


def _reused(placed: Sequence[tuple[Weight, int]]) -> Size:
    whole = item = 0
    for weight, count in placed:
        whole += weight.bytes[0] * count
        item = max(item, _item(weight) if weight.role == "base" else 0)
    return ONE * min(whole, REUSE_DISTANCE // 2 * item)


def _item(weight: Weight) -> int:
    return 1 if weight.packing else ITEM_BYTES[weight.dtype]
