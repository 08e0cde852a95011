"""Many settings at once: the peak over a grid of batch, length and rank, read off the plan's coefficients with NumPy.

A plan holds for a range of settings (a sliding window or the smallest 8-bit tensor ends it); points outside are handed
to the next plan, until every point is covered. The numbers are the ones that single estimates give, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final, cast

from loralens.core import catalogue
from loralens.core.answer.answers import model_object, read_body
from loralens.core.answer.overhead import needed_by_rule
from loralens.core.answer.plan import plan_for
from loralens.core.answer.planned import CompiledPlan
from loralens.core.answer.traced import holds
from loralens.core.answer.trainer import trained
from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.question.bodies import request_body
from loralens.core.question.recipe import Recipe
from loralens.core.tape.size import VARIABLES, monomial_values
from loralens.planner.points import at_setting, peaks_one_by_one, setting_of
from loralens.planner.question import SUBJECT, Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from loralens.core.question.traced import TracedPlans
    from loralens.planner.shapes import Sweep, SweepAnswer

MAX_POINTS: Final = 100_000
MAX_PLANS: Final = 64
"""A plan takes some 50 ms to make, and a few models need one for each number of tokens."""
MAX_HUGE_POINTS: Final = 5_000
"""Where bytes leave 64 bits: Python's integers take a quarter of a millisecond for each point."""
MOST_JUDGED: Final = 256
"""Points that are estimated whole for their verdict; each takes some milliseconds."""
SAFE_INT64: Final = 2**56
"""Bytes. Above it the bands' percentages could leave 64 bits, and Python's integers take over."""


def sweep_answer(body: Any) -> SweepAnswer:
    """`POST /api/sweep`: `sweep` names one list of values per variable; the answer's arrays run over their product.

    Arrays are flat, in C order: the last variable of `variables` changes fastest. `phases` holds indices into
    `phase_names`. Of a traced model the values that no plan of it covers are left out.

    With a `gpu`, `verdicts` judges every point as `/api/memory` would, and `fits` says for which the verdict is
    `fits`. Where more than the step has to fit (an engine, an evaluation, what a machine keeps), every point is
    estimated whole; neither is known of more than MOST_JUDGED points then.

    Raises:
        InvalidInput: no sweep, a value out of range, too many points, or anything else in the body that is malformed.
        UnknownModel, UnknownGpu: nothing has that name.
    """
    body = request_body(body, sorted(SUBJECT | {"gpu", "sweep"}), _HINT)
    axes = _axes(body.get("sweep"))
    model, methods, recipe, _ = read_body(
        {name: value for name, value in body.items() if name != "sweep" and (name, value) != ("gpu", None)}
    )
    if model.traced is not None:
        axes = _traced_axes(axes, model.traced, methods, recipe)
        recipe = at_setting(recipe, *_first(axes, recipe))  # the recipe's own setting need not have been traced
    device = None if body.get("gpu") is None else catalogue.gpu(body["gpu"])
    sweeps: list[Sweep] = []
    names: list[str] = []  # an objective has its phases with every method
    for method in methods:
        question = Question(model, method, trained(model, method, recipe))
        found = question.estimate()
        names = names or found.plan.phases
        sizes, needed, phases = _found(question, axes, several=recipe.parallelism.gpus > 1, varying=found.recipe.padded)
        left_out = found.left_out_bytes or 0
        least, safe = ([size + left_out for size in ends] for ends in needed)
        row: Sweep = {
            "method": method,
            "peak_allocated_bytes": sizes,
            "needed_bytes": safe,
            "phases": phases,
        }
        if device is not None:
            verdicts = found.verdicts(zip(least, safe, strict=True), _lengths(axes, recipe), device) or _judged(
                question, axes, device
            )
            row["verdicts"] = verdicts
            row["fits"] = None if verdicts is None else [one == "fits" for one in verdicts]
        sweeps.append(row)
    adapted = next((method for method in methods if method != "full"), None)
    recipe = trained(model, adapted or methods[0], recipe)
    if adapted is not None:
        targets = Question(model, adapted, recipe).estimate().recipe.lora.target_modules
        recipe = replace(recipe, lora=replace(recipe.lora, target_modules=targets))
    return {
        "model": model_object(model),
        "recipe": recipe.to_dict(),
        "gpu": None if device is None else {"id": device.id, "name": device.name, "memory_bytes": device.memory_bytes},
        "variables": [{"name": name, "values": values} for name, values in axes.items()],
        "shape": [len(values) for values in axes.values()],
        "phase_names": names,
        "sweeps": sweeps,
    }


def _lengths(axes: Mapping[str, list[int]], recipe: Recipe) -> list[int]:
    """The sequence length of every point."""
    asked = recipe.sequence_length
    return [dict(zip(axes, values, strict=True)).get("sequence_length", asked) for values in product(*axes.values())]


def _judged(question: Question, axes: Mapping[str, list[int]], device: catalogue.Gpu) -> list[str] | None:
    """The verdict of every point's whole estimate; None of too many."""
    if prod(len(values) for values in axes.values()) > MOST_JUDGED:
        return None
    recipe, base = question.recipe, setting_of(question.recipe)
    verdicts: list[str] = []
    for values in product(*axes.values()):
        batch, length, rank = ({**base, **dict(zip(axes, values, strict=True))}[name] for name in VARIABLES)
        found = replace(question, recipe=at_setting(recipe, batch, length, rank)).estimate()
        verdicts.append(found.fits((device.id,))[0]["verdict"])
    return verdicts


def _found(
    question: Question, axes: Mapping[str, list[int]], *, several: bool, varying: bool
) -> tuple[list[int], tuple[list[int], list[int]], list[int]]:
    """Peak, what a card must have at least and to be safe, and the phase, for every point."""
    if find_spec("numpy") is None:
        sizes, phases = peaks_one_by_one(question, axes)
        ends = [needed_by_rule(size, several=several, varying=varying) for size in sizes]
        return sizes, ([least for least, _ in ends], [safe for _, safe in ends]), phases
    allocated, indices = peaks(question, axes)
    # arrays pass through it as integers do
    least, safe = needed_by_rule(cast("Any", allocated), several=several, varying=varying)
    return _integers(allocated), (_integers(least), _integers(safe)), _integers(indices)


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]


def peaks(question: Question, axes: Mapping[str, list[int]]) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Peak bytes and the phase of the peak for every point of the product of `axes`.

    Shapes: both (points,), in C order over the axes as given.
    """
    import numpy as np

    recipe, base = question.recipe, setting_of(question.recipe)
    grid = np.meshgrid(*(np.asarray(values, dtype=np.int64) for values in axes.values()), indexing="ij")
    columns = dict(zip(axes, (array.ravel() for array in grid), strict=True))
    count = prod(len(values) for values in axes.values())
    points = [columns.get(name, np.full(count, base[name], dtype=np.int64)) for name in VARIABLES]
    sizes = np.zeros(count, dtype=object)
    phases = np.zeros(count, dtype=np.int8)
    left = np.ones(count, dtype=bool)
    for _ in range(MAX_PLANS):
        if not left.any():
            break
        first = int(np.argmax(left))
        batch, length, rank = (int(values[first]) for values in points)
        plan = plan_for(question.model, question.method, at_setting(recipe, batch, length, rank))
        here = left & _covered(plan, points)
        sizes[here], phases[here] = _evaluate(plan, [values[here] for values in points])
        left &= ~here
    if left.any():
        raise InvalidInput(
            f"these values need more than {MAX_PLANS} separate formulas for this model",
            field="sweep",
            hint="use fewer values",
        )
    narrow = sizes.max() <= SAFE_INT64
    return (sizes.astype(np.int64) if narrow else sizes), phases


def _evaluate(plan: CompiledPlan, points: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    largest = max(plan.peaks(*(int(values.max()) for values in points))[0].values())
    if largest > SAFE_INT64:
        if len(points[0]) > MAX_HUGE_POINTS:
            raise InputTooLarge(
                f"{len(points[0]):,} points beyond 2^56 bytes, at most {MAX_HUGE_POINTS:,} are computed at once",
                field="sweep",
                hint="no GPU has that much memory: use smaller batches or lengths, or fewer values",
            )
        points = [values.astype(object) for values in points]
    # `monomial_values` multiplies whatever it is given: numbers for an estimate, arrays here.
    values = monomial_values(*points)  # type: ignore[arg-type]
    best = np.full(len(points[0]), -1, dtype=points[0].dtype)
    phases, names = np.zeros(len(points[0]), dtype=np.int8), plan.phases
    for moment, terms in zip(plan.moments, plan.terms, strict=True):
        size = sum(coefficient * values[index] for index, coefficient in terms)
        above = size > best
        best = np.where(above, size, best)
        phases[np.broadcast_to(above, phases.shape)] = names.index(moment.phase)
    return best, phases


def _covered(plan: CompiledPlan, points: list[NDArray[Any]]) -> NDArray[np.bool_]:
    import numpy as np

    inside = np.ones(len(points[0]), dtype=bool)
    for name, values in zip(VARIABLES, points, strict=True):
        low, high = plan.validity.ranges[name]
        inside &= (values >= low) & (values <= high)
        if name in plan.validity.remainders:
            modulus, left = plan.validity.remainders[name]
            inside &= values % modulus == left
    return inside


def _first(axes: Mapping[str, list[int]], recipe: Recipe) -> tuple[int, int, int]:
    base = setting_of(recipe)
    batch, length, rank = (axes.get(name, [base[name]])[0] for name in VARIABLES)
    return batch, length, rank


def _traced_axes(
    axes: dict[str, list[int]], traced: TracedPlans, methods: Iterable[str], recipe: Recipe
) -> dict[str, list[int]]:
    """The values that were traced; all of an axis where none was, and the answer then says what was."""
    kept = {}
    for name, values in axes.items():
        there = [value for value in values if all(holds(traced, method, recipe, name, value) for method in methods)]
        kept[name] = there or values
    return kept


def _axes(given: Any) -> dict[str, list[int]]:
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput("sweep must name at least one variable with a list of values", field="sweep", hint=_HINT)
    axes: dict[str, list[int]] = {}
    for name, values in given.items():
        if name not in VARIABLES:
            raise InvalidInput(
                f"cannot sweep over {str(name)[:60]!r}", field="sweep", hint=f"allowed: {', '.join(VARIABLES)}"
            )
        field = f"sweep.{name}"
        if not isinstance(values, (list, tuple)) or not values:
            raise InvalidInput(f"{field} must be a list of integers", field=field, hint=_HINT)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidInput(f"{field} must hold integers, got {value!r:.40}", field=field, hint=_HINT)
        # The recipe knows the ranges; its two ends speak for the rest.
        for value in (min(values), max(values)):
            Recipe.from_mapping({"lora": {"rank": value}} if name == "rank" else {name: value})
        axes[name] = list(values)
    count = prod(len(values) for values in axes.values())
    if count > MAX_POINTS:
        raise InvalidInput(
            f"the sweep has {count:,} points; at most {MAX_POINTS:,} are answered",
            field="sweep",
            hint="use fewer values",
        )
    return axes


_HINT: Final = 'try {"model": "7B", "method": "lora", "sweep": {"rank": [4, 8, 16], "sequence_length": [512, 2048]}}'
