"""`loralens fit`: what fits a GPU, and what makes it fit."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import gib, line, print_json, table

Tokens = Annotated[
    int | None, typer.Option("--tokens", help="Tokens of the whole training: answers time and cost too.")
]
Utilization = Annotated[
    float | None, typer.Option("--utilization", help="Share of the GPU's dense peak to expect, above 0, at most 1.")
]
VERDICTS = {
    "fits": "fits",
    "tight": "is tight: it fits unless fragmentation takes more than is left",
    "does_not_fit": "does not fit",
}


@takes_recipe
def command(body: Body, tokens: Tokens = None, utilization: Utilization = None, json: Json = False) -> None:
    """What fits --gpu: the largest batch, length and rank, and the changes that make a step fit.

    Without --method the question is about LoRA.
    """
    from loralens.planner.fit import fit_answer

    own = {"tokens": tokens, "utilization": utilization}
    answer = fit_answer(body | {name: value for name, value in own.items() if value is not None})
    if json:
        return print_json(answer)
    _show(answer)
    return None


def _show(answer: dict[str, Any]) -> None:
    gpu, peak = answer["gpu"], answer["peak"]
    line(f"{answer['model']['name']}, {answer['method']}: {answer['regime']}")
    line(
        f"{gpu['name']} has {gib(gpu['memory_bytes'])} ({gpu['memory_basis']}); the step {VERDICTS[answer['verdict']]}."
    )
    least, safe = (gib(size) for size in peak["needed_bytes"])
    line(
        f"peak allocated {gib(peak['allocated_bytes'])}; a card must have {least}, and {safe} to be safe from fragmentation"
    )
    table(
        ["all else as asked", "asked", "largest that safely fits"],
        [(name.replace("_", " "), f"{row['asked']:,}", _value(row)) for name, row in answer["largest"].items()],
    )
    if answer["advice"]:
        _advise(answer["advice"])
    if answer["time"]:
        _time(answer["time"])


def _value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "none"
    return f"{row['value']:,}" + (" or more" if row["bounded_by"] == "range" else "")


def _advise(advice: dict[str, Any]) -> None:
    rows = [
        (row["field"], f"{_word(row['from'])} → {_word(row['to'])}", gib(row["saves_bytes"]), row["cost"],
         "yes" if row["fits"] else "no")
        for row in advice["changes"]
    ]  # fmt: skip
    table(["change", "from → to", "saves", "costs", "enough alone"], rows, left=2)
    if advice["path"] is None:
        line("No combination of these changes makes it fit.")
    else:
        line("To make it fit:")
        for number, row in enumerate(advice["path"], 1):
            saves = f"saves {gib(row['saves_bytes'])}"
            line(f"{number}. {row['field']} {_word(row['from'])} → {_word(row['to'])}: {saves}. {row['why']['en']}")
    if advice["smallest_gpu"]:
        gpu = advice["smallest_gpu"]
        line(f"Without any change: {gpu['name']} ({gib(gpu['memory_bytes'])}).")
    if advice["several_gpus"]:
        line(f"Or {advice['several_gpus']['gpus']} of this GPU with everything sharded (--strategy fsdp).")


def _word(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value).lower()


def _time(time: dict[str, Any]) -> None:
    hours = time["gpu_hours"]
    line(f"{time['tokens']:,} tokens: {time['flops']:.3g} operations. {time['reasons']['en']}")
    line(f"GPU hours: at least {_hours(hours['least'])}, expected {_hours(hours['expected'])}")
    for row in time["cost"] if hours["expected"] is not None else []:
        line(f"about ${row['expected_usd']:.2f} at ${row['usd_per_gpu_hour']}/h ({row['source']}; {row['date']})")
    for assumption in time["assumptions"]:
        line(f"assumed: {assumption}")


def _hours(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"
