"""How to share a training step out among so many GPUs: the plans that no other beats in both memory and time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.moments import unified_note
from loralens.core.answer.pace import pace_on, tokens_per_step
from loralens.core.answer.verdict import VERDICTS
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.kinds import Place, Whole
from loralens.core.question.mesh import spread
from loralens.core.question.parallelism import Parallelism
from loralens.core.question.recipe import Recipe
from loralens.core.question.shapes import Pair
from loralens.core.question.words import words_of
from loralens.planner.beside import fits_card
from loralens.planner.meshes import Mesh, meshes
from loralens.planner.network import experts_of
from loralens.planner.pasted import configs, left_out
from loralens.planner.question import Question, read_question
from loralens.planner.remarks import idle_in_all, remarks_of_all
from loralens.planner.time import withheld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loralens.core.answer.pace import Pace
    from loralens.core.catalogue import Gpu
    from loralens.planner.shapes import PlanRow, PlansAnswer

OWN_WORDS: Final = ("gpu", "gpus", "nodes")
MOST_GPUS: Final = 1024
BATCHES: Final = (1, 2, 4, 8, 16, 32)
KEPT: Final = tuple(row.field for row in words_of(Parallelism) if row.kept)
"""Words of several GPUs that are no part of the search; every other one that is asked for chooses among its plans."""
LEAST_SAVED: Final = 0.01
"""Assumption: a slower plan that saves less of a GPU's memory than this is no choice of its own."""
ASSUMPTIONS: Final = (
    "plans tried: DDP, FSDP2 with and without reshard, HSDP, experts divided inside a machine, tensor parallel inside a machine, context parallel from 8,192 "
    "tokens on, two and four stages between machines; each with micro-batches of 1 to 32; a slower plan is shown where it saves 1% of "
    "the memory or more",
)
ON_A_DRIVE: Final = "plans tried: ZeRO-3 alone, as nothing else swaps to a drive; with micro-batches of 1 to 32"


def plans_answer(body: Any) -> PlansAnswer:
    """`POST /api/plans`: plans for `gpus` of one kind in `nodes` machines, fastest first, and the nearest where none fits.

    Raises:
        InvalidInput: no GPU, machines that the GPUs do not fill evenly, a word of `recipe.parallelism` that no plan of the search
            has, or anything else in the body.
        UnknownModel, UnknownGpu: nothing has that name.
    """
    question, own = read_question(body, OWN_WORDS)
    if own.get("gpu") is None:
        raise InvalidInput("no GPU was named", field="gpu", hint="try gpu=h100-sxm; GET /api/gpus lists all names")
    gpus = Whole(1, MOST_GPUS).read(own.get("gpus", 8), Place("gpus", 8))
    nodes = Whole(1, MOST_GPUS).read(own.get("nodes", 1), Place("nodes", 1))
    if gpus % nodes:
        raise InvalidInput(
            f"{gpus} GPUs do not fill {nodes} machines evenly", field="nodes", hint="try a divisor of gpus"
        )
    device = catalogue.gpu(own["gpu"])
    rows = search(question, device, gpus, nodes, _asked(body))
    fitting = [row for row in rows if row["fits"]]
    best = front(fitting)
    nearest = None if fitting or not rows else min(rows, key=_distance)
    shown = [_of(question, row) for row in (best or ([nearest] if nearest else []))]
    found = [one.estimate() for one in shown]
    return {
        "model": question.model_dict(),
        "method": question.method,
        "gpu": {"id": device.id, "name": device.name, "memory_bytes": device.memory_bytes},
        "gpus": gpus,
        "nodes": nodes,
        "tried": len(rows),
        "plans": best,
        "nearest": nearest,
        "configs_left_out": left_out(question.recipe, question.method),
        "without_effect": idle_in_all(found, question.recipe),
        "remarks": [*remarks_of_all(found), *unified_note(device)],
        "assumptions": [
            *([ON_A_DRIVE] if question.recipe.parallelism.offload_device == "nvme" else ASSUMPTIONS),
            *(_said(shown, device) if best else ()),
        ],
    }


def _asked(body: Any) -> list[str]:
    """The words of the body's `parallelism` that plans are chosen by."""
    given = (body.get("recipe") or {}).get("parallelism") or {}
    return [name for name in spread(given) if name not in KEPT and (name != "gpus" or name in given)]


def search(question: Question, device: Gpu, gpus: int, nodes: int, asked: Sequence[str] = ()) -> list[PlanRow]:
    """Every plan of the space that is modelled and has the `asked` words; of micro-batches the ones that fit, or the smallest.

    Raises:
        InvalidInput: no plan has what was asked for.
    """
    rows: list[PlanRow] = []
    for mesh in _chosen(question, gpus, nodes, asked):
        for batch in BATCHES:
            row = _row(question, mesh, batch, device, nodes)
            if row is None:
                break
            if row["fits"] or batch == BATCHES[0]:
                rows.append(row)
            if not row["fits"]:
                break
    return rows


def _chosen(question: Question, gpus: int, nodes: int, asked: Sequence[str]) -> list[Mesh]:
    own = question.recipe.parallelism
    kept = {name: getattr(own, name) for name in KEPT}
    alone = replace(question.recipe, parallelism=Parallelism(**kept, machine_gpus=gpus // nodes))
    found = list(meshes(alone, gpus, nodes, experts_of(question)))
    for name in asked:
        wanted = getattr(own, name)
        tried = dict.fromkeys(str(getattr(mesh.recipe.parallelism, name)) for mesh in found)
        found = [mesh for mesh in found if getattr(mesh.recipe.parallelism, name) == wanted]
        if not found:
            raise InvalidInput(
                f"no plan for {gpus} GPUs has {name}={wanted} beside what else was asked for",
                field=f"parallelism.{name}",
                hint=f"leave {name} out of the search; plans have {', '.join(tried)}",
            )
    return found


def front(rows: list[PlanRow]) -> list[PlanRow]:
    """The rows that no other beats in both memory and speed, fastest first; by level where no speed is known.

    A slower one has to save `LEAST_SAVED`: memory that reads as equal is no reason to wait longer.
    """

    def slowness(row: PlanRow) -> float:
        speed = row["tokens_per_second_per_gpu"]
        return row["level"] if speed is None else -speed

    kept: list[PlanRow] = []
    for row in sorted(rows, key=lambda row: (slowness(row), row["needed_bytes"])):
        if not kept or row["needed_bytes"] <= (1 - LEAST_SAVED) * kept[-1]["needed_bytes"]:
            kept.append(row)
    return kept


def _distance(row: PlanRow) -> tuple[int, int]:
    """From fitting: what the cards hold is nearer than what they do not, and of equals what needs less."""
    return VERDICTS.index(row["verdict"]), row["needed_bytes"]


def _row(question: Question, mesh: Mesh, batch: int, device: Gpu, nodes: int) -> PlanRow | None:
    asked = replace(question, recipe=replace(mesh.recipe, micro_batch_size=batch))
    try:
        found = asked.estimate()
    except LoraLensError:  # this model or method is not modelled so
        return None
    needed, pace, judged = found.overhead.needed[1], pace_of(asked, device), found.fits([device.id])[0]
    step = None if pace is None else pace.to_dict()["step_seconds"]
    p = found.recipe.parallelism
    return {
        "level": mesh.level,
        "mesh": shape(p),
        "words": _words(p, question.recipe.parallelism),
        "micro_batch_size": batch,
        "gradient_accumulation_steps": found.recipe.gradient_accumulation_steps,
        "gradient_checkpointing": found.recipe.gradient_checkpointing,
        "tokens_per_step": tokens_per_step(found.recipe),
        "allocated_bytes": found.allocated_bytes,
        "needed_bytes": needed,
        "fits": fits_card(asked, device),
        "verdict": judged["verdict"],
        "decided_by": judged["decided_by"],
        "host_needed_bytes": Pair(list(found.host.needed)),
        "seconds_per_step": None if pace is None else pace.step.seconds,
        "step_seconds": step,
        "tokens_per_second_per_gpu": None if pace is None else pace.tokens_per_second / p.gpus,
        "recipe": found.recipe.to_dict(),
        "configs": configs(found.recipe, nodes, question.method),
    }


def pace_of(question: Question, device: Gpu) -> Pace | None:
    """The time of a step; None where it is not known or nothing can be said of it."""
    try:
        if withheld(question, device):
            return None
        return pace_on(question.model, question.method, question.recipe, device)
    except LoraLensError:
        return None


def _of(question: Question, row: PlanRow) -> Question:
    """The question that a plan is the answer to."""
    return replace(question, recipe=Recipe.from_mapping(row["recipe"]))


def _said(plans: list[Question], device: Gpu) -> list[str]:
    """What the times of the plans rest on, each sentence once."""
    said: dict[str, None] = {}
    for plan in plans:
        pace = pace_of(plan, device)
        said |= dict.fromkeys(pace.notes if pace is not None else ())
    return list(said)


def shape(p: Parallelism) -> dict[str, int]:
    """The mesh by torch's names."""
    sharding = p.sharding if p.strategy not in ("none", "ddp") else 1
    copies = p.data_parallel // sharding
    return {
        "dp_replicate": copies,
        "dp_shard": max(1, sharding // p.cp),
        "cp": p.cp,
        "tp": p.tp,
        "pp": p.pp,
        "ep": p.ep,
    }


def _words(p: Parallelism, asked: Parallelism) -> dict[str, Any]:
    """What to say beside the question for this plan, by flat names."""
    names = (
        "gpus", "machine_gpus", "strategy", "dp_replicate", "reshard_after_forward", "tp", "sequence_parallel", "loss_parallel", "cp", "pp", "ep",
    )  # fmt: skip
    return {name: getattr(p, name) for name in names if getattr(p, name) != getattr(asked, name)}
