"""The rule `textbook`: how a course on fine-tuning arrives at its printed figures.

Several of these figures contradict each other, because the course uses two rules at once and writes GB for GiB.
Here each figure is derived by the rule that gives it, so that a reader can see what it does and does not say.
None of this is an estimate of real memory: `loralens.estimate` is.

The rule, for P parameters (a round number: 7.0e9, never the real count):

- full fine-tuning: weights 4P, Adam 8P, gradients 4P, activations half of the weights, 2P;
- a second rule of thumb, used for the headline: 2P half-precision weights, 4P float32 master copy, 8P Adam;
- LoRA: half-precision weights 2P, activations "as before" 2P, and the adapter's own weights, gradients and Adam state.

Source: the printed figures of the course's part 2; the rules are the ones that reproduce them.
Leaves out: batch size, sequence length, kernels, logits, the allocator. They decide the activations, and are all in the
real estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from loralens.core.time.floats import added

GIB: Final = 2**30
GB: Final = 10**9

NOMINAL_PARAMETERS: Final = {"7B": 7 * GB, "13B": 13 * GB, "30B": 30 * GB, "70B": 70 * GB}
"""The course's parameter counts: the name taken at its word."""

ADAPTER_LAYERS: Final = 32
ADAPTER_WIDTH: Final = 4096
ADAPTER_RANK: Final = 8

BASE_GB: Final = 13.0
"""What the course calls the size of a 7B base on disk: 13.04 GiB, rounded, then used as gigabytes."""
ADAPTER_GB: Final = 0.004
"""4 MB, the adapter's file."""


@dataclass(frozen=True, slots=True)
class FullMemory:
    """Full fine-tuning by the rule; bytes."""

    weights_bytes: int
    optimizer_state_bytes: int
    gradients_bytes: int
    activations_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.optimizer_state_bytes + self.gradients_bytes + self.activations_bytes


@dataclass(frozen=True, slots=True)
class LoraMemory:
    """LoRA by the rule; bytes."""

    weights_bytes: int
    activations_bytes: int
    adapter_weights_bytes: int
    adapter_gradients_bytes: int
    adapter_optimizer_state_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.activations_bytes + self.adapter_bytes

    @property
    def adapter_bytes(self) -> int:
        return self.adapter_weights_bytes + self.adapter_gradients_bytes + self.adapter_optimizer_state_bytes


def full_memory(parameters: int) -> FullMemory:
    """Bytes of full fine-tuning by the textbook rule.

    >>> round(full_memory(7 * 10**9).total_bytes / 2**30, 2)
    117.35
    """
    return FullMemory(4 * parameters, 8 * parameters, 4 * parameters, 2 * parameters)


def headline_bytes(parameters: int) -> int:
    """Bytes of the course's headline: 2 (weights) + 4 (master copy) + 8 (Adam) per parameter; no gradients.

    >>> headline_bytes(7 * 10**9) // 10**9
    98
    """
    return (2 + 4 + 8) * parameters


def adapter_parameters(layers: int = ADAPTER_LAYERS, width: int = ADAPTER_WIDTH, rank: int = ADAPTER_RANK) -> int:
    """LoRA parameters by the rule: one square matrix per layer, whatever the model.

    >>> adapter_parameters()
    2097152
    """
    return layers * 2 * width * rank


def lora_memory(parameters: int, adapter: int) -> LoraMemory:
    """Bytes of LoRA by the textbook rule, with `adapter` trainable parameters."""
    return LoraMemory(2 * parameters, 2 * parameters, 4 * adapter, 4 * adapter, 8 * adapter)


def stored_gb(tasks: int) -> tuple[float, float]:
    """Gigabytes on disk for that many tasks: one full copy each, and one base with an adapter each."""
    return tasks * BASE_GB, BASE_GB + tasks * ADAPTER_GB


@dataclass(frozen=True, slots=True)
class Figure:
    """One printed number and the rule that gives it.

    Attributes:
        printed: as the course prints it.
        printed_value: the same as a number; None where nothing is printed that a rule could give.
        rule: `textbook`, `exact` (simply true) or `none` (no rule; see the ledger's verdict).
        formula: in symbols; `substituted`: with the numbers filled in.
        value: what the rule gives, unrounded; None without a rule.
        decimals: how many decimals the course rounds to.
        unit: of `value`: "GB", "GiB", "parameters", "x", "%", "MiB", "points", "GPU hours", "US dollars".
    """

    id: str
    printed: str
    printed_value: float | None
    rule: str
    formula: str
    substituted: str
    value: float | None
    decimals: int
    unit: str

    @property
    def reproduced(self) -> bool:
        """Whether the rule gives the printed number, rounded as it was printed."""
        if self.value is None or self.printed_value is None:
            return False
        return round_half_up(self.value, self.decimals) == self.printed_value


def round_half_up(value: float, decimals: int) -> float:
    """Round as people do: 0.5 upwards.

    >>> round_half_up(2.5, 0), round_half_up(1.005, 1)
    (3.0, 1.0)
    """
    from decimal import ROUND_HALF_UP, Decimal

    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP))


@cache
def figures() -> tuple[Figure, ...]:
    """Every printed figure of the course's part 2, in its order."""
    return (*_memory(), *_parameters(), *_ratios(), *_storage(), *_mechanism(), *_not_by_rule())


def figure(id_: str) -> Figure:
    """The figure with this id."""
    return next(one for one in figures() if one.id == id_)


def _memory() -> list[Figure]:
    parameters = NOMINAL_PARAMETERS["7B"]
    full = full_memory(parameters)
    adapter = adapter_parameters()
    lora = lora_memory(parameters, adapter)

    def gib(id_: str, printed: str, per: str, size: int, printed_value: float, decimals: int = 0) -> Figure:
        filled = f"7.0e9 × {per} bytes = {size:,} bytes = {size / GIB:.2f} GiB"
        return Figure(id_, printed, printed_value, "textbook", f"P × {per} bytes", filled, size / GIB, decimals, "GiB")

    small = [lora.adapter_weights_bytes, lora.adapter_optimizer_state_bytes, lora.adapter_gradients_bytes]
    small_gib = added(round_half_up(size / GIB, 2) for size in small)
    headline = headline_bytes(parameters)
    return [
        Figure("full-98", "≈ 98 GB", 98, "textbook", "P × (2 + 4 + 8) bytes",
               f"7.0e9 × 14 bytes = {headline:,} bytes = {headline / GB:.1f} GB", headline / GB, 0, "GB"),
        gib("full-weights-26", "26 GB", "4", full.weights_bytes, 26),
        gib("full-optimizer-52", "52 GB", "8", full.optimizer_state_bytes, 52),
        gib("full-gradients-26", "26 GB", "4", full.gradients_bytes, 26),
        gib("full-activations-13", "13 GB", "4 ÷ 2", full.activations_bytes, 13),
        gib("full-total-117", "117.35 GB", "(4 + 8 + 4 + 2)", full.total_bytes, 117.35, 2),
        gib("lora-weights-13", "13.04 GB", "2", lora.weights_bytes, 13.04, 2),
        Figure("lora-own-0.04", "0.04 GB", 0.04, "textbook", "A × 4 + A × 8 + A × 4 bytes, each rounded, then added",
               f"A = {adapter:,}: 0.01 + 0.02 + 0.01 GiB (unrounded {lora.adapter_bytes / GIB:.5f} GiB)",
               small_gib, 2, "GiB"),
        Figure("lora-26", "≈ 26 GB", 26, "textbook", "P × 2 + P × 2 + A × (4 + 8 + 4) bytes",
               f"13.04 + 13.04 + {lora.adapter_bytes / GIB:.2f} GiB = {lora.total_bytes / GIB:.2f} GiB",
               lora.total_bytes / GIB, 0, "GiB"),
    ]  # fmt: skip


def _parameters() -> list[Figure]:
    adapter = adapter_parameters()
    share = 100 * adapter / NOMINAL_PARAMETERS["7B"]
    counts = [
        Figure(f"adapter-{size.lower()}", f"2,097,152 ({size})", 2_097_152, "textbook", "layers × 2 × width × rank",
               f"32 × 2 × 4,096 × 8 = {adapter:,}", adapter, 0, "parameters")
        for size in ("7B", "13B", "70B")
    ]  # fmt: skip

    def factor(size: str, printed: int) -> Figure:
        nominal = NOMINAL_PARAMETERS[size]
        return Figure(f"fewer-{size.lower()}", f"{printed:,}×", printed, "textbook", "P ÷ A",
                      f"{nominal:,} ÷ {adapter:,} = {nominal / adapter:,.1f}", nominal / adapter, 0, "x")  # fmt: skip

    return [
        *counts,
        Figure("share-0.03", "0.03%", 0.03, "textbook", "A ÷ P",
               f"{adapter:,} ÷ 7,000,000,000 = {share:.4f}%", share, 2, "%"),
        # The 7B factor is not 7e9 / A (3,338) but the inverse of the share after it was rounded.
        Figure("fewer-7b", "3,333×", 3333, "textbook", "1 ÷ share, with the share rounded to 0.03%",
               "1 ÷ 0.0003 = 3,333.3 (unrounded: 7,000,000,000 ÷ 2,097,152 = 3,337.9)", 1 / 0.0003, 0, "x"),
        factor("13B", 6199),
        factor("70B", 33379),
    ]  # fmt: skip


def _ratios() -> list[Figure]:
    return [
        Figure("memory-3.8x", "3.8×", 3.8, "textbook", "full ÷ LoRA, as printed", "98 ÷ 26 = 3.77", 98 / 26, 1, "x"),
        Figure("saved-73.5", "73.5%", 73.5, "textbook", "(full − LoRA) ÷ full, as printed",
               "(98 − 26) ÷ 98 = 73.47%", 100 * 72 / 98, 1, "%"),
        Figure("faster-100x", "100×", None, "none", "none given", "none given", None, 0, "x"),
    ]  # fmt: skip


def _storage() -> list[Figure]:
    file_mib = 2 * adapter_parameters() / 2**20
    rows = [
        Figure("adapter-file-4", "4 MB", 4, "textbook", "A × 2 bytes", f"2,097,152 × 2 bytes = {file_mib:.0f} MiB",
               file_mib, 0, "MiB"),
        Figure("storage-3250x", "3,250×", 3250, "textbook", "base ÷ adapter file, as printed",
               "13,000 MB ÷ 4 MB = 3,250", 13_000 / 4, 0, "x"),
    ]  # fmt: skip
    printed = {10: (("130 GB", 130, 0), ("13.04 GB", 13.04, 2), ("90%", 90, 0)),
               6: (("78 GB", 78, 0), ("13 GB", 13, 0), ("83.3%", 83.3, 1))}  # fmt: skip
    for tasks, ((text_f, value_f, dec_f), (text_l, value_l, dec_l), (text_s, value_s, dec_s)) in printed.items():
        full, lora = stored_gb(tasks)
        share = 100 * (full - lora) / full
        rows += [
            Figure(f"storage-{tasks}-full", text_f, value_f, "textbook", "tasks × base", f"{tasks} × 13 GB = {full:g} GB",
                   full, dec_f, "GB"),
            Figure(f"storage-{tasks}-lora", text_l, value_l, "textbook", "base + tasks × adapter",
                   f"13 GB + {tasks} × 0.004 GB = {lora:.3f} GB", lora, dec_l, "GB"),
            Figure(f"storage-{tasks}-saved", text_s, value_s, "textbook", "1 − LoRA ÷ full",
                   f"1 − {lora:.3f} ÷ {full:g} = {share:.2f}%", share, dec_s, "%"),
        ]  # fmt: skip
    full, lora = stored_gb(6)
    rows.append(Figure("storage-6-saved-gb", "65.0 GB", 65.0, "textbook", "full − LoRA",
                       f"{full:g} − {lora:.3f} = {full - lora:.3f} GB", full - lora, 1, "GB"))  # fmt: skip
    return rows


def _mechanism() -> list[Figure]:
    return [
        Figure("square-16384", "16,384", 16_384, "exact", "2 × width × rank", "2 × 1,024 × 8 = 16,384", 2 * 1024 * 8, 0,
               "parameters"),
        Figure("square-1.5625", "1.5625%", 1.5625, "exact", "2 × width × rank ÷ width²",
               "16,384 ÷ 1,048,576 = 1.5625%", 100 * 16_384 / 1024**2, 4, "%"),
    ]  # fmt: skip


def _not_by_rule() -> list[Figure]:
    return [
        Figure("knowledge-47.5", "95 → 47.5", 47.5, "none", "95 × 0.5, a constant in the course's code",
               "95 × 0.5 = 47.5", 95 * 0.5, 1, "points"),
        Figure("hours-17500", "17,500 GPU hours", 17_500, "none", "parameters ÷ 1,000,000 per GPU hour (no source)",
               "17.5e9 ÷ 1,000,000 = 17,500", 17.5e9 / 1e6, 0, "GPU hours"),
        Figure("dollars-1.75m", "1.75 million dollars", 1_750_000, "none", "GPU hours × 100 dollars (no source)",
               "17,500 × 100 = 1,750,000", 17_500 * 100, 0, "US dollars"),
    ]  # fmt: skip
