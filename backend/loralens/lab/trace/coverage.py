"""What every walked model type is to be traced over, and what of it is recorded.

Twelve rows: full, LoRA on all linear layers and QLoRA, with checkpointing and without, at two batches and lengths each.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from loralens.core.architecture.nested import TALKS
from loralens.core.architecture.registry import MEDIA, families, text_config
from loralens.core.jsontext import JsonObject

FILE: Final = "traced-cells"
TEXT: Final = ("traced-models", "traced-text", "traced-more", "traced-grid", "traced-remote", "traced-steps")
WHOLE: Final = ("traced-media", "traced-sound")
CELLS: Final = tuple((method, checkpointing) for method in ("full", "lora", "qlora") for checkpointing in (False, True))
POINTS: Final = 2
MEDIA_WORDS: Final = ("images", "image_size", "video_frames", "audio_seconds")
Cell = tuple[str, bool]
Case = dict[str, Any]


def unfold(line: JsonObject) -> Iterator[Case]:
    """The cases of a type's line, each with a whole request."""
    for row in line["rows"]:
        method, checkpointing = row["method"], row["recipe"]["gradient_checkpointing"]
        recipe = {**line["recipe"], **line["words"].get(method, {}), **row["recipe"]}
        shape = f"{recipe['micro_batch_size']}x{recipe['sequence_length']}"
        name = f"{line['model_type']}/{method}{'-checkpointing' if checkpointing else ''}-{shape}"
        request = {"config": line["config"], "method": method, "recipe": recipe}
        yield {"name": name, "request": request, **{key: row[key] for key in ("expected", "refused") if key in row}}


def recorded(folder: Path) -> tuple[dict[str, list[Case]], dict[str, JsonObject]]:
    """By model type: the cases of all files but this grid's own, and this grid's lines.

    A case with a tower is the whole model's, any other the language model's.
    """
    found: dict[str, list[Case]] = defaultdict(list)
    for name in (*TEXT, *WHOLE):
        for case in read(folder / f"{name}.jsonl"):
            config = case["request"]["config"]
            own = config["model_type"] if name in WHOLE else text_config(config).text("model_type", "")
            if "expected" in case:
                found[own].append(case)
    return found, {line["model_type"]: line for line in read(folder / f"{FILE}.jsonl")}


def read(path: Path) -> list[Any]:
    """The lines of a file, if it is there."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def covered(name: str, cases: Sequence[Case], line: JsonObject | None) -> dict[Cell, set[tuple[int, int]]]:
    """The batches and lengths of which a type has traced steps, by cell.

    Of LoRA those on all linear layers, of a type with a tower those in which it runs.
    """
    targets = line["targets"] if line else "all-linear"
    found: dict[Cell, set[tuple[int, int]]] = {cell: set() for cell in CELLS}
    for case in (*cases, *(unfold(line) if line else ())):
        method, recipe = case["request"]["method"], case["request"]["recipe"]
        cell = (method, bool(recipe.get("gradient_checkpointing", True)))
        wide = method == "full" or recipe.get("lora", {}).get("target_modules") == targets
        runs = name not in MEDIA or any(recipe.get(word) for word in MEDIA_WORDS)
        if wide and runs and cell in found and "expected" in case:
            found[cell].add((recipe["micro_batch_size"], recipe["sequence_length"]))
    return found


def refused(line: JsonObject | None) -> dict[Cell, str]:
    """The cells that the real libraries refuse, with what they say."""
    rows = line["rows"] if line else []
    return {
        (row["method"], row["recipe"]["gradient_checkpointing"]): row["refused"] for row in rows if "refused" in row
    }


def wanted() -> list[str]:
    """The types that are walked, apart from those that only talk beside one of them."""
    return [name for name, walked in families().items() if walked] + sorted(set(MEDIA) - set(families()) - set(TALKS))
