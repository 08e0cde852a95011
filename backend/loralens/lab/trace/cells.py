"""Trace what a model type's twelve rows lack (see `coverage`): `python -m loralens.lab.trace.cells FOLDER`.

FOLDER holds the traced steps; what is missing there is kept in its traced-cells.jsonl, a line per model type with its config
once. Names after FOLDER trace these types alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from loralens.core.architecture.registry import MEDIA
from loralens.core.errors import LoraLensError
from loralens.core.jsontext import JsonObject
from loralens.core.objectives.assembled import build_root
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.coverage import (
    CELLS,
    FILE,
    MEDIA_WORDS,
    POINTS,
    Case,
    Cell,
    covered,
    recorded,
    refused,
    unfold,
    wanted,
)

_BY_POSITION: Final = ("mamba", "falcon_mamba", "jamba", "rwkv")  # the scan runs position by position: short sequences
_SHAPES: Final = ((2, 384), (3, 200), (1, 256))
_DTYPES: Final[dict[str, JsonObject]] = {  # whose code fails in 16 bits, or under autocast
    "deberta": {"weights_dtype": "float32", "autocast": None},
    "dbrx": {"autocast": None},
}
_PACKED: Final[JsonObject] = {"type": "nf4", "double_quant": True, "prepare_kbit": True}
_KEPT: Final = ("trainable", "total", "phase", "peak_allocated_bytes", "phase_peaks")
_LORA: Final[JsonObject] = {"rank": 16, "alpha": 32, "target_modules": "all-linear"}
# types that no other file of traced steps has, as small as their published members are wide
_CONFIGS: Final[dict[str, JsonObject]] = {
    "cohere": {"model_type": "cohere", "vocab_size": 32768, "hidden_size": 2048, "intermediate_size": 5632,
               "num_attention_heads": 16, "num_key_value_heads": 4, "num_hidden_layers": 3, "use_qk_norm": True,
               "logit_scale": 0.0625, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_bigcode": {"model_type": "gpt_bigcode", "vocab_size": 49280, "n_embd": 2048, "n_inner": 8192, "n_layer": 3,
                    "n_head": 16, "n_positions": 2048, "multi_query": True},
    "stablelm": {"model_type": "stablelm", "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912,
                 "num_attention_heads": 32, "num_key_value_heads": 32, "num_hidden_layers": 3, "pad_token_id": 0},
}  # fmt: skip


class Tracing:
    """Traces what a type lacks, beginning with the line that there is."""

    def __init__(self, name: str, cases: Sequence[Case], line: JsonObject | None) -> None:
        config = _CONFIGS.get(name) or cases[0]["request"]["config"]
        same = [case for case in cases if case["request"]["config"] == config]
        self._name = name
        self._cases, self._line = cases, line or self._new(name, config, same)
        self._points = list(self._shapes(name, same))
        reason = build_root(config, Recipe()).refuses_all_linear
        if reason and self._line["targets"] == "all-linear":
            self._name_targets(reason)

    def _new(self, name: str, config: JsonObject, same: Sequence[Case]) -> JsonObject:
        packed = [
            case["request"]["recipe"].get("quantization") for case in same if case["request"]["method"] == "qlora"
        ]
        quantization = {**_PACKED, **(packed[-1] or {} if packed else {}), "type": "nf4"}
        return {
            "model_type": name,
            "targets": "all-linear",
            "config": config,
            "recipe": _DTYPES.get(name, {}),
            "words": {
                "full": {"autocast": None},
                "lora": {"lora": _LORA},
                "qlora": {"lora": _LORA, "quantization": quantization},
            },
            "rows": [],
        }

    def _shapes(self, name: str, same: Sequence[Case]) -> Iterator[JsonObject]:
        if name not in MEDIA:
            for batch, length in _SHAPES:
                yield {"micro_batch_size": batch, "sequence_length": length // 8 if name in _BY_POSITION else length}
            return
        seen = []
        for case in same:
            recipe = case["request"]["recipe"]
            media = {word: recipe[word] for word in MEDIA_WORDS if recipe.get(word)}
            shape = {word: recipe[word] for word in ("micro_batch_size", "sequence_length")}
            if media and shape not in seen:
                seen.append(shape)
                yield {**shape, **media}

    def run(self) -> JsonObject:
        """The type's line, with every row that could be traced."""
        for cell in CELLS:
            for shape in self._points:
                have = covered(self._name, self._cases, self._line)[cell]
                if len(have) >= POINTS or cell in refused(self._line):
                    break
                if (shape["micro_batch_size"], shape["sequence_length"]) not in have:
                    self._add(cell, shape)
        return self._line

    def _add(self, cell: Cell, shape: JsonObject) -> None:
        row = self._traced(cell, shape)
        if "refused" in row and cell == ("lora", False) and self._line["targets"] == "all-linear":
            self._name_targets(row["refused"])
            row = self._traced(cell, shape)
        if "refused" in row and cell == ("qlora", False):
            self._leave_unprepared()
            row = self._traced(cell, shape)
        self._line["rows"].append(row)

    def _leave_unprepared(self) -> None:
        """What k-bit preparation makes of stacked experts cannot run."""
        words = self._line["words"]["qlora"]
        quantization = {**words["quantization"], "prepare_kbit": False}
        self._line["words"]["qlora"] = {**words, "quantization": quantization}

    def _name_targets(self, reason: str) -> None:
        """all-linear fails on this type, or is not modelled: the widest names of its recorded cases instead."""
        lists = [case["request"]["recipe"].get("lora", {}).get("target_modules") for case in self._cases]
        names = max((found for found in lists if isinstance(found, list)), key=len)
        self._line |= {"targets": names, "because": reason}
        for method in ("lora", "qlora"):
            words = self._line["words"][method]
            self._line["words"][method] = {**words, "lora": {**words["lora"], "target_modules": names}}

    def _traced(self, cell: Cell, shape: JsonObject) -> JsonObject:
        from loralens.lab.trace.case import trace

        method, checkpointing = cell
        row: JsonObject = {"method": method, "recipe": {"gradient_checkpointing": checkpointing, **shape}}
        request = next(unfold({**self._line, "rows": [row]}))["request"]
        try:
            result = trace(request["config"], method, request["recipe"])
        except LoraLensError as problem:
            return {**row, "refused": problem.message}
        except (RuntimeError, TypeError, ValueError, AssertionError) as problem:
            return {**row, "refused": f"{type(problem).__name__}: {problem}".splitlines()[0][:200]}
        return {**row, "expected": {name: getattr(result, name) for name in _KEPT}}


def main(arguments: list[str] | None = None) -> int:
    """Trace what is missing, type by type; the file is written after each."""
    parser = argparse.ArgumentParser(prog="python -m loralens.lab.trace.cells", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("types", nargs="*")
    given = parser.parse_args(arguments)
    cases, lines = recorded(given.folder)
    for name in given.types or wanted():
        if name in _CONFIGS or cases.get(name):
            lines[name] = Tracing(name, cases.get(name, []), lines.get(name)).run()
            kept = [json.dumps(lines[other], separators=(",", ":")) for other in sorted(lines) if lines[other]["rows"]]
            (given.folder / f"{FILE}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
            print(name, len(lines[name]["rows"]), *refused(lines[name]).values(), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
