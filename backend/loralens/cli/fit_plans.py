"""`loralens fit --gpus N`: plans for several GPUs, as a table, and the fastest one's configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.cli.options import Body
from loralens.cli.recipe_line import option
from loralens.cli.remarks import show_remarks
from loralens.cli.render import gib, line, print_json, table, wrapped
from loralens.cli.verdict import EXIT_CODES, because

if TYPE_CHECKING:
    from loralens.planner.shapes import PlanRow, PlansAnswer


SHOWN = 8


def show_plans(body: Body, *, json: bool) -> int:
    """Print them; the exit code is of the best one's verdict."""
    from loralens.planner.plans import plans_answer

    answer = plans_answer(body)
    if json:
        print_json(answer)
    else:
        _show(answer)
    nearest = answer["nearest"]
    if answer["plans"]:
        return EXIT_CODES["fits"]
    return EXIT_CODES["does_not_fit" if nearest is None else nearest["verdict"]]


def _show(answer: PlansAnswer) -> None:
    gpus, nodes, rows = answer["gpus"], answer["nodes"], answer["plans"]
    where = f" in {nodes} machines" if nodes > 1 else ""
    wrapped(f"{answer['model']['name']}, {answer['method']}, on {gpus} × {answer['gpu']['name']}{where}")
    for note in answer["model"].get("read_as", ()):
        wrapped(note)
    show_remarks(answer)
    line()
    if not rows:
        nearest = answer["nearest"]
        if nearest is None:
            return wrapped("No plan for so many GPUs is modelled for this model and method.")
        safely = "" if nearest["verdict"] == "does_not_fit" else " safely"
        wrapped(
            f"None of {answer['tried']} plans fits{safely}{because(nearest['decided_by'])}. The nearest needs "
            f"{gib(nearest['needed_bytes'])} a GPU to be safe{_of_machine(nearest)}:"
        )
        return wrapped(_options(nearest))
    wrapped(f"Of {answer['tried']} plans, those that no other beats in both memory and time, fastest first:")
    shown = [
        (_mesh(row), f"{row['micro_batch_size']}", "yes" if row["gradient_checkpointing"] else "no",
         gib(row["needed_bytes"]), _speed(row), _share(row, "communication"), _share(row, "bubble"))
        for row in rows[:SHOWN]
    ]  # fmt: skip
    table(
        ["plan", "micro-batch", "checkpointing", "GPU, to be safe", "tokens/s a GPU", "step in exchange", "step idle"],
        shown,
    )
    wrapped("step in exchange: its share spent between GPUs; step idle: waiting for other stages.")
    line("The first as options:")
    wrapped(_options(rows[0]))
    for name, text in rows[0]["configs"].items():
        line()
        line(f"{name}:")
        line(text.rstrip())
    line()
    for said in (*(row["en"] for row in answer["configs_left_out"]), *answer["assumptions"]):
        wrapped(said)
    return None


def _of_machine(row: PlanRow) -> str:
    """What a machine needs, where that decides."""
    if not row["decided_by"].startswith("host_memory"):
        return ""
    least, safe = row["host_needed_bytes"]
    return f", and a machine {gib(least)} of host memory at least, {gib(safe)} to be safe"


def _mesh(row: PlanRow) -> str:
    words = row["words"]
    parts = [f"{name} {size}" for name, size in row["mesh"].items() if size > 1]
    parts += ["kept gathered"] if words.get("reshard_after_forward") is False else []
    return ", ".join((*parts, *(name for name, value in words.items() if value is True)))


def _speed(row: PlanRow) -> str:
    speed = row["tokens_per_second_per_gpu"]
    return "not known" if speed is None else f"{speed:,.0f}"


def _share(row: PlanRow, part: str) -> str:
    step = row["step_seconds"]
    return "not known" if step is None else f"{step['parts'].get(part, 0.0) / step['expected']:.0%}"


def _options(row: PlanRow) -> str:
    words = row["words"] | {
        "micro_batch_size": row["micro_batch_size"],
        "gradient_accumulation_steps": row["gradient_accumulation_steps"],
        "gradient_checkpointing": row["gradient_checkpointing"],
    }
    return " ".join(option(name, value) for name, value in words.items())
