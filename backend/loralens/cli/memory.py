"""`loralens memory`: what one training step needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from loralens.cli.engine import SHARES, band, rows_held
from loralens.cli.lengths import show_lengths
from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.recipe_line import options
from loralens.cli.render import gib, line, print_json, table, wrapped
from loralens.cli.verdict import exit_code, sentence
from loralens.cli.words import Option
from loralens.core.errors import InvalidInput

if TYPE_CHECKING:
    from loralens.core.answer.shapes import MemoryAnswer, MemoryEstimate, Part, RunMoment, StoredBytes, TrainerRow
    from loralens.core.question.shapes import Pair


PARTS: tuple[Part, ...] = (
    "weights_bytes", "adapter_bytes", "gradients_bytes", "optimizer_state_bytes", "activations_bytes", "logits_bytes",
    "temporaries_bytes",
)  # fmt: skip
Explain = Annotated[bool, Option("--explain", help="Show the formula and source of every term.")]
Allocator = Annotated[
    str | None,
    Option(
        "--allocator",
        help="rule (a percentage of the peak), simulated (PyTorch's caching allocator, run over the step) or expandable "
        "(the same with expandable segments). "
        "Also --reserved.",
        metavar="TEXT",
        aliases=("--reserved",),
    ),
]
Trainers = Annotated[bool, Option("--trainers", help="Add a row for each trainer's defaults in the options left open.")]
Data = Annotated[
    str | None,
    Option("--data", help="A JSONL file of samples: what batches of their lengths take.", metavar="FILE"),
]
Tokenizer = Annotated[
    str | None,
    Option(
        "--tokenizer", help="Counts the tokens of --data: a tokenizer.json of this machine, or bytes.", metavar="TEXT"
    ),
]
EXAMPLES = (
    ("loralens memory 7B", "full fine-tuning, LoRA and QLoRA side by side"),
    ("loralens memory Qwen/Qwen3-8B -m qlora --gpu 24GB --batch-size 4", "with a verdict; exit code 0, 4 or 5"),
    ("loralens memory 8B -m lora --explain", "every term with its formula and source"),
)


@takes_recipe
def command(
    body: Body,
    explain: Explain = False,
    allocator: Allocator = None,
    trainers: Trainers = False,
    data: Data = None,
    tokenizer: Tokenizer = None,
    json: Json = False,
) -> int:
    """Memory of one training step: peak, phases and what each byte is.

    Without --method the three methods are compared: full fine-tuning, LoRA and QLoRA. With --gpu the exit code is the
    best verdict among them: 0 fits, 4 tight, 5 does not fit.
    """
    from loralens.core.answer.answers import memory_answer

    own: Body = ({} if allocator is None else {"allocator": allocator}) | ({"trainers": True} if trainers else {})
    notes: list[str] = []
    if data is not None:
        from loralens.samples import BYTES, sample_lengths

        samples = sample_lengths(data, tokenizer or BYTES)
        own["lengths"], notes = samples.pairs, samples.notes
    elif tokenizer is not None:
        raise InvalidInput(
            "--tokenizer counts the tokens of --data, and no data is named",
            field="tokenizer",
            hint="add --data train.jsonl",
        )
    answer = memory_answer({**body, **own}, verdicts=json or bool(body.get("gpu")))
    if json:
        print_json(answer)
    else:
        _show(answer, body, explain)
        show_lengths(answer["estimates"], notes)
    return exit_code(row["verdict"] for e in answer["estimates"] for row in e["fits"]) if body.get("gpu") else 0


def _show(answer: MemoryAnswer, body: Body, explain: bool) -> None:
    estimates = answer["estimates"]
    model = answer["model"]
    line(f"{model['name']}  {model['parameters']:,} parameters")
    for note in [*model.get("read_as", ()), *model["left_out"]]:
        wrapped(note)
    rows = [
        ("trainable parameters", *(f"{e['parameters']['trainable']:,}" for e in estimates)),
        ("share of all", *(f"{e['parameters']['trainable_percent']:.4g}%" for e in estimates)),
        *(
            (part.removesuffix("_bytes").replace("_", " "), *(_part(e["breakdown"][part]) for e in estimates))
            for part in PARTS
        ),
        ("peak allocated memory", *(gib(e["peak"]["allocated_bytes"]) for e in estimates)),
        ("  in phase", *(e["peak"]["phase"] for e in estimates)),
        ("memory needed at least", *(gib(e["peak"]["needed_bytes"][0]) for e in estimates)),
        ("to be safe", *(gib(e["peak"]["needed_bytes"][1]) for e in estimates)),
        *_engines(estimates),
        *_paces(body, estimates),
        ("file per task", *(gib(_kept(e["storage"])) for e in estimates)),
    ]
    table(["at the peak", *(estimate["method"] for estimate in estimates)], rows)
    for estimate in estimates:
        wrapped(f"{estimate['method']}: {estimate['regime']}{_kernels(estimate)}")
    _idle(estimates)
    _verdicts(estimates)
    _moments(estimates)
    if len({tuple(options(estimate["recipe"])) for estimate in estimates}) == 1:
        wrapped("recipe: " + " ".join(options(estimates[0]["recipe"])))
    _trainers(answer.get("trainers"), [estimate["method"] for estimate in estimates])
    if explain:
        for estimate in estimates:
            _explain(estimate)
    else:
        line("--explain shows every term with its formula, --json everything.")


def _part(size: int) -> str:
    """A part of the peak, in the unit of the peak: what is almost nothing there shall not look like much."""
    return "0" if size == 0 else "< 0.01 GiB" if size < 2**30 // 100 else f"{size / 2**30:,.2f} GiB"


def _trainers(rows: list[TrainerRow] | None, methods: list[str]) -> None:
    """Peak and what is safe, by trainer and method; what does not go with the rest is said below."""
    if not rows:
        return
    by_title: dict[str, dict[str, TrainerRow]] = {}
    for row in rows:
        by_title.setdefault(row["title"], {})[row["method"]] = row
    line()
    table(
        ["with the defaults of", *(f"{method}: peak, to be safe" for method in methods)],
        [(title, *(_peak(found[method]) for method in methods)) for title, found in by_title.items()],
    )
    for problem in dict.fromkeys(
        f"{row['title']}, {row['method']}: {row['problem']}" for row in rows if row["problem"]
    ):
        wrapped(problem)


def _peak(row: TrainerRow) -> str:
    return f"{gib(row['peak']['allocated_bytes'])}, {gib(row['peak']['needed_bytes'][1])}" if row["peak"] else "none"


def _band(ends: Pair) -> str:
    low, high = ends
    return f"{low / 2**30:,.2f} to {high / 2**30:,.2f} GiB"


def _kernels(estimate: MemoryEstimate) -> str:
    """Which attention kernel runs where it is not the one of a recent card, and why."""
    slow = [f"{one['kernel']} ({one['because']})" for one in estimate["attention"] if one["because"]]
    return f"; attention kernel: {', '.join(slow)}" if slow and estimate["recipe"]["accelerator"] != "cuda" else ""


def _idle(estimates: list[MemoryEstimate]) -> None:
    """Words that were set and change nothing, with the reason; the methods are named where it is not so for all."""
    methods: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for estimate in estimates:
        for row in estimate["without_effect"]:
            words = ", ".join(row["words"])
            methods.setdefault(words, []).append(estimate["method"])
            reasons[words] = row["reason"]
    if methods:
        said = [
            f"{words} ({'' if len(found) == len(estimates) else ', '.join(found) + ': '}{reasons[words]})"
            for words, found in methods.items()
        ]
        wrapped(f"without effect on memory: {'; '.join(said)}")


def _verdicts(estimates: list[MemoryEstimate]) -> None:
    """One line for each method, when a single card was asked for."""
    if len(estimates[0]["fits"]) != 1:
        return
    line()
    for estimate in estimates:
        (card,) = estimate["fits"]
        wrapped(
            f"{estimate['method']}: {sentence(card, card['verdict'], estimate['peak']['needed_bytes'], card['decided_by'])}"
        )


def _moments(estimates: list[MemoryEstimate]) -> None:
    """An evaluation, and what a machine needs where something waits there or its memory is said."""
    for estimate in estimates:
        rows = {row["moment"]: row for row in estimate["moments"]}
        if "evaluation" in rows:
            row = rows["evaluation"]
            wrapped(f"{estimate['method']}, while it evaluates: {gib(row['allocated_bytes'])} on the GPU{_judged(row)}")
        if drive := estimate["peak"]["nvme_bytes"]:
            wrapped(f"{estimate['method']}, on a machine's drive: {gib(drive)}")
        if estimate["peak"]["host_bytes"] or estimate["recipe"]["parallelism"]["host_memory"] is not None:
            row = max(rows.values(), key=lambda row: row["host_bytes"])
            verdict = f": {row['host_verdict'].replace('_', ' ')}" if row["host_verdict"] else ""
            wrapped(
                f"{estimate['method']}, host memory of a machine: {_band(row['host_bytes'])}, fullest while {WHILE[row['moment']]}{verdict}"
            )


WHILE = {
    "loading": "it loads",
    "step": "it trains",
    "rollout": "it generates",
    "evaluation": "it evaluates",
    "saving": "it saves",
}


def _judged(row: RunMoment) -> str:
    return f": {row['fits'][0]['verdict'].replace('_', ' ')}" if len(row["fits"]) == 1 else ""


def _engines(estimates: list[MemoryEstimate]) -> list[tuple[str, ...]]:
    """The shares of a single card with which an engine fits beside the trainer, and what the asked one generates."""
    cards = [e["iteration"]["cards"] if "iteration" in e else [] for e in estimates]
    if any(len(found) != 1 for found in cards):
        return []
    return [
        (
            next(SHARES[row["share_of"]] for e in estimates if (row := e["iteration"]["engine"]) is not None),
            *(band(found[0]) for found in cards),
        ),
        ("rows that it holds", *(rows_held(found[0]) for found in cards)),
    ]


def _paces(body: Body, estimates: list[MemoryEstimate]) -> list[tuple[str, ...]]:
    """Seconds of a step and tokens a second, where a single card was asked for and its rates are known."""
    if len(estimates[0]["fits"]) != 1:
        return []
    from loralens.core.answer.pace import paces

    found = paces(body, estimates)
    if not any(found):
        return []
    return [
        (
            "a step takes",
            *(
                "not known" if pace is None else f"{pace.low_seconds:.3g} to {pace.high_seconds:.3g} s"
                for pace in found
            ),
        ),
        (
            "tokens a second",
            *("" if pace is None or pace.ranged else f"{pace.tokens_per_second:,.0f}" for pace in found),
        ),
    ]


def _kept(storage: StoredBytes) -> int:
    return storage["adapter_file_bytes"] or storage["checkpoint_bytes"]


def _explain(estimate: MemoryEstimate) -> None:
    rows = [(t["name"], t["formula"], t["substituted"], gib(t["bytes"])) for t in estimate["terms"]]
    peak = estimate["peak"]
    line()
    table(
        [f"{estimate['method']}, by {peak['allocator']}", "middle", "band"],
        [
            ("reserved", gib(peak["reserved_bytes"]), _band(peak["reserved_band_bytes"])),
            ("on the device", gib(peak["device_bytes"]), _band(peak["device_band_bytes"])),
        ],
    )
    table(["term", "formula", "with numbers", "size"], rows, title=estimate["method"], left=3)
    for assumption in estimate["assumptions"]:
        line(f"assumed: {assumption}")
