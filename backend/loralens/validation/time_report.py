"""docs/accuracy-time.md: predicted against measured speed, out of sample; and the constants that all runs give.

`python -m loralens.validation.time_report docs/accuracy` writes the page beside the folder, the runs' counted work into
it, and core/time/rates.json anew.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from loralens.core.time.rates import DATA, known
from loralens.validation import generation_report
from loralens.validation.time_fit import PRIORS, Array, RunColumns, TimeFit, chip
from loralens.validation.time_scores import (
    FEW_TOKENS,
    Judged,
    band,
    band_by_card,
    held,
    judge_times,
    ordered,
    over_nvlink,
)
from loralens.validation.timed_runs import TimedRun, read_timed, written

DIGITS: Final = 3
FLOAT8: Final = "linear layers in float8, whose rate is not modelled"
WORK: Final = "timing-work.jsonl"  # what the walk counted of every run
RATED_BOXES: Final = {("answerai", "rtx-3090")}
"""Machines without NVLink of which more than one run over the same GPUs is published."""
GROUPS: Final[tuple[tuple[str, Callable[[TimedRun], bool]], ...]] = (
    ("every run", lambda run: True),
    ("one GPU", lambda run: run.gpus == 1),
    ("one GPU, lengths published", lambda run: run.gpus == 1 and run.length_known),
    (f"one GPU, {FEW_TOKENS:,} tokens a micro-batch or more", lambda run: run.gpus == 1 and run.tokens >= FEW_TOKENS),
    (f"under {FEW_TOKENS:,} tokens a micro-batch", lambda run: run.tokens < FEW_TOKENS),
    ("several GPUs over NVLink", lambda run: run.gpus > 1 and over_nvlink(run)),
    ("of these in one machine", lambda run: run.gpus > 1 and over_nvlink(run) and not run.several_machines),
    ("of these in several machines", lambda run: run.gpus > 1 and over_nvlink(run) and run.several_machines),
    ("of these with a cut model (tensor, context parallel, stages)", lambda run: run.cut),
    ("several GPUs over PCIe", lambda run: run.gpus > 1 and not over_nvlink(run)),
    (
        "of these where other runs of the machine give its rate",
        lambda run: run.gpus > 1 and not over_nvlink(run) and (run.machine, run.gpu.id) in RATED_BOXES,
    ),
)
INTRODUCTION: Final = """# Accuracy of time: computed against measured

Written by `python -m loralens.validation.time_report docs/accuracy` from `accuracy/timing-runs.jsonl`: published speeds of
training runs, each with its source (by the run of the same name in `accuracy/published-runs.jsonl`). Nothing here was measured
by us. Error = computed / measured tokens a second - 1; a cell is the median and the 90th percentile of its absolute value, in percent.

- **half**: constants from every second run of each machine and card, the others predicted, and the other way round.
- **machine left out**: none of that publisher's runs had a part, and neither its processor nor its links are known.
- **card left out**: none of that card's runs had a part; its share of the peak is guessed by its class.
- **40% of the peak**: the former rule, with the operations of the same walk.

Of several GPUs, what moves between them comes from the same walk as the bytes in accuracy-parallel.md. Two things cost beside it:
FSDP's transfers add to the card's own work, and a collective that is waited for adds a time of its own. llm-foundry's MPT is
computed as GPT-2, whose shapes it has, and counts half; its flash attention is of 2023. Runs in 8-bit formats are left out, since their
rates are not modelled, and torchtitan's with asynchronous tensor parallelism. Expert parallelism has no run
of transformers' code: Automodel's and Megatron Bridge's take half to a third of its computed time, with kernels that it has not
(Transformer Engine's grouped products, DeepEP), and say nothing of it.

Over PCIe the rate between two cards is the machine's and not the card's: with 10 GB/s, which is assumed where nothing is known, torchtune's
runs on two and four RTX 4090 are promised 1.5 and 3.9 times their speed. They ask for 4 GB/s and for 1.5 GB/s, so one rate meets neither:
`loralens bench --calibrate` measures it among as many cards as take part, and `loralens fit --link` takes it.

Only constants are held out. The model's form (which terms there are) was chosen with all runs in sight, and FMS's runs, a third
of all, resemble each other; read the machines' lines too. Where the constants' values stand with their meaning:
`backend/loralens/core/time/rates.json`.
"""


def page(judged: Judged, runs: Sequence[TimedRun]) -> str:
    """docs/accuracy-time.md."""
    lines = [INTRODUCTION, *_groups(judged), "", *_facts(judged), "", "## Every machine", ""]
    machines = [(name, _of(name)) for name in dict.fromkeys(run.machine for run in judged.runs)]
    lines += [
        *_table(judged, machines),
        "",
        *_excluded(runs),
        "",
        *_ratios(judged, runs),
        "",
        *_worst(judged),
        "",
        *_all(judged),
    ]
    return "\n".join(lines) + "\n"


def _of(machine: str) -> Callable[[TimedRun], bool]:
    return lambda run: run.machine == machine


def _machine(run: TimedRun) -> str:
    return run.machine


def _groups(judged: Judged) -> list[str]:
    return _table(judged, GROUPS)


def _table(judged: Judged, groups: Sequence[tuple[str, Callable[[TimedRun], bool]]]) -> list[str]:
    lines = [
        "| runs | number | half | machine left out | card left out | 40% of the peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, wanted in groups:
        chosen = judged.chosen(wanted)
        cells = (_error(judged.errors(s, chosen)) for s in (judged.half, judged.machine, judged.card, judged.former))
        lines.append(f"| {name} | {len(chosen)} | {' | '.join(cells)} |")
    return lines


def _error(errors: Array) -> str:
    size = np.abs(errors)
    return f"{100 * np.median(size):.1f} / {100 * np.quantile(size, 0.9):.0f}"


def bands(judged: Judged) -> dict[str, dict[str, Any]]:
    """Factors on the computed time between which four of five runs lie, and the share that such factors hold out of sample."""
    found = {}
    for name, seconds, group, make in (
        ("fitted", judged.machine, _machine, band),
        ("class", judged.card, chip, band_by_card),
    ):
        chosen = judged.chosen(lambda run: run.tokens >= FEW_TOKENS)
        low, high = make(judged, seconds, chosen)
        found[name] = {"low": low, "high": high, "held": held(judged, seconds, chosen, group, make)}
    return found


def cut_band(judged: Judged) -> tuple[float, float]:
    """The same factors of models that are cut, of which one publisher has nearly all: no share out of sample can be said."""
    return band(judged, judged.machine, judged.chosen(lambda run: run.cut))


def _facts(judged: Judged) -> list[str]:
    right, pairs = ordered(judged)
    found = bands(judged)
    few = judged.chosen(lambda run: run.tokens < FEW_TOKENS)
    low, high = judged.host_range
    factors, cut = found["fitted"], cut_band(judged)
    inside = sum(
        low[index] * factors["low"] <= judged.runs[index].seconds <= high[index] * factors["high"] for index in few
    )
    return [
        f"- Order: of {pairs:,} pairs of runs on one card whose speeds differ by more than 10%, the faster one is computed faster in "
        f"{100 * right:.1f}% (half).",
        *(
            f"- Band of 80% for a card {what}: {row['low']:.2f} to {row['high']:.2f} times the computed time; made from the other "
            f"{others}' runs it holds {100 * row['held']:.0f}%."
            for row, what, others in (
                (found["fitted"], "with runs, on an unknown machine", "machines"),
                (found["class"], "without runs", "cards"),
            )
        ),
        f"- Band of 80% for a model that is cut (tensor parallel, stages): {cut[0]:.2f} to {cut[1]:.2f} times the computed time. Nearly "
        "all of these runs are one publisher's, so nothing is said of how much it would hold elsewhere. Of context parallelism one run could be "
        "computed, of expert parallelism, of GPipe and of stages one after another none: their band is a guess.",
        f"- Under {FEW_TOKENS:,} tokens a micro-batch the processor sets the pace: from the quickest to the slowest published one, "
        f"with the band around them, the range holds {inside} of {len(few)} runs without their machine.",
    ]


def _excluded(runs: Sequence[TimedRun]) -> list[str]:
    reasons = Counter(run.excluded for run in runs if run.excluded)
    return ["Runs that are not judged, and why:", "", "| runs | reason |", "|---:|---|"] + [
        f"| {count} | {reason} |"
        for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], str(pair[0])))
    ]


def _ratios(judged: Judged, runs: Sequence[TimedRun]) -> list[str]:
    """Runs of which only the ratios can be compared: how a step grows with the sequence, and what interleaved stages save."""
    apart = [run for run in runs if run.excluded == FLOAT8]
    table = RunColumns([*judged.runs, *apart])
    seconds = table.predict(table.fit(range(len(judged.runs))))[len(judged.runs) :]
    found = dict(zip((run.id for run in apart), seconds, strict=True))
    lines = [
        "## Ratios",
        "",
        "torchtitan's runs on H100s compute their linear layers in float8, so only ratios can be compared. Of context parallelism on 8 GPUs: each",
        "has 32,768 tokens, and two, four or eight of them one sequence (Automodel's run with two parts is among the judged ones). That four",
        "parts take so much longer than two is not explained, so the band of a context-parallel step is a guess, and a wide one. Of eight stages of",
        "405B parameters on 512 GPUs, with eight micro-batches: 1F1B and two interleaved stages on each GPU.",
        "",
        "| run | step, measured | to the first | computed in 16 bits, to the first |",
        "|---|---:|---:|---:|",
    ]
    for group in ([run for run in apart if not run.idle], [run for run in apart if run.idle]):
        lines += [
            f"| {run.id} | {run.seconds:.1f} s | {run.seconds / group[0].seconds:.2f} | {found[run.id] / found[group[0].id]:.2f} |"
            for run in group
        ]
    return lines


def _worst(judged: Judged) -> list[str]:
    errors = judged.errors(judged.half, range(len(judged.runs)))
    far = [index for index in np.argsort(-np.abs(errors)) if abs(errors[index]) > 0.25]
    return ["## Runs that are off by more than a quarter (half)", "", "| run | error |", "|---|---:|"] + [
        f"| {judged.runs[index].id} | {100 * errors[index]:+.0f}% |" for index in far
    ]


def _all(judged: Judged) -> list[str]:
    chosen = range(len(judged.runs))
    columns = [judged.errors(seconds, chosen) for seconds in (judged.half, judged.machine, judged.card)]
    lines = [
        "## All runs",
        "",
        "| run | card | GPUs | tokens/s a GPU, measured | half | machine left out | card left out |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for index, run in enumerate(judged.runs):
        speed = run.tokens * run.accumulation / run.seconds
        errors = " | ".join(f"{100 * column[index]:+.0f}%" for column in columns)
        lines.append(f"| {run.id} | {run.gpu.id} | {run.gpus} | {speed:,.0f} | {errors} |")
    return lines


def rates(judged: Judged, runs: Sequence[TimedRun], data: dict[str, Any]) -> dict[str, Any]:
    """`rates.json` with what all runs give."""
    kept = [run for run in runs if run.excluded is None]
    table = RunColumns(kept)
    found = table.read(table.fit(range(len(kept))))
    constants = {
        name: row | {"value": _rounded(asdict(found.constants)[name])} if name in PRIORS else row
        for name, row in data["constants"].items()
    }
    low, high = cut_band(judged)
    hosts = [value for name, value in found.hosts.items() if sum(run.machine == name for run in kept) > DIGITS]
    return data | {
        "constants": constants,
        "shares": _shares(kept, found),
        "bands": data["bands"]
        | {
            name: {
                "low": _rounded(row["low"]),
                "high": _rounded(row["high"]),
                "source": f"80% of published runs, left out by {'machine' if name == 'fitted' else 'card'}; docs/accuracy-time.md",
            }
            for name, row in bands(judged).items()
        }
        | {"cut": data["bands"]["cut"] | {"low": _rounded(low), "high": _rounded(high)}},
        "host": data["host"] | {"range": [_rounded(min(hosts)), _rounded(max(hosts))]},
    }


def _shares(kept: Sequence[TimedRun], found: TimeFit) -> dict[str, Any]:
    rows = Counter(chip(run) for run in kept)
    ids = {run.gpu.id: chip(run) for run in kept}
    return {
        card: {"value": _rounded(found.shares[of]), "source": f"fitted on {rows[of]} published runs"}
        for card, of in sorted(ids.items())
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def read_folder(folder: Path, every: int = 1) -> list[TimedRun]:
    """The runs of docs/accuracy, walked; or every so-manieth of them."""
    lines = (folder / "timing-runs.jsonl").read_text(encoding="utf-8").splitlines()
    published = [
        (folder / name).read_text(encoding="utf-8") for name in ("published-runs.jsonl", "parallel-runs.jsonl")
    ]
    return read_timed(lines[::every], "".join(published).splitlines())


def main(folder: str) -> None:
    """Write the constants, then the page."""
    runs = read_folder(Path(folder))
    text = json.dumps(rates(judge_times(runs), runs, json.loads(DATA.read_text(encoding="utf-8"))), indent=1)
    DATA.write_text(text + "\n", encoding="utf-8")
    known.cache_clear()
    (Path(folder) / WORK).write_text(written(runs), encoding="utf-8")
    (Path(folder).parent / "accuracy-time.md").write_text(page(judge_times(runs), runs), encoding="utf-8")
    generation_report.write(Path(folder))  # at the same rates


if __name__ == "__main__":
    main(*sys.argv[1:])
