"""`loralens trace`: the real model on fake tensors, next to what is computed."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import gib, line, print_json, table
from loralens.cli.words import Option

PARTS = ("weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries")
Output = Annotated[bool, Option("--quiet", help="Say nothing on stderr while it runs.")]
EXAMPLES = (
    ("loralens trace gpt2", "LoRA, next to what is computed"),
    ("loralens trace gpt2 -m full,lora,qlora --sequence-length 256", "three methods"),
    ("loralens trace 8B -m qlora --gradient-checkpointing --json", "as JSON"),
)


@takes_recipe
def command(body: Body, quiet: Output = False, json: Json = False) -> None:
    r"""Run the real transformers model, PEFT and optimizer for one step on fake tensors: no GPU, no weights.

    Without --method LoRA is traced. The real libraries must be there: `LORALENS_EXTRAS=trace ./start.sh lab`.
    """
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
