"""Rows of measured runs, and what the estimator says about each.

A row is one JSON object: `model` (catalogue id) or `config`, `method`, `recipe` (the contract's words), `metric`
(allocated, reserved, device or unclear), `peak_bytes`, and where it comes from. `loralens measure` writes the same rows.
Where a word of `recipe` is not what the publisher states, `corrected` lists it with what is stated (null: nothing) and
the source of the correction; `one_length` is where padded batches are seen to have the full length.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loralens.core import catalogue
from loralens.core.answer.card import workspace_bytes
from loralens.core.answer.estimate import Estimate, estimate_model
from loralens.core.answer.overhead import simulated_overhead
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.model import Model, resolve
from loralens.core.question.recipe import Recipe
from loralens.core.question.versions import FRAMEWORKS

MAX_ROWS: Final = 100_000
MAX_LINE: Final = 1_000_000
METRICS: Final = ("allocated", "reserved", "device", "unclear")


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One measured run."""

    id: str
    data: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """What the measured figure is."""
        metric = self.data.get("metric")
        return metric if metric in METRICS else "unclear"

    @property
    def measured_bytes(self) -> int:
        """The measured peak of one GPU."""
        return int(self.data["peak_bytes"])

    @property
    def gpu(self) -> str:
        """The card, as published."""
        return str(self.data.get("gpu") or "")

    @property
    def source(self) -> str:
        """Where the figure is published."""
        return str(self.data.get("source") or "own measurement")

    @property
    def project(self) -> str:
        """Who measured."""
        return self.source.split(" ")[0].removeprefix("https://github.com/")

    @property
    def upper_bound(self) -> bool:
        """Is the row's length a cap that its unpacked samples need not have reached?"""
        return str(self.data.get("notes") or "").startswith("length: cap")

    @property
    def strategy(self) -> str:
        """How the GPUs shared the work."""
        return str((self.data["recipe"].get("parallelism") or {}).get("strategy") or "none")

    @property
    def stack(self) -> str:
        """`huggingface`, or the framework whose own model code ran; `plain loop` where a loop keeps the model's output."""
        for name in ("litgpt", "torchtune", "LLMs-from-scratch"):
            if name in self.project:
                return name
        if self.data["recipe"].get("keep_outputs"):
            return "plain loop"
        return "gpt_bigcode" if (self.data.get("config") or {}).get("model_type") == "gpt_bigcode" else "huggingface"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row beside its estimate; `estimate` is None where `refused` says why there is none."""

    row: MeasuredRow
    estimate: Estimate | None
    refused: str | None
    predicted_bytes: int = 0
    low_bytes: int = 0
    high_bytes: int = 0
    allocated_bytes: int = 0  # computed, with cuBLAS's workspaces
    fixed_bytes: int = 0  # of a row with a band: reserved as simulated, for batches of one length
    varying_bytes: int = 0  # and of varying lengths, where they vary

    varies: bool = False  # the batches' lengths
    blocks_bytes: int = 0  # allocated, as simulated: in the allocator's blocks

    @property
    def several(self) -> bool:
        """Did several GPUs work together?"""
        return self.estimate is not None and self.estimate.recipe.parallelism.gpus > 1

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_bytes / self.row.measured_bytes - 1

    @property
    def inside(self) -> bool:
        """Does the printed band hold the measured figure?"""
        return self.low_bytes <= self.row.measured_bytes <= self.high_bytes


def read_rows(lines: Iterable[str]) -> list[MeasuredRow]:
    """Rows of a JSON-lines file.

    Raises:
        InvalidInput: a line is not a row; it names the line.
    """
    rows: list[MeasuredRow] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        if len(text) > MAX_LINE or len(rows) >= MAX_ROWS:
            raise InvalidInput(
                f"line {number}: over the limit of {MAX_ROWS} rows or {MAX_LINE} characters a line", field="runs"
            )
        row = _row(number, text)
        rows += [row, *_device_row(row)]
    return rows


def _device_row(row: MeasuredRow) -> list[MeasuredRow]:
    """A second figure of the same run: what the monitor showed, where it is published beside what was allocated."""
    shown = row.data.get("device_peak_bytes")
    if row.metric != "allocated" or isinstance(shown, bool) or not isinstance(shown, int) or shown <= 0:
        return []
    return [MeasuredRow(f"{row.id} on the device", {**row.data, "metric": "device", "peak_bytes": shown})]


def _row(number: int, text: str) -> MeasuredRow:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"line {number} is not JSON: {error}", field="runs", hint="one JSON object per line"
        ) from error
    if not isinstance(data, Mapping):
        raise InvalidInput(f"line {number} is not a JSON object", field="runs", hint="one JSON object per line")
    peak = data.get("peak_bytes")
    if isinstance(peak, bool) or not isinstance(peak, int) or peak <= 0:
        raise InvalidInput(f"line {number}: peak_bytes must be a positive whole number", field="peak_bytes")
    if not isinstance(data.get("recipe"), Mapping):
        raise InvalidInput(f"line {number}: recipe must be an object", field="recipe")
    return MeasuredRow(str(data.get("id") or f"line {number}"), data)


def judge(row: MeasuredRow) -> Outcome:
    """Estimate a row's run and lay the figure that its metric asks for beside it; those above the allocator are simulated."""
    try:
        found = _estimate(row)
    except LoraLensError as error:
        return Outcome(row, None, error.message)
    allocated = found.allocated_bytes + workspace_bytes(row.gpu)
    if row.metric == "allocated":
        return Outcome(row, found, None, allocated, allocated, allocated, allocated)
    try:
        process = found.simulated(row.gpu, _memory_of(row.gpu), varying=_varies(row, found))
    except LoraLensError as error:
        return Outcome(row, None, error.message)
    bands = simulated_overhead(process, several=found.recipe.parallelism.gpus > 1)
    low, typical, high = bands.reserved if row.metric == "reserved" else bands.device
    return Outcome(
        row,
        found,
        None,
        typical,
        low,
        high,
        allocated,
        process.fixed_bytes,
        process.largest_bytes,
        varies=process.varying_bytes is not None,
        blocks_bytes=process.allocated_bytes,
    )


def _varies(row: MeasuredRow, found: Estimate) -> bool:
    """Did the batches' lengths vary? Padded ones do, unless the row says where all are seen to have the full length."""
    return found.recipe.padded and not row.data.get("one_length")


def _memory_of(gpu: str) -> int | None:
    """The memory of the published card, where its name says enough."""
    try:
        return catalogue.gpu(gpu).memory_bytes
    except LoraLensError:
        return None


def _estimate(row: MeasuredRow) -> Estimate:
    return estimate_model(model_of(row), str(row.data.get("method") or "lora"), Recipe.from_mapping(words_of(row)))


def model_of(row: MeasuredRow) -> Model:
    """The model of a row.

    Raises:
        InvalidInput: its config is not published with it, or it is a model that is not modelled.
    """
    config, name = _config(row), row.data.get("model")
    if config is None and name is None:
        raise InvalidInput("the row names a model whose config is not published with it", field="model")
    return resolve(name) if name else resolve(config=config)


def words_of(row: MeasuredRow) -> dict[str, object]:
    """A row's recipe, with the framework whose code ran."""
    words = dict(row.data["recipe"])
    if row.stack in FRAMEWORKS:
        words["stack"] = {**(words.get("stack") or {}), "framework": row.stack}
    return words


def _config(row: MeasuredRow) -> Any:
    """The row's config; first-generation Qwen is published as `qwen2` with half its intermediate size and is put back."""
    config = row.data.get("config")
    targets = (row.data["recipe"].get("lora") or {}).get("target_modules") or ()
    if "W_pack" in targets:
        raise InvalidInput(
            "Baichuan 2 has query, key and value in one matrix, W_pack (modeling_baichuan.py of its repository), and a head that "
            "norms its weight: a family that is not modelled",
            field="config",
        )
    if isinstance(config, Mapping) and config.get("model_type") == "qwen2" and "c_attn" in targets:
        return {**config, "model_type": "qwen", "intermediate_size": 2 * int(config.get("intermediate_size") or 0)}
    return config
