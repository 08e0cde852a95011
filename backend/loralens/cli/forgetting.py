"""`loralens forgetting`: what full fine-tuning and LoRA forget, measured here."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from loralens.cli.options import Json
from loralens.cli.render import gib, line, print_json, table
from loralens.core.errors import InvalidInput
from loralens.installation.state import require
from loralens.settings import Settings

Full = Annotated[bool, typer.Option("--full/--quick", help="Quick: about a minute. Full: larger model, ten minutes.")]
Old = Annotated[Path | None, typer.Option("--old", help="Text file to be remembered (UTF-8).")]
New = Annotated[Path | None, typer.Option("--new", help="Text file to adapt to (UTF-8).")]
Ranks = Annotated[str | None, typer.Option("--ranks", help="Ranks of LoRA, with commas.")]
Seed = Annotated[int, typer.Option("--seed", help="First random seed.")]
Seeds = Annotated[int | None, typer.Option("--seeds", help="How many random seeds, 2 to 10.")]
ModelId = Annotated[
    str | None,
    typer.Option("--model", help="Folder or Hugging Face id of a causal language model; needs --old and --new."),
]
Steps = Annotated[int, typer.Option("--steps", help="Optimizer steps of each run, with --model.")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda, with --model; default: cuda if there is one.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming an interrupted run.")]
Unlimited = Annotated[bool, typer.Option("--unlimited", help="Do all steps, even beyond the planned time.")]
Output = Annotated[Path | None, typer.Option("--output", help="Also write the whole run as JSON to this file.")]
Recorded = Annotated[bool, typer.Option("--recorded", help="Show the run that ships with the program instead.")]
Language = Annotated[str | None, typer.Option("--language", help="en or zh; default: the terminal's.")]
EXAMPLES = (
    ("loralens forgetting --recorded", "the run that ships with the program, at once"),
    ("loralens forgetting --quick", "anew, in about a minute"),
    ("loralens forgetting --ranks 2,8 --seeds 5 --output run.json", "other ranks and more seeds, kept in a file"),
)


def command(
    full: Full = False,
    old: Old = None,
    new: New = None,
    ranks: Ranks = None,
    seed: Seed = 0,
    seeds: Seeds = None,
    model: ModelId = None,
    steps: Steps = 100,
    device: Device = None,
    fresh: Fresh = False,
    unlimited: Unlimited = False,
    output: Output = None,
    recorded: Recorded = False,
    language: Language = None,
    json: Json = False,
) -> int:
    """Train a small model on new text by full fine-tuning and by LoRA, and measure what each forgets of the old."""
    from loralens.lab.forgetting.recorded import collect, recorded_runs

    shown = _language(language)
    if recorded:
        wanted = "full" if full else "quick"
        found = [run for run in recorded_runs() if run["result"]["budget"] == wanted]
        if not found:
            raise InvalidInput(f"no {wanted} run is recorded", hint="run it: loralens forgetting --" + wanted)
        record = found[0]
    else:
        if (old is None) != (new is None):
            missing = "--old" if old is None else "--new"
            raise InvalidInput(f"{missing} is missing: give both files or neither", field=missing.strip("-"))
        spec: dict[str, Any] = {"budget": "full" if full else "quick", "seed": seed, "fresh": fresh}
        if seeds is not None:
            spec["seeds"] = seeds
        if ranks is not None:
            spec["ranks"] = _numbers(ranks)
        require(Settings().state_directory())
        record = collect(_told(_events(spec, old, new, model, steps, device, unlimited)))
    if output is not None:
        output.write_text(jsonlib.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    if json:
        print_json(record)
    else:
        _show(record["result"], shown)
    return 0


def _events(
    spec: dict[str, Any],
    old: Path | None,
    new: Path | None,
    model: str | None,
    steps: int,
    device: str | None,
    unlimited: bool,
) -> Iterator[Mapping[str, Any]]:
    from loralens.lab.forgetting.request import check_request, checked_pair
    from loralens.lab.tiny.corpus import code_corpus, file_corpus, prose_corpus

    check_request(spec)
    if old is not None and new is not None:
        texts = checked_pair(file_corpus(old, field="old"), file_corpus(new, field="new"))
    elif model is not None:
        raise InvalidInput("--model needs --old and --new", field="model", hint="give two text files")
    else:
        texts = prose_corpus(), code_corpus()
    if model is not None:
        from loralens.lab.forgetting.real import run_real

        return run_real(model, *texts, spec=spec, steps=steps, device=device)
    from loralens.lab.forgetting.job import run_plan
    from loralens.lab.forgetting.plan import plan_from_spec
    from loralens.lab.tiny.checkpoints import default_state_dir

    plan = plan_from_spec(spec)
    return run_plan(plan, *texts, default_state_dir(), fresh=spec["fresh"], limited=not unlimited)


def _told(events: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Pass events on and say on stderr what is going on."""
    live = sys.stderr.isatty()
    for event in events:
        kind = event["type"]
        if kind == "plan":
            runs = len(event["arms"]) * len(event["seeds"])
            start = "going on with an interrupted run" if event["resumed"] else f"{runs} runs of {event['steps']} steps"
            budget = event["budget_seconds"]
            told = "" if budget is None else f", planned for {budget:.0f} s on 2 cores"
            print(f"{start}{told}; Ctrl-C saves what is done", file=sys.stderr)
        elif kind == "progress" and live:
            print(
                f"\r{event['phase']:<9}{event['done']:>6} of {event['total']:<6}", end="", file=sys.stderr, flush=True
            )
        elif kind == "result" and live:
            print("\r" + " " * 30 + "\r", end="", file=sys.stderr)
        yield event


def _show(result: Mapping[str, Any], language: str) -> None:
    summary = result["summary"]
    machine = result["machine"]
    line(
        f"{result['old']['name']} → {result['new']['name']}, {summary['step']} steps, {len(summary['seeds'])} seeds, "
        f"{result['seconds']:.0f} s on {machine['processor']} ({machine['cores']} cores), {result['date']}"
    )
    base = summary["base"]
    line(f"base: old text {base['old']['loss']:.3f}, new text {base['new']['loss']:.3f} nats per token")
    costs = {cost["arm"]: cost["measured"] for cost in result["costs"]}
    rows = [
        (
            arm["arm"],
            f"{arm['learning_rate']:g}",
            _spread(arm["forgetting_nats"]),
            _spread(arm["forgetting_points"], 1),
            _spread(arm["learned_nats"]),
            gib(costs[arm["arm"]]["peak_bytes"]),
            gib(costs[arm["arm"]]["optimizer_state_bytes"]),
            f"{1000 * _step_time(costs[arm['arm']]):.0f} ms",
        )
        for arm in summary["arms"]
    ]
    table(["arm", "rate", "forgot, nats", "forgot, points", "learned, nats", "peak", "optimizer", "step"], rows)
    for finding in result["findings"]:
        line("• " + finding[language])
    if result["stopped_early"]:
        line(f"Training was stopped at step {summary['step']} to keep to the announced time.")


def _step_time(measured: Mapping[str, Any]) -> float:
    return float((measured["step_processor_seconds"] or measured["step_seconds"])["median"])


def _spread(value: Mapping[str, Any], digits: int = 2) -> str:
    if value["low"] is None:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} ± {(value['high'] - value['low']) / 2:.{digits}f}"


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InvalidInput(f"--ranks must be numbers with commas, got {text[:80]!r}", field="ranks") from None


def _language(choice: str | None) -> str:
    if choice is None:
        return "zh" if (os.environ.get("LC_ALL") or os.environ.get("LANG") or "").startswith("zh") else "en"
    if choice not in ("en", "zh"):
        raise InvalidInput(f"--language must be en or zh, got {choice[:40]!r}", field="language")
    return choice
