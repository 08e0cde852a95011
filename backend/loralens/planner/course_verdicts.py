"""The verdict on each figure of the course, and the remark that goes with it; the words are in `locales/`."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["exact", "one case", "rule of thumb", "not true", "unsupported", "simulated"]
"""What a reader should make of a printed figure: true as printed; true for one choice of model and layers; follows from the
rule, but not what a step holds; the rule gives it, the model does not; no source; a constant in the code."""


class Verdict(NamedTuple):
    """`remark`: its name in `course.remark.NAME`, where `{exact}` stands for the exact value with its unit."""

    kind: Kind
    remark: str


STORAGE: Final = [f"storage-{tasks}-{part}" for tasks in (10, 6) for part in ("full", "lora", "saved", "saved-gb")]
REMARKS: Final = {
    **dict.fromkeys(("adapter-7b", "adapter-13b", "adapter-70b"), "adapter"),
    **dict.fromkeys(("fewer-13b", "fewer-70b"), "fewer"),
    **dict.fromkeys(("square-16384", "square-1.5625"), "as printed"),
    **dict.fromkeys(STORAGE, "storage"),
}
"""Figures that share a remark; any other has its own."""
GIB_AS_GB: Final = frozenset(
    (
        "full-weights-26", "full-optimizer-52", "full-gradients-26", "full-activations-13", "full-total-117",
        "lora-weights-13",
    )
)  # fmt: skip
"""Figures that the course calls GB and that its rule gives in GiB."""
OF_KIND: Final[dict[Kind, tuple[str, ...]]] = {
    "exact": ("square-16384", "square-1.5625"),
    "one case": ("adapter-7b", "share-0.03", "adapter-file-4"),
    "not true": ("adapter-13b", "adapter-70b", "fewer-13b", "fewer-70b"),
    "unsupported": ("faster-100x", "hours-17500", "dollars-1.75m"),
    "simulated": ("knowledge-47.5",),
    "rule of thumb": (
        "full-98", "full-weights-26", "full-optimizer-52", "full-gradients-26", "full-activations-13", "full-total-117",
        "lora-weights-13", "lora-own-0.04", "lora-26", "fewer-7b", "memory-3.8x", "saved-73.5", "storage-3250x", *STORAGE,
    ),
}  # fmt: skip
VERDICTS: Final = {
    name: Verdict(kind, REMARKS.get(name, name)) for kind, figures in OF_KIND.items() for name in figures
}
