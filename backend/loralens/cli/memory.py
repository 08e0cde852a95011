"""`loralens memory`: what one training step needs."""

from __future__ import annotations

from typing import Annotated, Any

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import gib, line, print_json, table
from loralens.cli.words import Option

PARTS = ("weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries")
Explain = Annotated[bool, Option("--explain", help="Show the formula and source of every term.")]
Reserved = Annotated[
    str | None,
    Option(
        "--reserved",
        help="rule (a percentage of the peak) or simulated (PyTorch's caching allocator, run over the step).",
        metavar="TEXT",
    ),
]


@takes_recipe
def command(body: Body, explain: Explain = False, reserved: Reserved = None, json: Json = False) -> None:
    """Memory of one training step: peak, phases and what each byte is.

    Without --method the three methods are compared: full fine-tuning, LoRA and QLoRA.
    """
    from loralens.core.answer.answers import memory_answer

    answer = memory_answer(body if reserved is None else {**body, "allocator": reserved})
    if json:
        return print_json(answer)
    _show(answer, explain)


def _show(answer: dict[str, Any], explain: bool) -> None:
    estimates = answer["estimates"]
    model = answer["model"]
    line(f"{model['name']}  {model['parameters']:,} parameters")
    for sentence in [*model.get("read_as", ()), *model["left_out"]]:
        line(sentence)
    rows = [
        ("trainable parameters", *(f"{e['parameters']['trainable']:,}" for e in estimates)),
        ("of all", *(f"{e['parameters']['trainable_percent']:.4g} %" for e in estimates)),
        *((part.replace("_", " "), *(gib(e["breakdown"][f"{part}_bytes"]) for e in estimates)) for part in PARTS),
        ("peak allocated", *(gib(e["peak"]["allocated_bytes"]) for e in estimates)),
        ("  in phase", *(e["peak"]["phase"] for e in estimates)),
        (f"reserved, {estimates[0]['peak']['allocator']}", *(gib(e["peak"]["reserved_bytes"]) for e in estimates)),
        ("  from .. to", *(_band(e["peak"]["reserved_band_bytes"]) for e in estimates)),
        ("on the device", *(gib(e["peak"]["device_bytes"]) for e in estimates)),
        ("  from .. to", *(_band(e["peak"]["device_band_bytes"]) for e in estimates)),
        ("a card must have", *(_band(e["peak"]["needed_bytes"]) for e in estimates)),
        *_verdicts(estimates),
        ("file to keep", *(gib(_kept(e["storage"])) for e in estimates)),
    ]
    table(["at the peak", *(estimate["method"] for estimate in estimates)], rows)
    for estimate in estimates:
        line(f"{estimate['method']}: {estimate['regime']}")
    if explain:
        for estimate in estimates:
            _explain(estimate)
    else:
        line("--explain shows every term with its formula, --json everything.")


def _band(ends: list[int]) -> str:
    low, high = ends
    return f"{low / 2**30:.1f} .. {high / 2**30:.1f} GiB"


def _verdicts(estimates: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row, when a single card was asked for."""
    cards = estimates[0]["fits"]
    if len(cards) != 1:
        return []
    words = {"fits": "fits", "tight": "tight", "does_not_fit": "does not fit"}
    return [
        (f"{cards[0]['name']}, {gib(cards[0]['memory_bytes'])}", *(words[e["fits"][0]["verdict"]] for e in estimates))
    ]


def _kept(storage: dict[str, int]) -> int:
    return storage["adapter_file_bytes"] or storage["checkpoint_bytes"]


def _explain(estimate: dict[str, Any]) -> None:
    rows = [(t["name"], t["formula"], t["substituted"], gib(t["bytes"])) for t in estimate["terms"]]
    line()
    table(["term", "formula", "with numbers", "size"], rows, title=estimate["method"], left=3)
    for assumption in estimate["assumptions"]:
        line(f"assumed: {assumption}")
