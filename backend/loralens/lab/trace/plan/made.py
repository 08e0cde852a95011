"""From a model and a recipe to plans, by tracing: fit, check at a further setting, narrow where they disagree, or refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from loralens.core.answer.planned import CompiledPlan
from loralens.core.answer.traced import TracedParameter
from loralens.core.architecture.moe_looped import EQUAL_SHARES
from loralens.core.errors import InvalidInput
from loralens.core.methods.base import precision_text
from loralens.core.step.counts import Counts
from loralens.core.step.held import Held
from loralens.core.tape.size import RANK, ZERO
from loralens.core.tape.validity import Validity
from loralens.lab.trace.ledger import Recorded
from loralens.lab.trace.plan.aligned import Aligned, Misfit, align, check, in_order, same_step
from loralens.lab.trace.plan.boxes import STEP, Box, Boxes
from loralens.lab.trace.plan.replayed import replay, starred
from loralens.lab.trace.plan.sizes import Setting

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.size import Dim, Size

Trace = Callable[[Setting], Recorded]
_OFF_RASTER: Final = (37, 8)  # lengths off the raster: an odd one, and one of whole eights
_ANY: Final = (1, 65_536)


@dataclass(slots=True)
class Fitted:
    """A plan with the settings that were traced for it: fitted, and checked without a part in the fit."""

    plan: CompiledPlan
    fitted: list[Setting]
    checked: list[Setting]


@dataclass(slots=True)
class Tracer:
    """Traces each setting once."""

    trace: Trace
    seen: dict[Setting, Recorded] = field(default_factory=dict)

    def at(self, setting: Setting) -> Recorded:
        """The step's storages and events at a setting."""
        if setting not in self.seen:
            self.seen[setting] = in_order(self.trace(setting))
        return self.seen[setting]


def plans(
    config: Mapping[str, Any], method: str, recipe: Recipe, trace: Trace, usual: str | tuple[str, ...] | None = None
) -> list[Fitted]:
    """Plans of a method: for two samples and more, and for one where PyTorch takes other ways.

    `usual`: the adapters' target modules where the recipe names none; None: PEFT's own, which the trace shows.

    Raises:
        InvalidInput: the step cannot be traced.
    """
    tracer, said = Tracer(trace), ""
    ranked = method != "full"
    ladder = Boxes(config, recipe, ranked)
    box: Box | None = ladder.first()
    while box is not None:
        try:
            found, checked, eights = _fit(box, tracer)
            break
        except Misfit as misfit:
            said = said or misfit.said
            box = ladder.narrower(box, resident=misfit.resident, grows=misfit.grows)
    else:
        raise InvalidInput(f"no plan fits this model's traces: {said}", field="model")
    make = _Maker(method, recipe, tracer, usual, said, ranked)
    several = make.plan(box, found, checked, eights)
    if box.batch[0] != 2:
        return [several]
    one = box.of_one()
    try:
        check(found, one.fitted()[0], tracer.at(one.fitted()[0]), box.fitted()[-1])
    except Misfit:
        try:
            alone = make.plan(one, *_fit(one, tracer))
        except Misfit:
            return [several]
        return [several, alone]
    several.plan.validity.ranges["micro_batch_size"][0] = 1
    several.checked.append(one.fitted()[0])
    return [several]


def _fit(box: Box, tracer: Tracer) -> tuple[Aligned, list[Setting], tuple[int, int] | None]:
    """The aligned traces of a box, where they were checked, and the remainder that lengths must leave (None: any)."""
    settings = box.fitted()
    records = [tracer.at(settings[0])]
    for setting in settings[
        1:
    ]:  # one by one: a loop over positions shows in the second trace, and its third takes long
        records.append(tracer.at(setting))
        same_step(records[0], settings[0], records[-1], setting)
    found = align(records, settings)
    if box.pinned:
        return found, [], None
    if box.length[0] < box.length[1]:
        for offset, modulus in zip(_OFF_RASTER, (1, _OFF_RASTER[1]), strict=True):
            setting = box.between(offset)
            try:
                check(found, setting, tracer.at(setting), settings[-1])
            except Misfit:
                continue
            return found, [setting], None if modulus == 1 else (modulus, box.length[0] % modulus)
    setting = box.between(0)
    check(found, setting, tracer.at(setting), settings[-1])
    return found, [setting], (STEP, box.length[0] % STEP) if box.length[0] < box.length[1] else None


@dataclass(frozen=True, slots=True)
class _Maker:
    """What all plans of a method share."""

    method: str
    recipe: Recipe
    tracer: Tracer
    usual: str | tuple[str, ...] | None
    narrowed: str  # why the widest box did not do; empty where it did
    ranked: bool

    def plan(self, box: Box, aligned: Aligned, checked: list[Setting], remainder: tuple[int, int] | None) -> Fitted:
        """The plan of a box."""
        ledger, settings = replay(aligned), box.fitted()
        validity = Validity(self.recipe)
        validity.ranges = {
            "micro_batch_size": list(box.batch),
            "sequence_length": list(box.length),
            "rank": list(box.rank if self.ranked else _ANY),
        }
        if remainder is not None:
            validity.remainders["sequence_length"] = remainder
        held = list(_held([self.tracer.at(setting) for setting in settings], settings, aligned))
        counts = Counts.of(held, self.recipe.weights_dtype)
        plan = CompiledPlan(
            method=self.method,
            recipe=self._named(aligned),
            regime=_regime(self.method, self.recipe),
            assumptions=list(self._notes(aligned, settings, checked)),
            total=counts.total,
            trainable=counts.trainable,
            checkpoint_bytes=counts.checkpoint_bytes,
            adapter_bytes=counts.adapter_bytes,
            host_bytes=ZERO,
            moments=ledger.moments,
            points=ledger.points,
            validity=validity,
            held=held,
            terms=[tuple((i, c) for i, c in enumerate(moment.total) if c) for moment in ledger.moments],
        )
        return Fitted(plan, settings, checked)

    def _notes(self, aligned: Aligned, settings: list[Setting], checked: list[Setting]) -> Iterator[str]:
        yield (
            f"traced at {_shown(settings)}"
            + (
                f", and checked at {_shown(checked)}, where every tensor has the size that the plan gives"
                if checked
                else ""
            )
        )
        if any(storage.op.startswith("aten.nonzero") for storage in aligned.record.storages):  # a loop over experts
            yield EQUAL_SHARES
        if self.narrowed:
            yield f"traces over a wider range do not fit one plan: {self.narrowed}"

    def _named(self, aligned: Aligned) -> Recipe:
        """The recipe with the target modules that PEFT chose, where nobody named any."""
        lora = self.recipe.lora
        if self.method == "full" or lora.target_modules is not None:
            return self.recipe
        targets = self.usual or _targets(aligned.record)
        return replace(self.recipe, lora=replace(lora, target_modules=targets))


def _shown(settings: list[Setting]) -> str:
    return "; ".join(f"{batch} × {length:,} (rank {rank})" for batch, length, rank in settings)


def _regime(method: str, recipe: Recipe) -> str:
    weights, _, cast = precision_text(recipe).partition(", ")
    if method == "full":
        return f"{weights}, {cast}"
    if method == "qlora" or recipe.quantization is not None:
        weights = f"{recipe.quantization.type if recipe.quantization else 'nf4'} weights"
    adapters = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[recipe.lora.adapter_dtype]
    return f"{weights}, {adapters} adapters, {cast}"


def _targets(record: Recorded) -> tuple[str, ...]:
    """The names of the layers that PEFT gave adapters to."""
    names = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, _, _ in record.parameters if ".lora_" in name}
    return tuple(sorted(names))


def _held(records: list[Recorded], settings: list[Setting], aligned: Aligned) -> Iterator[Held]:
    """The parameters, those of a kind in all layers together."""
    bytes_of = _bytes_by_owner(aligned)
    first = {s.owner: s for s in reversed(aligned.record.storages) if s.kind in ("weight", "adapter")}
    rows = []
    for places in zip(*(record.parameters for record in records), strict=True):
        name, _, trains = places[0]
        role = "adapter" if first[name].kind == "adapter" else "base"
        shape = tuple(_dim([place[1][i] for place in places], settings) for i in range(len(places[0][1])))
        rows.append((starred(name), shape, first[name].dtype, role, trains, bytes_of[name]))
    for (label, shape, dtype, role, trains, size), group in groupby(sorted(rows, key=str), key=lambda row: row):
        parameter = TracedParameter(shape, role, size)
        parameter.label, parameter.dtype, parameter.trainable = label, dtype, trains
        yield Held(parameter, len(list(group)))


def _dim(values: list[int], settings: list[Setting]) -> Dim:
    if len(set(values)) == 1:
        return values[0]
    factor = values[0] // settings[0][2]
    if any(factor * rank != value for value, (_, _, rank) in zip(values, settings, strict=True)):
        raise Misfit(f"a weight's dimension is {values} at ranks {[rank for _, _, rank in settings]}", resident=True)
    return RANK * factor


def _bytes_by_owner(aligned: Aligned) -> dict[str, Size]:
    found: dict[str, Size] = {}
    for storage, size in zip(aligned.record.storages, aligned.sizes, strict=True):
        if storage.kind in ("weight", "adapter", "quantization_state"):
            found[storage.owner] = found.get(storage.owner, ZERO) + size
    return found


def setting_of(recipe: Recipe, setting: Setting) -> Recipe:
    """The recipe at a setting."""
    batch, length, rank = setting
    lora = replace(recipe.lora, rank=rank)
    return replace(recipe, micro_batch_size=batch, sequence_length=length, lora=lora)
