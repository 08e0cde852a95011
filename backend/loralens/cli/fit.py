"""`loralens fit`: what fits a GPU, how long it takes, and what makes it fit."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Final

from loralens.cli.fit_plans import show_plans
from loralens.cli.here import gpu_of_this_machine
from loralens.cli.options import Body, Json, WholeBody, takes_recipe
from loralens.cli.recipe_line import option, options
from loralens.cli.remarks import show_remarks
from loralens.cli.render import gib, line, print_json, table, wrapped
from loralens.cli.verdict import EXIT_CODES, sentence
from loralens.cli.words import Option
from loralens.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loralens.planner.shapes import AlikeTime, FitAnswer, GpuHours, Largest, Time


Tokens = Annotated[
    int | None, Option("--tokens", help="Tokens of the whole training: time and cost for these.", metavar="INTEGER")
]
Samples = Annotated[
    int | None,
    Option("--samples", help="Or samples of the whole training: completions, pairs or rows.", metavar="INTEGER"),
]
Prompts = Annotated[
    int | None,
    Option("--prompts", help="Or prompts of the whole training, where the objective generates.", metavar="INTEGER"),
]
Generations = Annotated[
    int | None,
    Option("--generations", help="Completions of each prompt (8 for GRPO, 2 for RLOO, 1 for PPO).", metavar="INTEGER"),
]
Utilization = Annotated[
    float | None,
    Option("--utilization", help="Share of the GPU's dense peak to expect, above 0, at most 1.", metavar="NUMBER"),
]
Market = Annotated[
    str | None,
    Option("--market", help="Prices of which market: on-demand (default), spot or reserved.", metavar="TEXT"),
]
Link = Annotated[
    str | None,
    Option(
        "--link",
        help="GB/s between two GPUs of the machine, or measured: what bench --calibrate kept here.",
        metavar="NUMBER|measured",
    ),
]
Nodes = Annotated[int | None, Option("--nodes", help="Machines that the GPUs of --gpus are in.", metavar="INTEGER")]
EXAMPLES = (
    ("loralens fit 8B --gpu 24GB", "verdict, largest batch and length, time, what to change"),
    ("loralens fit Qwen/Qwen3-32B --gpu h100 --method lora --tokens 10000000", "with time and cost"),
    ("loralens fit 70B --method full --gpus 32 --gpu h100 --nodes 4", "plans for 32 GPUs, with configs to paste"),
    ("loralens fit 8B --gpu 4090 && ./train.sh", "exit code 0 fits, 4 tight, 5 does not fit"),
)
PLAIN = frozenset({"forward", "backward", "optimizer", "other"})
SHOWN_TOKENS = 1_000_000
LENGTHS = (512, 1024, 2048, 4096, 8192, 16_384)


def fit(
    body: Body,
    tokens: Tokens = None,
    samples: Samples = None,
    prompts: Prompts = None,
    generations: Generations = None,
    utilization: Utilization = None,
    market: Market = None,
    link: Link = None,
    nodes: Nodes = None,
    json: Json = False,
) -> int:
    """Does a step fit, with which batch and length, how long does it take, and what should change?

    With --gpus and no --strategy: plans for so many GPUs, fastest first, with configs to paste (--nodes: in how many machines);
    other words, as --tp 2, choose among them.
    Where nothing is said: QLoRA, gradient checkpointing, rank 16 on every linear layer, and the GPU of this machine.
    Exit code: 0 fits, 4 tight, 5 does not fit.
    """
    from loralens.planner.fit import fit_answer
    from loralens.planner.practice import with_practice

    several = _several(body, nodes)
    filled: list[str] = []
    if not isinstance(body, WholeBody):
        body, filled = with_practice(body)
        body["gpu"] = body.get("gpu") or gpu_of_this_machine()
    if several and link is not None:
        raise InvalidInput(
            "plans are compared at the catalogue's links: --link goes with --strategy",
            field="link",
            hint="try --strategy fsdp2",
        )
    if several:
        return show_plans(body, json=json)
    own = {"tokens": tokens, "samples": samples, "prompts": prompts, "generations": generations,
           "utilization": utilization, "market": market}  # fmt: skip
    body |= {name: value for name, value in own.items() if value is not None}
    if link is not None:
        body["link_bytes_per_second"] = _link(link, body)
    answer = fit_answer(body)
    if json:
        print_json(answer)
    else:
        _show(answer, body, filled)
    return EXIT_CODES[answer["verdict"]]


command = takes_recipe(
    fit, {"method": "qlora", "gpu": "the one in this machine", "gradient_checkpointing": True, "rank": 16,
              "target_modules": "all-linear"}
)  # fmt: skip


def _several(body: Body, nodes: int | None) -> bool:
    """Are plans for several GPUs asked for? Then how many there are is no word of the recipe."""
    words = (body.get("recipe") or {}).get("parallelism") or {}
    if isinstance(body, WholeBody) or "strategy" in words or not _more_than_one_model(words):
        if nodes is not None:
            raise InvalidInput(
                "--nodes goes with --gpus, and without --strategy: plans are searched",
                field="nodes",
                hint="try --gpus 16",
            )
        return False
    body["gpus"], body["nodes"] = words.pop("gpus"), nodes or 1
    return True


def _more_than_one_model(words: Mapping[str, Any]) -> bool:
    """Are there more GPUs than those that one model is cut among? False where a word is no number, which its reader refuses."""
    sizes = [str(words.get(name, 1)) for name in ("gpus", "tp", "cp", "pp")]
    if not all(size.isdecimal() for size in sizes):
        return False
    gpus, *cuts = map(int, sizes)
    return gpus > prod(cuts)


def _link(text: str, body: Body) -> float:
    """Bytes a second: the number, or what was measured among cards like this one; by what the strategy sends."""
    if text != "measured":
        try:
            return float(text) * 1e9
        except ValueError:
            raise InvalidInput(f"{text!r:.40} is no number of GB/s", field="link", hint="try --link 10") from None
    from loralens.calibrations import links_of
    from loralens.settings import Settings

    found = links_of(Settings().state_directory(), str(body["gpu"]))
    if found is None:
        raise InvalidInput(
            f"no links were measured here among cards like {body['gpu']}",
            field="link",
            hint="loralens bench --calibrate --device cuda:0 measures them",
        )
    strategy = ((body.get("recipe") or {}).get("parallelism") or {}).get("strategy")
    return (found.all_reduce if strategy in ("ddp", "zero1", "zero2") else found.all_gather).bytes_per_second


def _show(answer: FitAnswer, body: Body, filled: list[str]) -> None:
    model, method, recipe = answer["model"], answer["method"], answer["recipe"]
    assumed = f"; as most train, where not asked: {', '.join(_said(answer, name) for name in filled)}" if filled else ""
    wrapped(f"{model['name']}, {method}{assumed}")
    for note in model.get("read_as", ()):
        wrapped(note)
    wrapped("recipe: " + " ".join(options(recipe, method)))
    show_remarks(answer)
    line()
    wrapped(sentence(answer["gpu"], answer["verdict"], answer["peak"]["needed_bytes"], answer["decided_by"]))
    line()
    table(
        ["all else as asked", "asked", "largest that safely fits"],
        [(name, f"{row['asked']:,}", _value(row)) for name, row in answer["largest"].items()],
    )
    _batches(body)
    _pace(answer, body)
    _quicker(answer)
    line("What to change:")
    _advise(answer)


def _said(answer: FitAnswer, name: str) -> str:
    recipe, method = answer["recipe"], answer["method"]
    words = {"method": method, "gradient_checkpointing": "gradient checkpointing", "rank": f"rank {recipe['lora']['rank']}",
             "target_modules": str(recipe["lora"]["target_modules"])}  # fmt: skip
    return str(words.get(name, name))


def _value(row: Largest) -> str:
    if row["value"] is None:
        return "none" if row["bounded_by"] == "memory" else "none that was traced"
    return f"{row['value']:,}" + (" or more" if row["bounded_by"] == "range" else "")


def _batches(body: Body) -> None:
    from loralens.planner.fit import batch_by_length

    rows = batch_by_length(body, LENGTHS)
    if any(value for _, value in rows):
        table(["length", *(f"{length:,}" for length, _ in rows)],
              [("largest batch", *("none" if not value else f"{value:,}" for _, value in rows))])  # fmt: skip


def _pace(answer: FitAnswer, body: Body) -> None:
    if answer["time"]:
        return _time(answer["time"], answer["recipe"]["parallelism"]["gpus"])
    from loralens.core.errors import LoraLensError
    from loralens.planner.fit import pace_of, withheld_of

    try:
        if why := withheld_of(body):
            return wrapped(f"How long: {why['en']}")
        rows = pace_of(body, SHOWN_TOKENS)
    except LoraLensError as error:
        return wrapped(f"How long: {error.message}.")
    if not rows:
        return wrapped("How long: not known, the rate of this card was not given (custom:24GiB,165TFLOP/s).")
    table([f"{SHOWN_TOKENS:,} tokens take", "at least", "expected", "four of five runs"],
          [(row["name"], _hours(row["least"]), _hours(row["expected"]), _band(row).strip(" ()")) for row in rows])  # fmt: skip
    line("--tokens N says it for yours, with the cost.")
    line()
    return None


def _quicker(answer: FitAnswer) -> None:
    if not answer["quicker"]:
        return
    line("What makes a step quicker:")
    for row in answer["quicker"]:
        change = f"{row['field']} {_word(row['from'])} → {_word(row['to'])}"
        wrapped(f"{change}: {_slower(row['time_ratio'])}, {row['saves_seconds']:.2g} s a step. {row['why']['en']}")
    line()


def _advise(answer: FitAnswer) -> None:
    advice = answer["advice"]
    if not advice:
        batch, length = (answer["largest"][name]["value"] for name in ("micro_batch_size", "sequence_length"))
        return wrapped(f"Nothing has to. There is room for a batch of {batch:,}, or for a length of {length:,}.")
    if not advice["changes"]:
        return wrapped("No change that is known makes it fit.")
    rows = [
        (row["field"], f"{_word(row['from'])} → {_word(row['to'])}", gib(row["saves_bytes"]) if row["saves_bytes"] > 0 else "",
         " ".join(part for part in ("" if row["cost"] == "time" else row["cost"], _slower(row["time_ratio"])) if part),
         "yes" if row["fits"] else "no")
        for row in advice["changes"]
    ]  # fmt: skip
    table(["change", "from → to", "saves", "costs", "enough alone"], rows, left=2)
    if advice["path"] is None:
        tried = ", ".join(dict.fromkeys(row["field"] for row in advice["changes"]))
        wrapped(f"The changes tried ({tried}), each as far as it goes and all together, are not enough.")
    else:
        line("To make it fit:")
        for number, row in enumerate(advice["path"], 1):
            saves = f"saves {gib(row['saves_bytes'])}. " if row["saves_bytes"] > 0 else ""
            wrapped(f"{number}. {row['field']} {_word(row['from'])} → {_word(row['to'])}: {saves}{row['why']['en']}")
        wrapped("as options: " + " ".join(option(row["field"], row["to"]) for row in advice["path"]))
    if advice["smallest_gpu"]:
        gpu = advice["smallest_gpu"]
        line(f"Without any change: {gpu['name']} ({gib(gpu['memory_bytes'])}).")
    if advice["several_gpus"]:
        several = advice["several_gpus"]
        wrapped(f"Or {several['gpus']} of this GPU, sharded: --gpus {several['gpus']} --strategy {several['strategy']}")
    return None


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _time(time: Time, gpus: int) -> None:
    hours = time["gpu_hours"]
    wrapped(f"{time['tokens']:,} tokens: {time['flops']:.3g} operations. {time['reasons']['en']}")
    if time["withheld"]:
        wrapped(time["withheld"]["en"])
        return line()
    if time["alike"]:
        return _alike(time["alike"])
    line(f"GPU hours: at least {_hours(hours['least'])}, expected {_hours(hours['expected'])}{_band(hours)}")
    _step(time)
    _iteration(time)
    if gpus > 1:
        least, expected = (None if value is None else value / gpus for value in (hours["least"], hours["expected"]))
        line(f"on {gpus} GPUs: at least {_hours(least)}, expected {_hours(expected)} by the clock")
    for row in time["cost"] if hours["expected"] is not None else []:
        price = (
            f"{row['market']} at ${row['usd_per_gpu_hour']:.2f}/h, {row['provider']} ({row['source']}; {row['date']})"
        )
        wrapped(f"about ${row['expected_usd']:.2f} {price}")
    for assumption in time["assumptions"]:
        wrapped(f"assumed: {assumption}")
    line()


def _alike(rows: list[AlikeTime]) -> None:
    """The range over known cards, where of this one only the memory is known."""
    slowest, quickest = rows[0], rows[-1]
    line(
        f"on cards with as much memory: {_hours(quickest['expected'])} ({quickest['name']}) to {_hours(slowest['expected'])} ({slowest['name']})"
    )
    for row in rows:
        cost = "" if row["expected_usd"] is None else f", about ${row['expected_usd']:.2f}"
        line(f"  {row['name']}: {_hours(row['expected'])}{_band(row)}{cost}")
    line()


def _band(hours: GpuHours) -> str:
    low, high = hours["low"], hours["high"]
    return "" if low is None or high is None else f" ({_hours(low)} to {_hours(high)})"


WAYS: Final = {"waited": "waited for", "ring": "while attention runs", "hidden": "while it computes"}


def _step(time: Time) -> None:
    step, speed = time["step_seconds"], time["tokens_per_second"]
    if step is None or speed is None:
        return
    if step["range"]:
        line(f"a step takes {step['low']:.3g} to {step['high']:.3g} s: the processor sets the pace")
    else:
        line(
            f"a step takes {step['expected']:.3g} s ({step['low']:.3g} to {step['high']:.3g}), {speed['expected']:,.0f} tokens/s"
        )
    shares = sorted(step["parts"].items(), key=lambda part: -part[1])
    shown = [
        f"{name.replace('_', ' ')} {value / step['expected']:.0%}"
        for name, value in shares
        if value >= step["expected"] / 100
    ]
    wrapped(f"of it {', '.join(shown)}")
    for row in step["transfers"]:
        place = "between machines" if row["between_machines"] else "inside a machine"
        line(
            f"{row['over']}: {row['seconds']:.3g} s {place} at {row['bytes_per_second'] / 1e9:.0f} GB/s, {WAYS[row['way']]}"
        )


def _iteration(time: Time) -> None:
    """What repeats, phase by phase; a step of plain training has said it already."""
    found, run = time["iteration"], time["run"]
    if found is None or {row["phase"] for row in found["phases"]} <= PLAIN:
        return
    seconds, hourly = found["seconds"], found["samples_per_hour"]
    at_once = "" if found["at_once"] is None else f", {found['at_once']:,} at once on a card"
    wrapped(
        f"an iteration of {_counted(found['samples'], 'sample')}{at_once}: {seconds['expected']:.3g} s "
        f"({seconds['low']:.3g} to {seconds['high']:.3g}), {hourly['expected']:,.0f} samples an hour; {_counted(run['samples'], 'sample')} "
        f"in {_counted(run['iterations'], 'iteration')}, {_counted(run['steps'], 'step')}"
    )
    table(["phase", "seconds", "four of five runs"],
          [(row["phase"].replace("_", " "), f"{row['expected']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}")
           for row in found["phases"]], left=2)  # fmt: skip


def _counted(number: int | None, what: str) -> str:
    """So many of it.

    >>> _counted(1, "step"), _counted(2000, "step")
    ('1 step', '2,000 steps')
    """
    return f"{number or 0:,} {what}{'' if number == 1 else 's'}"


def _slower(ratio: float | None) -> str:
    """How much longer a token takes.

    >>> _slower(1.27), _slower(0.9), _slower(1.001), _slower(None)
    ('+27% time', '-10% time', '', '')
    """
    percent = 0 if ratio is None else round(100 * (ratio - 1))
    return f"{percent:+d}% time" if percent else ""


def _hours(value: float | None) -> str:
    """Hours as a clock would say them.

    >>> _hours(0.05), _hours(2.5), _hours(100), _hours(None)
    ('3.0 min', '2.50 h', '4.2 days', 'not known')
    """
    if value is None:
        return "not known"
    if value < 1:
        return f"{60 * value:.1f} min"
    return f"{value:.2f} h" if value < 48 else f"{value / 24:.1f} days"
