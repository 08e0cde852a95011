"""Write a `Source` as PEFT, MLX, kohya, diffusers or torchtune: a tensor at a time, read back and compared before it stands."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.answers import ConvertAnswer
from loralens.lab.adapters.config import AdapterConfig
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.formats import names
from loralens.lab.adapters.formats.lazy import Lazy, LazySource
from loralens.lab.adapters.formats.reading import DIFFUSERS_FILE, MERGED, MLX_FILE, read
from loralens.lab.adapters.formats.torchtune import Heads, to_torchtune, turned
from loralens.lab.adapters.stream import new_folder, write_tensors
from loralens.lab.factors import PREFIX

FORMATS: Final = ("peft", "mlx", "kohya", "diffusers", "torchtune")
WITH_MAGNITUDES: Final = ("peft", "mlx")
KOHYA_FILE: Final = "lora.safetensors"
TORCHTUNE_FILE: Final = "adapter_0.safetensors"
_FILES: Final = frozenset({CONFIG_FILE, WEIGHTS_FILE, MLX_FILE, KOHYA_FILE, DIFFUSERS_FILE, TORCHTUNE_FILE})
_COMPONENTS: Final = ("unet", "text_encoder", "text_encoder_2")
_LAYER: Final = re.compile(r"(?:.+\.)?layers\.(\d+)\.(.+)")

Tensors = list[tuple[str, tuple[int, ...], torch.dtype, Callable[[], torch.Tensor]]]


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written. `exact`: every factor reads back bit for bit; else `largest_error`, relative to the factor's largest."""

    source: str
    target: str
    modules: int
    file_bytes: int
    exact: bool
    largest_error: float
    notes: list[str]

    def to_dict(self) -> ConvertAnswer:
        """As it is printed and sent."""
        return {
            "source": self.source,
            "target": self.target,
            "modules": self.modules,
            "file_bytes": self.file_bytes,
            "exact": self.exact,
            "largest_error": self.largest_error,
            "notes": self.notes,
        }


def convert(
    place: Path,
    folder: Path,
    target: str,
    *,
    heads: Heads | None = None,
    alpha: float | None = None,
    layers: int | None = None,
) -> Converted:
    """Convert an adapter into a new folder in another format.

    Args:
        place: folder or file to read; its format is found out.
        folder: to write; it must not exist, or hold only an adapter.
        target: one of `FORMATS`.
        heads: the base's attention heads, for torchtune.
        alpha: where the files do not state it.
        layers: of the base, for MLX.

    Raises: `InvalidInput` for what one of the two formats cannot say.
    """
    if target not in FORMATS:
        raise InvalidInput(f"unknown format {target[:40]!r}", field="to", hint=f"one of {', '.join(FORMATS)}")
    source = read(place, heads=heads, alpha=alpha)
    if source.format == target:
        raise InvalidInput(f"it is in {target}'s format already", field="to")
    if target not in WITH_MAGNITUDES and any(one.magnitude is not None for one in source.modules):
        raise InvalidInput(f"it is DoRA, whose magnitudes are not written for {target}", field="to",
                           hint=f"--to mlx; or {MERGED}")  # fmt: skip
    notes = list(source.notes)
    modules = _named_for(source, target)
    writer = {"peft": _peft, "mlx": _mlx, "kohya": _kohya, "diffusers": _diffusers, "torchtune": _torchtune}[target]
    name, tensors, config, metadata = writer(modules, source, notes, heads, layers)
    specs = {key: (dtype, shape) for key, shape, dtype, _ in tensors}
    with new_folder(folder, _FILES.__contains__) as staging:
        size = write_tensors(staging / name, specs, _one_by_one(tensors), {"format": "pt"} | metadata)
        if config is not None:
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            (staging / CONFIG_FILE).write_text(text)
            size += len(text)
        error = _compared(modules, read(staging, heads=heads, alpha=_alpha(modules)))
    return Converted(source.format, target, len(modules), size, error == 0, error, notes)


def _one_by_one(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    for name, _, _, make in tensors:
        yield name, make()


def _named_for(source: LazySource, target: str) -> list[Lazy]:
    """The modules under the names of the target: diffusion formats name the component, a PEFT folder is one component's."""
    diffusion = source.format in ("kohya", "diffusers")
    if diffusion and target in ("mlx", "torchtune"):
        raise InvalidInput(f"{target} has no diffusion models", field="to", hint="peft, kohya or diffusers")
    if diffusion and target == "peft":
        components = {one.module.partition(".")[0] for one in source.modules}
        if len(components) > 1:
            raise InvalidInput(f"it has factors for {', '.join(sorted(components))}; a PEFT folder is of one model",
                               field="to", hint="--to diffusers")  # fmt: skip
        return [replace(one, module=one.module.partition(".")[2]) for one in source.modules]
    if target in ("kohya", "diffusers") and not diffusion:
        if source.format != "peft" or any(
            _LAYER.fullmatch(one.module) and "text_model" not in one.module for one in source.modules
        ):
            raise InvalidInput(f"{target} is for diffusion models, and this is of a language model", field="to")
        component = "text_encoder" if source.modules[0].module.startswith("text_model") else "unet"
        return [replace(one, module=f"{component}.{one.module}") for one in source.modules]
    return source.modules


def _alpha(modules: list[Lazy]) -> float | None:
    return modules[0].scaling * modules[0].rank if modules else None


Written = tuple[str, Tensors, dict[str, object] | None, dict[str, str]]


def _peft(
    modules: list[Lazy], source: LazySource, notes: list[str], heads: Heads | None, layers: int | None
) -> Written:
    rank = Counter(one.rank for one in modules).most_common(1)[0][0]
    alpha = Counter(one.scaling * one.rank for one in modules).most_common(1)[0][0]
    config = AdapterConfig(
        rank=rank,
        alpha=alpha,
        target_modules=tuple(sorted({one.module for one in modules})),
        base_model=source.base_model,
        use_dora=any(one.magnitude is not None for one in modules),
        task_type=None if source.format in ("kohya", "diffusers") else "CAUSAL_LM",
        rank_pattern=tuple((one.module, one.rank) for one in modules if one.rank != rank),
        alpha_pattern=tuple((one.module, one.scaling * one.rank) for one in modules if one.scaling * one.rank != alpha),
    )
    tensors: Tensors = []
    for one in modules:
        ends = ("lora_embedding_A", "lora_embedding_B") if one.is_embedding else ("lora_A.weight", "lora_B.weight")
        tensors += _two(one, f"{PREFIX}{one.module}.", ends)
        tensors += _magnitudes(one, f"{PREFIX}{one.module}.lora_magnitude_vector")
    return WEIGHTS_FILE, tensors, config.to_peft(), {}


def _mlx(modules: list[Lazy], source: LazySource, notes: list[str], heads: Heads | None, layers: int | None) -> Written:
    """One rank and one scale for all: smaller ranks get zeros, other scalings are folded into lora_b."""
    rank = max(one.rank for one in modules)
    scale = Counter(one.scaling for one in modules).most_common(1)[0][0]
    places = [_LAYER.fullmatch(one.module) for one in modules]
    keys = sorted({match[2] if match else one.module for match, one in zip(places, modules, strict=True)})
    deepest = 1 + max((int(match[1]) for match in places if match), default=0)
    if layers is None:
        notes.append(f"num_layers is {deepest}, the deepest layer with factors: if the base has more, write its number there "
                     "(MLX counts from the last layer), or give --base.")  # fmt: skip
    if any(one.rank != rank for one in modules):
        notes.append(f"Smaller ranks are filled with zeros to {rank}: MLX has one rank for all.")
    if any(one.scaling != scale for one in modules):
        notes.append(f"Scalings other than {scale:g} are folded into lora_b: MLX has one scale for all.")
    tensors: Tensors = []
    for one in modules:
        more, factor = rank - one.rank, one.scaling / scale
        tensors += [
            (f"{one.module}.lora_a", (one.in_features, rank), one.dtype, _down(one, more)),
            (f"{one.module}.lora_b", (rank, one.out_features), one.dtype, _up(one, more, factor)),
            *_magnitudes(one, f"{one.module}.m"),
        ]
    config: dict[str, object] = {
        "fine_tune_type": "dora" if any(one.magnitude is not None for one in modules) else "lora",
        "num_layers": layers or deepest,
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys},
    }
    return MLX_FILE, tensors, config | ({"model": source.base_model} if source.base_model else {}), {}


def _down(one: Lazy, more: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.nn.functional.pad(one.lora_a(), (0, 0, 0, more)).T.contiguous()


def _up(one: Lazy, more: int, factor: float) -> Callable[[], torch.Tensor]:
    def up() -> torch.Tensor:
        lora_b = one.lora_b() if factor == 1 else (one.lora_b().double() * factor).to(one.dtype)
        return torch.nn.functional.pad(lora_b, (0, more)).T.contiguous()

    return up


def _kohya(
    modules: list[Lazy], source: LazySource, notes: list[str], heads: Heads | None, layers: int | None
) -> Written:
    two = any(one.module.startswith("text_encoder_2.") for one in modules)
    tensors: Tensors = []
    for one in modules:
        flat = names.to_kohya(one.module, two_encoders=two)
        tensors += _two(one, f"{flat}.", ("lora_down.weight", "lora_up.weight"))
        tensors.append((f"{flat}.alpha", (), torch.float32, _scalar(one.scaling * one.rank)))
    return KOHYA_FILE, tensors, None, {}


def _scalar(value: float) -> Callable[[], torch.Tensor]:
    return lambda: torch.tensor(value, dtype=torch.float32)


def _diffusers(
    modules: list[Lazy], source: LazySource, notes: list[str], heads: Heads | None, layers: int | None
) -> Written:
    said: dict[str, object] = {}
    for component in _COMPONENTS:
        own = [one for one in modules if one.module.startswith(component + ".")]
        alphas, ranks = {one.scaling * one.rank for one in own}, {one.rank for one in own}
        if len(alphas) > 1 or len(ranks) > 1:
            raise InvalidInput(f"{component} has several ranks or alphas, which are not written for diffusers", field="to",
                               hint="loralens adapter resize, in PEFT's format, gives it one")  # fmt: skip
        if own:
            targets = sorted({one.module.partition(".")[2] for one in own})
            said |= {f"{component}.r": ranks.pop(), f"{component}.lora_alpha": alphas.pop(),
                     f"{component}.target_modules": targets}  # fmt: skip
    tensors = [
        one for module in modules for one in _two(module, f"{module.module}.", ("lora_A.weight", "lora_B.weight"))
    ]
    return DIFFUSERS_FILE, tensors, None, {"lora_adapter_metadata": json.dumps(said, sort_keys=True)}


def _torchtune(
    modules: list[Lazy], source: LazySource, notes: list[str], heads: Heads | None, layers: int | None
) -> Written:
    ranks, alphas = {one.rank for one in modules}, {one.scaling * one.rank for one in modules}
    if len(ranks) > 1 or len(alphas) > 1 or any(one.is_embedding for one in modules):
        raise InvalidInput("torchtune has one rank and alpha for all, and no factors for embeddings", field="to",
                           hint="loralens adapter resize gives it one rank")  # fmt: skip
    tensors: Tensors = []
    for one in modules:
        tensors += _two(turned(one, heads), f"{to_torchtune(one.module)}.", ("lora_a.weight", "lora_b.weight"))
    config = {"r": ranks.pop(), "lora_alpha": alphas.pop(),
              "target_modules": sorted({to_torchtune(one.module).rpartition(".")[2] for one in modules})}  # fmt: skip
    return TORCHTUNE_FILE, tensors, config, {}


def _two(one: Lazy, stem: str, ends: tuple[str, str]) -> Tensors:
    return [
        (stem + ends[0], (one.rank, one.in_features), one.dtype, one.lora_a),
        (stem + ends[1], (one.out_features, one.rank), one.dtype, one.lora_b),
    ]


def _magnitudes(one: Lazy, name: str) -> Tensors:
    return [] if one.magnitude is None else [(name, (one.out_features,), one.magnitude.dtype, one.magnitude.read)]


def _compared(wanted: list[Lazy], got: LazySource) -> float:
    """The largest difference of a factor times its scaling, relative to the factor's largest number; 0 is bit for bit."""
    there = {one.module: one for one in got.modules}
    worst = 0.0
    for one in wanted:
        other = there.get(one.module)
        if other is None or not (math.isclose(other.scaling, one.scaling, rel_tol=1e-6) or got.format == "mlx"):
            raise InvalidInput(f"{one.module} did not read back as it was written", field="to")
        pairs = [
            (one.lora_a().double(), other.lora_a().double()[: one.rank]),
            (one.lora_b().double() * one.scaling, other.lora_b().double()[:, : one.rank] * other.scaling),
        ]
        if one.magnitude is not None and other.magnitude is not None:
            pairs.append((one.magnitude.read().double(), other.magnitude.read().double()))
        for before, after in pairs:
            top = float(before.abs().max())
            worst = max(worst, float((before - after).abs().max()) / top if top else 0.0)
    return worst if worst > 1e-12 else 0.0
