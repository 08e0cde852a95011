"""Shapes of the hub under `/api/adapters`: its state, switching, jobs and generated text."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from loralens.api.shape import Documented
from loralens.lab.words import ExactNumbers

Way = Literal["index", "pointer", "file", "merge"]


class HubTask(Documented):
    """One of the six tasks."""

    name: str
    title: str
    title_zh: str


class HubExample(Documented):
    """A request that no adapter was trained on."""

    request: str
    prompt: str = Field(description="The request in the form that the models continue.")


class KeptAdapter(Documented):
    """An adapter on the shelf."""

    id: str
    label: str
    source: Literal["upload", "registry"]
    file_bytes: int


class HubBase(Documented):
    """The base under the adapters."""

    name: str
    parameters: int
    file_bytes: int
    sha256: str = Field(description="Hash of the weights' bytes when they were loaded.")


class HeldOut(Documented):
    """Answers to requests kept out of training, right to the letter."""

    requests: int
    right: int


class HubAdapter(Documented):
    """An adapter in the hub."""

    name: str
    title: str
    title_zh: str
    rank: int
    alpha: float
    target_modules: list[str]
    parameters: int
    file_bytes: int
    active: bool
    held_out: HeldOut | None = Field(description="Null for an adapter that was not trained here.")


class HubStorage(Documented):
    """Bytes on disk."""

    base_bytes: int
    adapters_bytes: int
    shared_bytes: int = Field(description="One base and all adapters.")
    separate_bytes: int = Field(description="A full model for every adapter.")


class SwitchAnswer(Documented):
    """One switch, timed."""

    adapter: str | None
    way: Way
    seconds: float


class SwitchTimingAnswer(Documented):
    """One way of switching, measured."""

    way: str
    median_seconds: float
    best_seconds: float
    low_seconds: float
    high_seconds: float
    samples: int
    reload_ratio: float | None = Field(description="How many switches fit into one reload of the base.")


class DriftAnswer(Documented):
    """Relative error of merged weights."""

    dtype: str
    switches: int
    in_place: float
    from_copy: float
    base_restored: float


class SwitchMeasurement(BaseModel):
    """Every way of switching against reloading the base; also the `result` event of the switching job."""

    model_config = ConfigDict(extra="allow")
    modules: int
    base_bytes: int
    adapter_bytes: int
    threads: int
    timings: list[SwitchTimingAnswer]
    drift: list[DriftAnswer]


class HubState(Documented):
    """The hub as it is."""

    status: Literal["ready", "not_trained"]
    preset: str | None
    bases: list[str]
    tasks: list[HubTask]
    examples: list[HubExample]
    kept: list[KeptAdapter]
    base: HubBase | None
    adapters: list[HubAdapter]
    active: str | None
    way: Way | None
    storage: HubStorage | None
    last_switch: SwitchAnswer | None
    measured: SwitchMeasurement | None
    training: str | None = Field(description="Id of the job that trains the hub, while it waits or runs.")
    measuring: str | None = Field(description="The same of the job that measures switching on Llama-2-7B shapes.")


class SwitchRequest(Documented):
    """Which adapter (null: the base alone), and how."""

    adapter: str | None = Field(max_length=64)
    way: Way = "index"


class TrainRequest(Documented):
    """How long to train: standard (minutes, answers right) or quick (about a minute)."""

    preset: Literal["standard", "quick"] = "standard"


class BenchRequest(ExactNumbers, Documented):
    """Switching measured on real Llama-2-7B shapes; each layer takes 405 MB of disk and memory for a while."""

    layers: int = Field(4, ge=1, le=8)
    rank: int = Field(8, ge=1, le=256)


class LoadRequest(Documented):
    """Load an adapter of the shelf under a name."""

    id: str = Field(max_length=300)
    name: str = Field(max_length=64)


class BaseRequest(Documented):
    """Which base to put under the hub: one of `bases`."""

    base: str = Field(max_length=300)


class LoadAnswer(Documented):
    """What was loaded."""

    name: str
    rank: int
    file_bytes: int


class VerifyRequest(Documented):
    """The prompt to compare outputs on."""

    prompt: str = Field(max_length=4000)


class VerifyAnswer(Documented):
    """Do outputs differ, return bit for bit, and is the base untouched?"""

    distinct_outputs: int
    adapters: int
    returns_bit_for_bit: bool
    base_unchanged: bool
    base_sha256: str


class GenerationToken(Documented):
    """Data of `event: token`."""

    row: int
    adapter: str | None
    index: int
    text: str
    last: bool


class GenerationEnd(Documented):
    """Data of `event: done`."""

    tokens: int
    seconds: float
    tokens_per_second: float
