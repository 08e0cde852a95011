"""PiSSA, OLoRA, CorDA and LoRA-GA as plain LoRA of the published base, which any engine serves.

What was trained computes W - s·B₀A₀ + s·BA, with the first factors A₀, B₀ taken out of W. That is W and a LoRA of twice the
rank, [A; A₀] and [B, -B₀]. The first factors are those that were saved before training, or are computed anew from W as PEFT
computes them.

Source: huggingface/peft 0.21.2 tuners/lora/model.py, subtract_mutated_init; peft_model.py, save_pretrained
(path_initial_model_for_weight_conversion); tuners/lora/layer.py, pissa_init and olora_init; Meng et al. 2024,
arXiv:2404.02948 (PiSSA), section C; Büyükakyüz 2024, arXiv:2406.01775 (OLoRA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.answers import PlainAnswer
from loralens.lab.adapters.begins import NO_PLAIN_FORM, changed_base
from loralens.lab.adapters.config import MAX_RANK, AdapterConfig
from loralens.lab.adapters.spectrum import singular_values
from loralens.lab.adapters.stream import Weights
from loralens.lab.factors import Factors

UNLIKE: Final = 0.1
"""Cosine of the trained factors' product and the first ones', below which another base is likely (assumption: products of
unrelated weights are all but orthogonal, and training leaves more than that of what it began with)."""
_COMPUTED: Final = ("pissa", "olora")
"""Beginnings that follow from the base's weight alone."""


@dataclass(frozen=True, slots=True)
class MadePlain:
    """The plain adapter; `moved`: norm of what was learned over the norm of what was taken out of the base.

    `rounding`: norm of the error of the base that PEFT makes when it loads the original, in the base's own number format,
    over the norm of what was learned; None where no base was read.
    """

    adapter: Adapter
    began: str
    moved: float
    rounding: float | None
    notes: list[str]

    def to_dict(self, file_bytes: int) -> PlainAnswer:
        """Everything but the adapter itself, with the bytes that it has on disk."""
        return {
            "began": self.began,
            "rank": self.adapter.config.rank,
            "parameters": self.adapter.parameters,
            "modules": len(self.adapter.factors),
            "moved": self.moved,
            "rounding": self.rounding,
            "notes": self.notes,
            "file_bytes": file_bytes,
        }


def plain_adapter(adapter: Adapter, *, initial: Adapter | None = None, base: Weights | None = None) -> MadePlain:
    """Make an adapter plain LoRA, of twice its rank, that computes the same on the published base.

    Args:
        adapter: trained, with factors whose beginning changed the base.
        initial: the same before training, as `save_pretrained` wrote it.
        base: the base's weights, from which PiSSA's and OLoRA's first factors are computed anew; one matrix is in memory
            at a time.

    Raises: `InvalidInput` for an adapter that is plain already or has no plain form, and for an `initial` or a `base` that
        is not its own.
    """
    config = adapter.config
    name = changed_base(config)
    if name is None:
        raise InvalidInput("it is plain LoRA already: its beginning left the base as it was", field="adapter")
    if name == "LoftQ":
        raise InvalidInput(f"LoftQ has no plain form: {NO_PLAIN_FORM}", field="adapter_config.init_lora_weights")
    if (initial is None) == (base is None):
        raise InvalidInput("give either the adapter from before training or the base", field="initial",
                           hint="--initial FOLDER, or --base FOLDER with the base's safetensors")  # fmt: skip
    if config.target_parameters:
        raise InvalidInput(
            "PEFT has no such beginning for parameters (target_parameters)", field="adapter_config.target_parameters"
        )
    if max(factors.rank for factors in adapter.factors.values()) * 2 > MAX_RANK:
        raise InvalidInput(f"the rank doubles, and at most {MAX_RANK} is written", field="adapter_config.r")
    _computable(config, name, base)
    began = _before(adapter, initial) if initial is not None else None
    factors: dict[str, Factors] = {}
    learned = taken = trained = rounded = 0.0
    for module, own in adapter.factors.items():
        weight = None
        if began is not None:
            first = began[module]
        elif base is None or own.is_embedding:  # PEFT begins those as ever, and leaves the table alone
            first = replace(own, lora_a=torch.zeros_like(own.lora_a), lora_b=torch.zeros_like(own.lora_b))
        else:
            weight = base.read(_weight(base, own, config.fan_in_fan_out))
            first = _begun(own, weight.T if config.fan_in_fan_out else weight, str(config.init).lower())
        whole = replace(
            own,
            lora_a=_joined(own.lora_a, first.lora_a, 0),
            lora_b=_joined(own.lora_b, -first.lora_b, 1),
        )
        factors[module] = whole
        if not own.is_embedding:
            learned += float(singular_values(whole).square().sum())
            trained += float(singular_values(own).square().sum())
        taken += float(singular_values(first).square().sum())
        if weight is not None:
            rounded += _rounding(weight.T if config.fan_in_fan_out else weight, first)
    if taken == 0:
        raise InvalidInput("the adapter from before training has only zeros in lora_B: it did not begin so", field="initial",
                           hint="the one that was saved right after get_peft_model")  # fmt: skip
    moved = math.sqrt(learned / taken)
    if moved < 1e-12:  # what float64 leaves of two products that are equal
        raise InvalidInput("the two adapters are the same: nothing was learned", field="initial")
    rounding = None if base is None else math.sqrt(rounded / learned)
    plain = Adapter(_doubled(config), factors, adapter.extra)
    cosine = (trained + taken - learned) / (2 * math.sqrt(trained * taken)) if trained else 0.0
    return MadePlain(plain, name, moved, rounding, _notes(cosine, base is not None))


def _computable(config: AdapterConfig, name: str, base: Weights | None) -> None:
    if base is None:
        return
    if str(config.init).lower() not in _COMPUTED:
        raise InvalidInput(
            f"{name} ({config.init}) does not begin from the weights alone: "
            + ("its range is drawn anew each time" if name == "PiSSA" else "it needs the data that it was prepared with"),
            field="base", hint="--initial, the adapter from before training",
        )  # fmt: skip
    if name == "OLoRA" and config.fan_in_fan_out:
        raise InvalidInput("PEFT takes OLoRA's factors of a transposed layer from the weight as it is stored, which fits no layer",
                           field="base", hint="--initial, the adapter from before training")  # fmt: skip


def _before(adapter: Adapter, initial: Adapter) -> dict[str, Factors]:
    """The first factors by module. Raises: `InvalidInput` where the two are not one adapter."""
    for module, own in adapter.factors.items():
        first = initial.factors.get(module)
        if first is None or first.lora_a.shape != own.lora_a.shape or first.lora_b.shape != own.lora_b.shape:
            raise InvalidInput(f"{module} has no factors of the same shape in the adapter from before training",
                               field="initial")  # fmt: skip
        if not math.isclose(first.scaling, own.scaling, rel_tol=1e-9):
            raise InvalidInput(
                f"{module} is scaled by {own.scaling:g}, before training by {first.scaling:g}", field="initial"
            )
    return initial.factors


def _weight(base: Weights, own: Factors, transposed: bool) -> str:
    """The weight's name: the module's, or without the class's own first part, as base models are saved."""
    names = (f"{own.module}.weight", f"{own.module.partition('.')[2]}.weight")
    name = next((one for one in names if one in base), None)
    if name is None:
        raise InvalidInput(f"the base has no weight {names[0]}", field="base", hint="the base that it was trained on")
    shape = (own.lora_b.shape[0], own.lora_a.shape[1])
    entry = base.entry(name)
    if entry.shape != (shape[::-1] if transposed else shape):
        raise InvalidInput(f"{name} is {' × '.join(map(str, entry.shape))} in the base, the adapter is for {shape[0]} × {shape[1]}",
                           field="base", hint="the base that it was trained on")  # fmt: skip
    if entry.dtype not in ("F32", "F16", "BF16"):
        raise InvalidInput(f"{name} is packed ({entry.dtype}): its numbers are not those that it began from", field="base",
                           hint="the base as it was before packing")  # fmt: skip
    return name


def _begun(own: Factors, weight: torch.Tensor, init: str) -> Factors:
    """The first factors of a weight (out_features, in_features), in float32 as PEFT makes them."""
    wide = weight.float()
    if not torch.isfinite(wide).all():
        raise InvalidInput(f"{own.module}: the base's weight is not finite (NaN or infinity)", field="base")
    if init == "olora":
        basis, rest = torch.linalg.qr(wide)
        return replace(own, lora_a=rest[: own.rank].contiguous(), lora_b=basis[:, : own.rank].contiguous())
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    root = (values[: own.rank] / own.scaling).sqrt()
    return replace(own, lora_a=root[:, None] * right[: own.rank], lora_b=left[:, : own.rank] * root)


def _joined(trained: torch.Tensor, first: torch.Tensor, dim: int) -> torch.Tensor:
    """Both, in the wider of their number formats: what is taken away must be what the base lost, to the digit."""
    wide = torch.promote_types(trained.dtype, first.dtype)
    return torch.cat([trained.to(wide), first.to(wide)], dim)


def _rounding(weight: torch.Tensor, first: Factors) -> float:
    """Squared norm of what the rest of the base loses in its own number format."""
    rest = weight.float() - first.scaling * first.lora_b @ first.lora_a
    return float((rest.to(weight.dtype).float() - rest).double().square().sum())


def _doubled(config: AdapterConfig) -> AdapterConfig:
    """Twice the rank, at the same scaling."""
    more = math.sqrt(2) if config.use_rslora else 2.0
    return replace(
        config.begun_anew(),
        rank=2 * config.rank,
        alpha=more * config.alpha,
        rank_pattern=tuple((name, 2 * rank) for name, rank in config.rank_pattern),
        alpha_pattern=_alphas(config, more),
    )


def _alphas(config: AdapterConfig, more: float) -> tuple[tuple[str, float], ...]:
    return tuple((name, more * alpha) for name, alpha in config.alpha_pattern)


def _notes(cosine: float, computed: bool) -> list[str]:
    if cosine >= UNLIKE:
        return []
    which = "the base that it was trained on" if computed else "the adapter from before training"
    return [
        f"The trained factors have nothing in common with those that it began with (cosine {cosine:.2f}): is this {which}?"
    ]
