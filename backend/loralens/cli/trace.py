"""`loralens trace`: the real model on fake tensors, next to what is computed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import gib, line, print_json, table, wrapped
from loralens.cli.words import Option
from loralens.core.errors import InvalidInput
from loralens.core.jsontext import to_json

PARTS = ("weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries")
Plan = Annotated[
    str | None,
    Option(
        "--plan",
        help="Make a plan of several traces and write it: the config.json that every verb and the page take in MODEL's place.",
        metavar="FILE",
    ),
]
Output = Annotated[bool, Option("--quiet", help="Say nothing on stderr while it runs.")]
EXAMPLES = (
    ("loralens trace gpt2", "LoRA, next to what is computed"),
    ("loralens trace gpt2 -m full,lora,qlora --sequence-length 256", "three methods"),
    ("loralens trace 8B -m qlora --gradient-checkpointing --json", "as JSON"),
    (
        "loralens trace --config config.json --plan traced.json",
        "a model type not known here; then loralens memory --config traced.json",
    ),
    ("loralens trace my_model.py:build -m full --plan traced.json", "a model of your own, whose file is run"),
)


@takes_recipe
def command(body: Body, plan: Plan = None, quiet: Output = False, json: Json = False) -> None:
    r"""Run the real transformers model, PEFT and optimizer for one step on fake tensors: no GPU, no weights.

    Without --method LoRA is traced; with --plan all three methods that are compared. The real libraries must be there: `LORALENS_EXTRAS=trace ./start.sh lab`.
    """
    named = body.get("model")
    if isinstance(named, str) and ".py:" in named:
        body = {**body, "config": {"model_type": named, "_name_or_path": named}}
        del body["model"]
        if plan is None:
            raise InvalidInput(f"{named} is traced for a plan", field="plan", hint="add --plan FILE")
    if plan is not None:
        return _plan(body, plan, named, quiet=quiet, json=json)
    from loralens.lab.trace.answer import trace_events

    answer: dict[str, Any] = {}
    for event in trace_events(body):
        if event["type"] == "progress" and not quiet:
            print(f"tracing {event['method']} ({event['done'] + 1} of {event['total']})", file=sys.stderr)
        elif event["type"] == "result":
            answer = {name: value for name, value in event.items() if name != "type"}
    if json:
        return print_json(answer)
    _show(answer)


def _plan(body: Body, path: str, named: Any, *, quiet: bool, json: bool) -> None:
    from loralens.lab.trace.local import names_a_file
    from loralens.lab.trace.plan.file import plan_events

    file = Path(path)
    if file.is_dir() or not file.parent.is_dir():
        raise InvalidInput(f"{path} is no place for a file", field="plan", hint="name a file in a folder that is there")
    answer: dict[str, Any] = {}
    for event in plan_events(body, named if names_a_file(named) else None):
        if event["type"] == "progress" and not quiet:
            print(f"tracing {event['method']} at several settings", file=sys.stderr)
        elif event["type"] == "result":
            answer = {name: value for name, value in event.items() if name != "type"}
    config = answer.pop("config")
    file.write_text(to_json(config) + "\n", encoding="utf-8")
    if json:
        return print_json({**answer, "file": path})
    line(f"{config['_name_or_path']}  {config['traced_plan']['parameters']:,} parameters")
    table(
        ["traced", "batch", "length", "rank", "fitted at", "checked at", "moments"],
        [_row(one) for one in answer["plans"]],
        left=1,
    )
    for one in answer["plans"]:
        for note in one["notes"][1:]:
            wrapped(f"{one['method']}: {note}")
    for one in answer["refused"]:
        wrapped(f"{one['method']} is left out: {one['detail']}")
    line(f"written to {path}: loralens memory --config {path}")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    spans = []
    for name in ("micro_batch_size", "sequence_length", "rank"):
        low, high = one["valid"][name]
        left = one["remainders"].get(name)
        spans.append((f"{low:,}" if low == high else f"{low:,} to {high:,}") + (f" by {left[0]}" if left else ""))
    if one["method"] == "full":
        spans[2] = ""
    return one["method"], *spans, f"{len(one['fitted'])} settings", str(len(one["checked"])), str(one["moments"])


def _show(answer: dict[str, Any]) -> None:
    traces = answer["traces"]
    line(answer["model"]["name"])
    rows = [
        ("trainable parameters", *(f"{t['parameters']['trainable']:,}" for t in traces)),
        *((part.replace("_", " "), *(gib(t["breakdown"][f"{part}_bytes"]) for t in traces)) for part in PARTS),
        ("traced peak", *(gib(t["peak"]["allocated_bytes"]) for t in traces)),
        ("  in phase", *(t["peak"]["phase"] for t in traces)),
        ("computed peak", *(_computed(t["computed"]) for t in traces)),
        ("  off by", *(_off(t["computed"]) for t in traces)),
    ]
    table(["at the peak", *(t["method"] for t in traces)], rows)
    line("with " + ", ".join(f"{name} {text}" for name, text in answer["versions"].items() if text))


def _computed(computed: dict[str, Any]) -> str:
    return computed["error"]["code"] if "error" in computed else gib(computed["allocated_bytes"])


def _off(computed: dict[str, Any]) -> str:
    return "" if "error" in computed else f"{computed['difference_percent']:+.4f}%"
