"""The doctor, comparing, merging, making plain and converting, as jobs: bounded, since what they read comes from anybody.

Each yields `progress` once it has begun, and one `result`. Specs: {"folders": of the adapters} and what the function says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.jsontext import from_json
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.comparing import compare_adapters
from loralens.lab.adapters.doctor import diagnose
from loralens.lab.adapters.doctor.base import Base, base_of
from loralens.lab.adapters.files import read_adapter, write_adapter
from loralens.lab.adapters.formats.torchtune import Heads
from loralens.lab.adapters.formats.writing import convert as converted
from loralens.lab.adapters.merging import ON_UPDATES, merge_adapters
from loralens.lab.adapters.plain import plain_adapter

Event = dict[str, object]
MAX_DENSE: Final = 2**27
"""Numbers of one module's updates that are made in full, over all adapters: two of a 7B model's layers, not its embeddings
(assumption: two gigabytes while they are weighed and decomposed)."""
MAX_RESULT_BYTES: Final = 2**30


def doctor(spec: Mapping[str, Any]) -> Iterator[Event]:
    """What is wrong with the adapter, against the base of `base` or `base_config`, for the engine `engine`."""
    yield {"type": "progress"}
    diagnosis = diagnose(Path(spec["folders"][0]), _base(spec), spec["engine"], called="FOLDER")
    yield {"type": "result", "answer": diagnosis.to_dict()}


def compare(spec: Mapping[str, Any]) -> Iterator[Event]:
    """Two adapters beside each other; `energy` as in `compare_adapters`."""
    yield {"type": "progress"}
    first, second = _read(spec)
    yield {"type": "result", "answer": compare_adapters(first, second, spec["energy"]).to_dict()}


def merge(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The adapters merged into the folder `output`; `weights` (null: 1 for each) and the rest as in `merge_adapters`."""
    yield {"type": "progress"}
    adapters = _read(spec)
    words = {name: spec[name] for name in ("rank", "density", "signs", "seed")}
    weights = spec["weights"] or [1.0] * len(adapters)
    _bounded(adapters, spec["combination"], spec["rank"])
    result = merge_adapters(adapters, weights, spec["combination"], **words)
    size = write_adapter(result.adapter, spec["output"])
    yield {"type": "result", "answer": result.to_dict(size)}


def plain(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The trained adapter, which comes first, made plain with the one from before training, into the folder `output`."""
    yield {"type": "progress"}
    trained, initial = _read(spec)
    result = plain_adapter(trained, initial=initial)
    yield {"type": "result", "answer": result.to_dict(write_adapter(result.adapter, spec["output"]))}


def convert(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The adapter in the format `to`, in the folder `output`; `alpha` and the base as in `convert` of formats."""
    yield {"type": "progress"}
    base = _base(spec)
    answer = converted(
        Path(spec["folders"][0]),
        Path(spec["output"]),
        spec["to"],
        heads=None if base is None else Heads.known(base.config),
        alpha=spec["alpha"],
        layers=None if base is None else base.layers,
    )
    yield {"type": "result", "answer": answer.to_dict()}


def _read(spec: Mapping[str, Any]) -> list[Adapter]:
    return [read_adapter(folder) for folder in spec["folders"]]


def _base(spec: Mapping[str, Any]) -> Base | None:
    if spec["base_config"] is not None:
        try:
            config = from_json(spec["base_config"].encode())
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the base's config.json is not JSON: {error}", field="base_config") from None
        return base_of(config=config)
    return None if spec["base"] is None else base_of(spec["base"])


def _bounded(adapters: Sequence[Adapter], combination: str, rank: int | None) -> None:
    """Refuse what would be far larger than what was sent. Raises: `InputTooLarge`."""
    largest: dict[str, int] = {}
    for adapter in adapters:
        for module, factors in adapter.factors.items():
            largest[module] = factors.lora_a.shape[1] * factors.lora_b.shape[0]
    dense = max(largest, key=largest.__getitem__)
    numbers = largest[dense] * len(adapters)
    if combination in ON_UPDATES and combination != "svd" and numbers > MAX_DENSE:
        raise InputTooLarge(
            f"{combination} makes whole updates, and those of {dense} have {numbers:,} numbers, at most {MAX_DENSE:,} here",
            field="combination",
            hint="svd, or loralens adapter merge on your own machine",
        )
    wanted = rank or sum(max(f.rank for f in adapter.factors.values()) for adapter in adapters)
    size = wanted * sum(
        (sum(f.lora_a.shape[1] + f.lora_b.shape[0] for f in adapter.factors.values())) * 4 for adapter in adapters
    )
    if size > MAX_RESULT_BYTES:
        raise InputTooLarge(
            f"the merged adapter could have {size:,} bytes, at most {MAX_RESULT_BYTES:,} here",
            field="rank",
            hint="a smaller rank, or loralens adapter merge on your own machine",
        )
