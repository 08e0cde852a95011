"""Plans that were made by tracing, as the rows of a file: written by the lab, read for every answer.

A size is a list of [monomial, coefficient]. Moments and timeline name entries by place in `labels` and `sizes`, each what differs
from the moment before it in the file: little does, and the file stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Final

from loralens.core.answer.planned import CompiledPlan
from loralens.core.errors import InvalidInput
from loralens.core.question.media import MEDIA_WORDS
from loralens.core.question.recipe import Recipe
from loralens.core.question.traced import TracedPlans, differing, malformed
from loralens.core.step.counts import Counts
from loralens.core.step.held import Held
from loralens.core.tape.ledger import CATEGORIES, Entry, Moment, TimelinePoint
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import MONOMIALS, RANK, VARIABLES, ZERO, Dim, Size
from loralens.core.tape.validity import Validity

PHASES: Final = ("forward", "backward", "optimizer")
_LARGEST: Final = 2**62


class TracedParameter(Parameter):
    """A weight as a trace held it: packed ones with their scales."""

    __slots__ = ("held_bytes",)

    def __init__(self, shape: Iterable[Dim], role: str, held_bytes: Size) -> None:
        super().__init__(tuple(shape), role=role)
        self.held_bytes = held_bytes

    @property
    def bytes(self) -> Size:
        """What it occupied."""
        return self.held_bytes


def traced_plan(traced: TracedPlans, method: str, recipe: Recipe) -> CompiledPlan:
    """The plan of a method that covers a recipe.

    Raises:
        InvalidInput: the method, a word or the setting was not traced; the message says what was.
    """
    of_method = [row for row in traced.plans if row["method"] == method]
    if not of_method:
        raise InvalidInput(
            f"this model was traced for {', '.join(traced.methods)}, not for {method}",
            field="method",
            hint=f"loralens trace … -m {method} --plan FILE traces it",
        )
    try:
        _same_words(of_method[0], method, recipe)
    except KeyError as problem:
        raise malformed(f"a plan in it has no {problem.args[0]}") from None
    setting = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    for row in of_method:
        if _validity(row, recipe).covers(*setting):
            return _read(row, traced, recipe)
    reach = "; ".join(dict.fromkeys(_reach(_validity(row, recipe)) for row in of_method))
    raise InvalidInput(
        f"batch {setting[0]}, length {setting[1]:,} and rank {setting[2]} were not traced: the plan holds for {reach}",
        field="recipe.sequence_length",
        hint="a plan never goes beyond what was traced; loralens trace … --plan FILE with these numbers makes another",
    )


def covered(traced: TracedPlans, method: str, recipe: Recipe, variable: str) -> range:
    """The values of one variable that a method's plans cover, all else as in the recipe."""
    place = VARIABLES.index(variable)
    asked = [recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank]
    low, high, step = 1, 0, 1
    for row in traced.plans:
        validity = _validity(row, recipe)
        first, last = validity.ranges[variable]
        modulus, left = validity.remainders.get(variable, (1, 0))
        first += (left - first) % modulus
        asked[place] = first
        batch, length, rank = asked
        if row["method"] == method and validity.covers(batch, length, rank):
            low, high, step = (first if not high else min(low, first)), max(high, last), max(step, modulus)
    return range(low, high + 1, step)


def holds(traced: TracedPlans, method: str, recipe: Recipe, variable: str, value: int) -> bool:
    """Does any of a method's plans cover this value, whatever the others are?"""
    for row in traced.plans:
        validity = _validity(row, recipe)
        low, high = validity.ranges[variable]
        modulus, left = validity.remainders.get(variable, (1, 0))
        if row["method"] == method and low <= value <= high and value % modulus == left % modulus:
            return True
    return False


def _same_words(row: Mapping[str, Any], method: str, recipe: Recipe) -> None:
    given = Recipe.from_mapping(row["recipe"])
    if other := differing(recipe, given, method, targets_open=row["targets_open"] is True):
        name, (asked, was) = next(iter(other.items()))
        raise InvalidInput(
            f"{name} {asked!r} was not traced: the plan was made with {was!r}"
            + (f", and differs in {', '.join(list(other)[1:])} too" if len(other) > 1 else ""),
            field=f"recipe.{name}",
            hint=f"ask with {name}={was}, or trace with {name}={asked}",
        )


def _reach(validity: Validity) -> str:
    said = [
        f"{name} {low:,} to {high:,}" if low < high else f"{name} {low:,}"
        for name, (low, high) in validity.ranges.items()
    ]
    said += [f"{name} = {left} modulo {modulus}" for name, (modulus, left) in validity.remainders.items()]
    return ", ".join(said)


def plan_row(plan: CompiledPlan, *, targets_open: bool) -> dict[str, object]:
    """A plan as JSON, which `traced_plan` reads. `targets_open`: did nobody name the adapters' target modules?"""
    labels: dict[Entry, int] = {}
    sizes: dict[Size, int] = {}

    before: dict[Entry, Size] = {}

    def entries(moment: Moment) -> list[int]:
        nonlocal before
        places: list[int] = []
        for entry in dict.fromkeys((*before, *moment.entries)):
            size = moment.entries.get(entry, ZERO)
            if size != before.get(entry, ZERO):
                places += (labels.setdefault(entry, len(labels)), sizes.setdefault(size, len(sizes)))
        before = moment.entries
        return places

    moments = [[moment.phase, moment.label, entries(moment)] for moment in plan.moments]
    timeline = [
        [point.phase, point.label, point.repeat, entries(point.first), entries(point.last)] for point in plan.points
    ]
    return {
        "method": plan.method,
        "regime": plan.regime,
        "recipe": plan.recipe.to_dict(),
        "targets_open": targets_open,
        "notes": plan.assumptions,
        "valid": {name: list(bounds) for name, bounds in plan.validity.ranges.items()},
        "remainders": {name: list(pair) for name, pair in plan.validity.remainders.items()},
        "parameters": [_parameter_row(item) for item in plan.held],
        "labels": [list(entry) for entry in labels],
        "sizes": [_sparse(size) for size in sizes],
        "moments": moments,
        "timeline": timeline,
    }


def _sparse(size: Size) -> list[list[int]]:
    return [[index, coefficient] for index, coefficient in enumerate(size) if coefficient]


def _parameter_row(item: Held) -> list[Any]:
    parameter = item.parameter
    shape = [dim if isinstance(dim, int) else [dim.at(1, 1, 1)] for dim in parameter.shape]
    return [
        parameter.label,
        shape,
        parameter.dtype,
        parameter.role,
        parameter.trainable,
        item.count,
        _sparse(parameter.bytes),
    ]


def _read(row: Mapping[str, Any], traced: TracedPlans, recipe: Recipe) -> CompiledPlan:
    """A row of the file; raises `InvalidInput` where it is none."""
    try:
        return _plan(row, traced, recipe)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
        if isinstance(problem, InvalidInput):
            raise
        raise malformed("a plan in it cannot be read") from problem


def _plan(row: Mapping[str, Any], traced: TracedPlans, recipe: Recipe) -> CompiledPlan:
    sizes = [_size(one) for one in row["sizes"]]
    labels = [(_one_of(category, CATEGORIES), str(label)[:300]) for category, label in row["labels"]]

    held_then: dict[Entry, Size] = {}

    def entries(places: list[int]) -> dict[Entry, Size]:
        for label, size in zip(places[::2], places[1::2], strict=True):
            held_then[labels[label]] = sizes[size]
        return {entry: size for entry, size in held_then.items() if size != ZERO}

    moments = [_moment(phase, label, entries(places)) for phase, label, places in row["moments"]]
    points = [
        TimelinePoint(
            str(phase),
            str(label)[:300],
            _whole(repeat),
            _moment(phase, label, entries(first), ("setup", *PHASES)),
            _moment(phase, label, entries(last), ("setup", *PHASES)),
        )
        for phase, label, repeat, first, last in row["timeline"]
    ]
    held = [_held(*one) for one in row["parameters"]]
    if not moments or not points:
        raise malformed("a plan in it has no moments")
    given = Recipe.from_mapping(row["recipe"])
    counts = Counts.of(held, given.weights_dtype)
    return CompiledPlan(
        method=str(row["method"]),
        recipe=given,
        regime=str(row["regime"])[:200],
        assumptions=[str(note)[:500] for note in row["notes"]],
        total=counts.total,
        trainable=counts.trainable,
        checkpoint_bytes=counts.checkpoint_bytes,
        adapter_bytes=counts.adapter_bytes,
        host_bytes=ZERO,
        moments=moments,
        points=points,
        validity=_validity(row, recipe),
        held=held,
        media=MEDIA_WORDS,
        base_parameters=traced.parameters,
        terms=[tuple((i, c) for i, c in enumerate(moment.total) if c) for moment in moments],
        traced_with=traced.source,
    )


def _moment(phase: Any, label: Any, entries: dict[Entry, Size], phases: tuple[str, ...] = PHASES) -> Moment:
    total = ZERO
    for size in entries.values():
        total = total + size
    return Moment(_one_of(phase, phases), str(label)[:300], total, entries)


def _held(label: str, shape: list[Any], dtype: str, role: str, trainable: bool, count: int, held_bytes: Any) -> Held:
    _whole(prod(_whole(dim[0] if isinstance(dim, list) else dim) for dim in shape))  # together no more than one alone
    dims: list[Dim] = [RANK * dim[0] if isinstance(dim, list) else dim for dim in shape]
    parameter = TracedParameter(dims, _one_of(role, ("base", "adapter")), _size(held_bytes))
    parameter.label, parameter.dtype, parameter.trainable = str(label)[:300], str(dtype)[:40], trainable is True
    return Held(parameter, _whole(count))


def _size(pairs: list[list[int]]) -> Size:
    coefficients = [0] * len(MONOMIALS)
    for index, coefficient in pairs:
        coefficients[range(len(MONOMIALS))[index]] = _whole(coefficient)
    return Size(coefficients)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise TypeError
    return value


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    return allowed[allowed.index(value)]


def _validity(row: Mapping[str, Any], recipe: Recipe) -> Validity:
    validity = Validity(recipe)
    try:
        for name in VARIABLES:
            low, high = row["valid"][name]
            validity.ranges[name] = [_whole(low), _whole(high)]
        for name, (modulus, left) in row["remainders"].items():
            validity.remainders[_one_of(name, VARIABLES)] = (max(1, _whole(modulus)), _whole(left))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise malformed("a plan in it does not say where it holds") from None
    return validity
