"""What is kept of computed things, bounded in bytes: by what was asked, and by what of a config.json was read for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from operator import attrgetter
from threading import Lock
from typing import Any, Generic, TypeVar

from loralens.core.question.lora import Lora
from loralens.core.question.model import Model
from loralens.core.question.reading import Looks, NotedConfig, found
from loralens.core.question.recipe import Recipe

T = TypeVar("T")
_READINGS = 8  # ways of reading a config that are told apart for one question; families branch on a few fields


class Kept(Generic[T]):
    """The most recently used values, up to so many bytes. Safe for threads.

    Args:
        most_bytes: what all values may weigh together.
        weigh: bytes of one value, about; its key is added.
    """

    def __init__(self, most_bytes: int, weigh: Callable[[T], int]) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._weigh = weigh
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> T | None:
        """The value of a key, if it is still there."""
        with self._lock:
            kept = self._values.get(key)
            if kept is None:
                return None
            self._values.move_to_end(key)
            return kept[0]

    def put(self, key: Hashable, value: T) -> list[Hashable]:
        """Keep a value; the keys that had to go for it. One that is larger than all the room is not kept."""
        weight = self._weigh(value) + len(repr(key))
        gone: list[Hashable] = []
        with self._lock:
            if key in self._values:
                self.bytes -= self._values.pop(key)[1]
            self._values[key] = (value, weight)
            self.bytes += weight
            while self.bytes > self.most_bytes:
                oldest, (_, bytes_) = self._values.popitem(last=False)
                self.bytes -= bytes_
                gone.append(oldest)
        return gone

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.bytes = 0


class KeptByModel(Generic[T]):
    """Values that were computed for a model and a question, each good for a range of settings.

    A catalogue model is found by its name, a config by what was read of it (`question.reading`): entries that no answer
    depends on are no part of a key, and are not kept.

    Args:
        most_bytes: what all values may weigh together.
        weigh: bytes of one value, about.
        covers: is a value good for this setting?
        most: values per model and question (some models need one for every number of tokens).
    """

    def __init__(
        self, most_bytes: int, weigh: Callable[[T], int], covers: Callable[[T, Any], bool], most: int = 8
    ) -> None:
        self._kept: Kept[tuple[T, ...]] = Kept(most_bytes, lambda values: sum(map(weigh, values)))
        self._covers = covers
        self._most = most
        self._lock = Lock()
        self._readings: OrderedDict[Hashable, list[Looks]] = OrderedDict()
        self._latest: tuple[Hashable, T] | None = (
            None  # found by comparing, which takes a fraction of finding it by its key
        )

    @property
    def bytes(self) -> int:
        """What is kept now."""
        return self._kept.bytes

    def find(self, model: Model, question: Hashable, setting: Any, compute: Callable[[Mapping[str, Any]], T]) -> T:
        """The value for a setting; computed if need be, from the model's config."""
        if model.key is not None:
            key: Hashable = (model.key, question)
            latest = self._latest
            if latest is not None and latest[0] == key and self._covers(latest[1], setting):
                return latest[1]
            kept = self._look(key, setting)
            value = self._add(key, compute(model.config)) if kept is None else kept
            self._latest = (key, value)
            return value
        scope = (model.family, question)
        with self._lock:
            readings = list(self._readings.get(scope, ()))
        for looks in readings:
            kept = self._look((scope, found(model.config, looks), looks), setting)
            if kept is not None:
                return kept
        reading = NotedConfig(model.config)
        value = compute(reading)
        looks = reading.looks
        with self._lock:
            known = self._readings.setdefault(scope, [])
            if looks not in known:
                known.append(looks)
                del known[:-_READINGS]
            self._readings.move_to_end(scope)
            while len(self._readings) > 256:
                self._readings.popitem(last=False)
        return self._add((scope, found(model.config, looks), looks), value)

    def _look(self, key: Hashable, setting: Any) -> T | None:
        for value in self._kept.get(key) or ():
            if self._covers(value, setting):
                return value
        return None

    def _add(self, key: Hashable, value: T) -> T:
        with self._lock:
            self._kept.put(key, (*(self._kept.get(key) or ()), value)[-self._most :])
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._readings.clear()
            self._latest = None


_OPEN = ("micro_batch_size", "sequence_length", "lora")
_of_step = attrgetter(*(one.name for one in fields(Recipe) if one.compare and one.name not in _OPEN))
_of_adapter = attrgetter(*(one.name for one in fields(Lora) if one.name not in ("rank", "alpha")))


def switches(recipe: Recipe) -> Hashable:
    """The recipe without what a plan or a recording leaves open: batch, length, rank and alpha."""
    return _of_step(recipe), _of_adapter(recipe.lora)
