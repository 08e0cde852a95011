"""What batches of a user's own samples take, as a table: one line for each percentile of the batches, the worst last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.cli.render import gib, line, table, wrapped

if TYPE_CHECKING:
    from loralens.core.answer.shapes import BatchOfLengths, MemoryEstimate


def show_lengths(estimates: list[MemoryEstimate], notes: list[str]) -> None:
    """Nothing where no lengths were given."""
    found = [(estimate["method"], estimate["lengths"]) for estimate in estimates if "lengths" in estimate]
    if not found:
        return
    first = found[0][1]
    line()
    wrapped(
        f"{first['samples']:,} samples of {first['mean']:,.0f} tokens on average, the longest of {first['longest']:,}"
        + (f"; {first['cut']:,} are cut to sequence_length" if first["cut"] else "")
    )
    table(
        ["batches up to", "tokens", *(f"{method}: peak, to be safe" for method, _ in found)],
        [
            (_share(batch), f"{batch['sequence_length']:,}", *(_sizes(own["batches"][row]) for _, own in found))
            for row, batch in enumerate(first["batches"])
        ],
    )
    wrapped(
        f"{first['padding']:.0%} of padded batches is padding; packed, all tokens are {first['packed_rows']:,} rows of sequence_length, "
        f"and padded batches compute {first['packing_gain']:.2g} times as many tokens as these"
    )
    for method, own in found:
        if "epoch" in own:
            runs = own["epoch"]
            wrapped(
                f"{method}: {runs['ended']} of {runs['runs']} simulated runs of {runs['batches']} batches end, the longest batch among them"
            )
    for note in notes:
        wrapped(note)


def _share(batch: BatchOfLengths) -> str:
    return "the worst batch" if batch["percent"] == 100 else f"{batch['percent']:g}%"


def _sizes(batch: BatchOfLengths) -> str:
    verdicts = [row["verdict"].replace("_", " ") for row in batch["fits"]] if len(batch["fits"]) == 1 else []
    return ", ".join([gib(batch["allocated_bytes"]), gib(batch["needed_bytes"][1]), *verdicts])
