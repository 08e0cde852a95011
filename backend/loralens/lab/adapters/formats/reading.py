"""Read PEFT, MLX, kohya, diffusers and torchtune adapters as `Source`; what is not understood is refused by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from loralens.core.errors import InvalidInput, NotFound
from loralens.core.jsontext import from_json
from loralens.lab.adapters.adalora import PEFT_TYPE as ADALORA
from loralens.lab.adapters.adalora import as_lora
from loralens.lab.adapters.adapter import EMPTY, FACTOR_DTYPES, Spec, layout
from loralens.lab.adapters.begins import needs_its_base
from loralens.lab.adapters.config import MAX_CONFIG_BYTES, config_from_mapping
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.formats import names
from loralens.lab.adapters.formats.lazy import Lazy, LazySource, Magnitude
from loralens.lab.adapters.formats.torchtune import Heads, from_torchtune, turned_back
from loralens.lab.adapters.stream import DTYPES, TensorFile
from loralens.lab.factors import PREFIX

MLX_FILE: Final = "adapters.safetensors"
DIFFUSERS_FILE: Final = "pytorch_lora_weights.safetensors"
_TORCHTUNE_FILE: Final = re.compile(r"adapter_[0-9]+\.safetensors")
_DIFFUSERS_METADATA: Final = "lora_adapter_metadata"
_EMBEDDINGS: Final = ("embed_tokens", "wte", "embed_in", "word_embeddings")
MERGED: Final = "merge it into its base with PEFT, model.merge_and_unload(), and convert the whole model"
_NOT_CONVERTED: Final = {
    "lora_bias": "biases of lora_B (lora_bias): none of the other formats has a place for them",
    "target_parameters": "factors of stacked experts (target_parameters): none of the other formats stacks them so",
    "trainable_token_indices": "trained rows of an embedding (trainable_token_indices): none of the other formats has them",
}

Loaded = tuple[TensorFile, Mapping[str, Any]]


def read(place: Path, *, heads: Heads | None = None, alpha: float | None = None) -> LazySource:
    """Read an adapter from a folder, or from a single safetensors file.

    Args:
        place: the folder or file.
        heads: the base's attention heads, which torchtune's names need.
        alpha: where the files do not state it (torchtune).

    Raises: `NotFound`, or `InvalidInput` for what is in no known format, or in one with parts that are not converted.
    """
    file, config = _open(place)
    kind = _format_of(file, config)
    if kind == "peft":
        return _peft(file, config)
    if kind == "mlx":
        return _mlx(file, config)
    if kind == "torchtune":
        return _torchtune(file, config, heads, alpha)
    return _kohya(file) if kind == "kohya" else _diffusers(file, config)


def _open(place: Path) -> Loaded:
    if place.is_file():
        return TensorFile(place), {}
    if not place.is_dir():
        raise NotFound(f"{place} is neither a folder nor a file", field="folder")
    there = sorted(path.name for path in place.iterdir() if path.suffix == ".safetensors")
    known = [
        name
        for name in (MLX_FILE, WEIGHTS_FILE, DIFFUSERS_FILE, *filter(_TORCHTUNE_FILE.fullmatch, there))
        if name in there
    ]
    if not known and len(there) != 1:
        raise NotFound(
            f"{place} holds no adapter in safetensors ({len(there)} files)", field="folder", hint="name the file itself"
        )
    path = place / CONFIG_FILE
    config: Any = {}
    if path.is_file():
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InvalidInput(f"{CONFIG_FILE} has more than {MAX_CONFIG_BYTES} bytes", field=CONFIG_FILE)
        try:
            config = from_json(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{CONFIG_FILE} is not JSON: {error}", field=CONFIG_FILE) from None
    if not isinstance(config, dict):
        raise InvalidInput(f"{CONFIG_FILE} holds no JSON object", field=CONFIG_FILE)
    return TensorFile(place / (known or there)[0]), config


def _format_of(file: TensorFile, config: Mapping[str, Any]) -> str:
    names_ = list(file.entries)
    if any(name.endswith((".lora_down.weight", ".lora_up.weight")) for name in names_):
        return "kohya"
    if any(name.startswith(("unet.", "text_encoder.", "text_encoder_2.")) for name in names_):
        return "diffusers"
    if any(re.fullmatch(r"layers\.\d+\.(attn|mlp)\..+\.lora_[ab]\.weight", name) for name in names_):
        return "torchtune"
    if any(name.endswith((".lora_a", ".lora_b")) for name in names_):
        return "mlx"
    if config.get("peft_type") or any(name.startswith(PREFIX) for name in names_):
        return "peft"
    raise InvalidInput(f"{file.path.name}: names such as {names_[0][:80]} belong to no format known here",
                       field="folder", hint="PEFT, MLX, kohya, diffusers and torchtune are read")  # fmt: skip


def _adalora(file: TensorFile, config: Mapping[str, Any]) -> LazySource:
    """As the LoRA that computes the same; its factors are made at once."""
    adapter = as_lora(config, {name: file.read(name) for name in file.entries})
    if len(adapter.extra) > len(adapter.copies):
        raise InvalidInput(f"modules trained in full ({next(iter(adapter.extra))}): other tools' adapters hold factors alone",
                           field="folder", hint=MERGED)  # fmt: skip
    modules = [
        Lazy(f.module, f.rank, f.lora_a.shape[1], f.lora_b.shape[0], f.lora_a.dtype, f.scaling, f.is_embedding,
             partial(torch.clone, f.lora_a), partial(torch.clone, f.lora_b))
        for f in adapter.factors.values()
    ]  # fmt: skip
    return LazySource("peft", modules, adapter.config.base_model, list(adapter.notes))


def _peft(file: TensorFile, config: Mapping[str, Any]) -> LazySource:
    if config.get("peft_type") == ADALORA:
        return _adalora(file, config)
    checked = config_from_mapping(config)
    needs_its_base(checked, "in another format nothing would rebuild it")
    for word, has in (("lora_bias", checked.lora_bias),
                      ("target_parameters", checked.target_parameters), ("trainable_token_indices", checked.trains_tokens)):  # fmt: skip
        if has:
            raise InvalidInput(_NOT_CONVERTED[word], field=f"adapter_config.{word}", hint=MERGED)
    if checked.acts_otherwise:
        word = checked.acts_otherwise[0]
        raise InvalidInput(f"{word}: none of the other formats says it, and its updates would act everywhere",
                           field=f"adapter_config.{word}")  # fmt: skip
    plan = layout(checked, {entry.name: Spec(entry.shape, entry.dtype) for entry in file.header.tensors})
    trained = [
        short
        for _, short in plan.extra
        if not short.endswith(("embed_tokens.weight", "lm_head.weight", "base_layer.weight"))
    ]
    if trained or checked.modules_to_save:
        raise InvalidInput(
            f"modules trained in full ({(trained or list(checked.modules_to_save))[0]}): other tools' adapters hold factors alone",
            field="folder",
            hint=MERGED,
        )
    modules = []
    for part in plan.parts:
        if part.is_embedding and part.magnitude is not None:
            raise InvalidInput(f"{part.module}: DoRA of an embedding scales its columns in PEFT and its rows in MLX",
                               field="adapter_config.use_dora", hint=MERGED)  # fmt: skip
        found = _lazy(file, part.module, part.lora_a, part.lora_b, part.scaling, is_embedding=part.is_embedding)
        modules.append(found if part.magnitude is None else _scaled(file, found, part.magnitude))
    return LazySource("peft", modules, checked.base_model, ["Copies of embeddings are left out."] if plan.extra else [])


def _mlx(file: TensorFile, config: Mapping[str, Any]) -> LazySource:
    """MLX: lora_a is (in_features, rank), lora_b (rank, out_features), and `scale` multiplies their product; `m` are DoRA's magnitudes.

    Source: ml-explore/mlx-lm 200af25 mlx_lm/tuner/lora.py, LoRALinear.fuse and LoRAEmbedding.fuse; 35d46a9
    mlx_lm/tuner/dora.py, DoRALinear.fuse.
    """
    settings, kind = config.get("lora_parameters"), config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora") or not isinstance(settings, Mapping):
        raise InvalidInput(
            f"fine_tune_type {str(kind)[:40]!r} is not converted, lora and dora are", field="fine_tune_type"
        )
    scale = _number(settings.get("scale"), "lora_parameters.scale")
    modules = []
    roles = ("lora_a", "lora_b", "m") if kind == "dora" else ("lora_a", "lora_b")
    for module, own in _grouped(file, rf"(?P<module>.+)\.(?P<role>{'|'.join(roles)})").items():
        _both(module, own, roles)
        embedding = module.rpartition(".")[2] in _EMBEDDINGS
        if embedding and kind == "dora":
            raise InvalidInput(
                f"{module}: DoRA of an embedding scales its rows in MLX and its columns in PEFT", field="folder"
            )
        found = _lazy(file, module, own["lora_a"], own["lora_b"], scale, turned=True, is_embedding=embedding)
        modules.append(_scaled(file, found, own["m"]) if kind == "dora" else found)
    model = config.get("model")
    return LazySource("mlx", modules, model if isinstance(model, str) else None)


def _kohya(file: TensorFile) -> LazySource:
    """kohya: underscores for dots, lora_down is A, lora_up is B, alpha a tensor of one number.

    Source: kohya-ss/sd-scripts networks/lora.py, LoRAModule: scale = alpha / lora_dim, alpha the rank where there is none.
    """
    modules = []
    pattern = r"(?P<module>lora_[^.]+)\.(?P<role>lora_down\.weight|lora_up\.weight|alpha)"
    for flat, own in _grouped(file, pattern).items():
        _both(flat, own, ("lora_down.weight", "lora_up.weight"))
        rank = _shape(file, own["lora_down.weight"])[0]
        alpha = float(file.read(own["alpha"]).float().reshape(-1)[0]) if "alpha" in own else float(rank)
        modules.append(
            _lazy(file, names.from_kohya(flat), own["lora_down.weight"], own["lora_up.weight"], alpha / rank)
        )
    return LazySource("kohya", modules)


def _diffusers(file: TensorFile, config: Mapping[str, Any]) -> LazySource:
    """diffusers: PEFT's roles below the name of the component; alpha in the file's metadata, else it equals the rank.

    Source: huggingface/diffusers loaders/lora_base.py, LORA_ADAPTER_METADATA_KEY and pack_weights.
    """
    said = _metadata(file)
    if config.get("lora_alpha") != config.get("r"):
        raise InvalidInput("a PEFT config with an alpha of its own stands beside diffusers' names: which one holds is not known",
                           field="adapter_config.lora_alpha")  # fmt: skip
    for key in said:
        if key.rpartition(".")[2] in ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern") and said[key]:
            raise InvalidInput(f"{key} of diffusers' metadata is not converted", field="folder")
    modules = []
    for module, own in _grouped(file, r"(?P<module>.+)\.(?P<role>lora_[AB]\.weight)").items():
        _both(module, own, ("lora_A.weight", "lora_B.weight"))
        rank = _shape(file, own["lora_A.weight"])[0]
        alpha = said.get(f"{module.partition('.')[0]}.lora_alpha")
        scaling = 1.0 if alpha is None else _number(alpha, "lora_alpha") / rank
        modules.append(_lazy(file, module, own["lora_A.weight"], own["lora_B.weight"], scaling))
    return LazySource("diffusers", modules)


def _torchtune(file: TensorFile, config: Mapping[str, Any], heads: Heads | None, alpha: float | None) -> LazySource:
    given = config.get("lora_alpha", alpha)
    if given is None:
        raise InvalidInput(
            "torchtune's file does not say alpha", field="alpha", hint="--alpha, from the recipe's lora_alpha"
        )
    modules = []
    for module, own in _grouped(file, r"(?P<module>.+)\.(?P<role>lora_[ab]\.weight)").items():
        _both(module, own, ("lora_a.weight", "lora_b.weight"))
        name = from_torchtune(module)
        scaling = _number(given, "lora_alpha") / _shape(file, own["lora_a.weight"])[0]
        found = _lazy(file, name, own["lora_a.weight"], own["lora_b.weight"], scaling)
        modules.append(turned_back(found, heads))
    return LazySource("torchtune", modules)


def _lazy(
    file: TensorFile, module: str, a: str, b: str, scaling: float, *, turned: bool = False, is_embedding: bool = False
) -> Lazy:
    one, two = _shape(file, a), _shape(file, b)
    if turned:
        one, two = one[::-1], two[::-1]
    if len(one) != 2 or len(two) != 2 or one[0] != two[1]:
        raise InvalidInput(f"{module}: {list(one)} and {list(two)} are not two factors of one rank", field="folder",
                           hint="convolutions and stacked experts are not converted")  # fmt: skip
    kinds = {file.entries[name].dtype for name in (a, b)}
    if len(kinds) > 1 or not kinds <= FACTOR_DTYPES:
        raise InvalidInput(f"{module}: number formats {', '.join(sorted(kinds))} are not converted", field="folder")
    read_: Callable[[str], torch.Tensor] = partial(_finite, file, turned)
    return Lazy(
        module, one[0], one[1], two[0], DTYPES[kinds.pop()], scaling, is_embedding, partial(read_, a), partial(read_, b)
    )


def _scaled(file: TensorFile, found: Lazy, name: str) -> Lazy:
    """The module with DoRA's magnitudes."""
    dtype = file.entries[name].dtype
    if _shape(file, name) != (found.out_features,) or dtype not in FACTOR_DTYPES:
        raise InvalidInput(
            f"{name} has shape {list(_shape(file, name))} in {dtype}, expected [{found.out_features}]", field="folder"
        )
    return replace(found, magnitude=Magnitude(DTYPES[dtype], partial(_finite, file, False, name)))


def _finite(file: TensorFile, turned: bool, name: str) -> torch.Tensor:
    tensor = file.read(name)
    if not torch.isfinite(tensor).all():
        raise InvalidInput(f"{name} holds numbers that are not finite (NaN or infinity)", field="folder")
    return tensor.T.contiguous() if turned else tensor


def _grouped(file: TensorFile, pattern: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name in sorted(file.entries):
        match = re.fullmatch(pattern, name)
        if match is None:
            raise InvalidInput(
                f"{name[:120]} is not converted", field="folder", hint="LoRA's two factors and alpha alone are"
            )
        found.setdefault(match["module"], {})[match["role"]] = name
    return found


def _both(module: str, own: Mapping[str, str], roles: tuple[str, ...]) -> None:
    for role in roles:
        if role not in own:
            raise InvalidInput(f"{module}: {role} is missing", field="folder")


def _shape(file: TensorFile, name: str) -> tuple[int, ...]:
    shape = file.entries[name].shape
    if 0 in shape:
        raise InvalidInput(f"{name} is empty, of shape {list(shape)}: {EMPTY[0]}", field="folder", hint=EMPTY[1])
    return shape


def _metadata(file: TensorFile) -> dict[str, object]:
    try:
        found = json.loads(file.header.metadata.get(_DIFFUSERS_METADATA, "{}"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(f"{_DIFFUSERS_METADATA} in the file's metadata is not a JSON object", field="folder")
    return found


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value == 0:
        raise InvalidInput(f"{field} must be a number other than 0, got {str(value)[:40]}", field=field)
    return float(value)
