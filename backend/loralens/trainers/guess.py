"""Which tensor has a size, where nobody says of what: the ledger inverted over the catalogue, models that are fine-tuned most first.

The size alone leaves some dozens of tensors of some models at some batch and length. What else the message says decides among
them: how much was allocated when the request failed is known of each of them to the byte. Each set-up speaks for its tensors, the
more the nearer it is, the more usual, and the more cards there are on which that very request would be the one that fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from loralens.core import catalogue
from loralens.core.answer.explain import formula
from loralens.core.answer.named_requests import NamedWalk, named_walk, resting_bytes
from loralens.core.errors import LoraLensError
from loralens.core.question.model import Model, named
from loralens.core.question.recipe import Recipe
from loralens.core.step.allocator import MIN_BLOCK, MIN_LARGE_REQUEST, ROUND_LARGE
from loralens.core.tape.size import Size, monomial_values
from loralens.core.tape.validity import Validity
from loralens.trainers.oom import OutOfMemoryText

if TYPE_CHECKING:
    from loralens.trainers.shapes import GuessedSetUp, GuessedTensor

COMMON: Final = (
    "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-1b", "tinyllama-1.1b", "llama-3.2-1b", "qwen2.5-1.5b", "qwen3-1.7b", "gemma-2-2b",
    "qwen2.5-3b", "llama-3.2-3b", "qwen3-4b", "llama-2-7b", "mistral-7b-v0.3", "qwen2.5-7b", "llama-3.1-8b", "qwen3-8b",
    "gemma-2-9b", "mistral-nemo-12b", "llama-2-13b", "qwen2.5-14b", "qwen3-14b", "phi-4", "qwen2.5-32b", "llama-3.1-70b",
)  # fmt: skip
"""Assumption: the models that are fine-tuned most, the smallest first."""
DEPTH: Final = ("num_hidden_layers", "n_layer", "num_layers")
"""Names that configs have for the number of layers."""
UNLIKE: Final = ("expert", "conv", "ssm", "state", "mamba", "block_type", "hybrid")
"""Parts of keys that only configs with experts or with recurrent layers have: their walk is long, and no stack of like layers."""
NEAR: Final = 6 << 20
"""Bytes. What was alive is known within it where the set-up is right: two decimals of a GiB, and what rounding adds."""
BATCHES: Final = (1, 2, 4, 8, 16, 32)
LENGTHS: Final = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
RANKS: Final = (8, 16, 32, 64)
MOST_WALKS: Final = 96
"""Of the models that are looked at first; of all others together as many again."""
USUAL_TOKENS: Final = 2048
FEW, MORE = 2, 4
"""Layers of the two models that are walked in a model's place."""
MOST_TENSORS, MOST_SET_UPS = 5, 3
SHAPES: Final = tuple((batch, length) for batch in BATCHES for length in LENGTHS if batch * length <= 65_536)
_ALL: Final = {"target_modules": "all-linear"}
SET_UPS: Final[tuple[tuple[str, float, Mapping[str, Any]], ...]] = (
    ("qlora", 0.5, {"lora": _ALL}), ("qlora", 0.5, {}), ("lora", 2.0, {"lora": _ALL}), ("lora", 2.0, {}),
    ("full", 4.0, {"optimizer": "adamw_8bit"}), ("full", 6.0, {}),
    ("full", 12.0, {"weights_dtype": "float32"}),
)  # fmt: skip
"""Method, the fewest bytes of a parameter that are there before the step begins, and words."""
SDPA: Final[tuple[Mapping[str, Any], ...]] = ({"gradient_checkpointing": True}, {"gradient_checkpointing": False})
EAGER: Final[tuple[Mapping[str, Any], ...]] = tuple({**one, "attention": "eager"} for one in SDPA)


@dataclass(frozen=True, slots=True)
class Guess:
    """One tensor of one set-up. `away`: how far what is alive before it is from what the message says; None: not said."""

    name: str
    category: str
    phase: str
    bytes: int
    formula: str
    model: str
    method: str
    recipe: Recipe
    alive_bytes: int
    away: int | None
    share: float

    @property
    def weight(self) -> float:
        """How likely it is among all, but for one factor.

        On a card of any size, of one step the request fails which the card's end falls into: `share` of all sizes. Another
        set-up is as likely as it is usual: some 2048 tokens, SDPA, a model of the list.
        """
        tokens = self.recipe.micro_batch_size * self.recipe.sequence_length
        usual = 0.6 ** abs(tokens.bit_length() - USUAL_TOKENS.bit_length())
        usual *= 0.25 if self.recipe.attention == "eager" else 1.0
        usual *= 1.0 if self.model in COMMON else 0.25
        near = 1.0 if self.away is None else math.exp(-max(0, self.away - NEAR) / NEAR)
        return usual * self.share * near

    def to_dict(self) -> GuessedSetUp:
        """The set-up's words that were tried."""
        r = self.recipe
        return {"model": self.model, "method": self.method, "micro_batch_size": r.micro_batch_size,
                "sequence_length": r.sequence_length, "gradient_checkpointing": r.gradient_checkpointing,
                "attention": r.attention, "alive_bytes": self.alive_bytes}  # fmt: skip


def guessed(message: OutOfMemoryText, models: Sequence[str] = COMMON) -> list[GuessedTensor]:
    """Tensors of this size, the likeliest first, each with the set-ups in which it has it; `models`: those looked at."""
    best: dict[tuple[str, str], list[Guess]] = {}
    for guess in _guesses(message, models):
        best.setdefault((guess.name, guess.phase), []).append(guess)
    rows: list[tuple[float, GuessedTensor]] = []
    for alike in best.values():
        alike.sort(key=lambda one: -one.weight)
        first = alike[0]
        rows.append((-sum(one.weight for one in alike), {"name": first.name, "category": first.category, "phase": first.phase,
                                   "bytes": first.bytes, "formula": first.formula,
                                   "set_ups": [one.to_dict() for one in alike[:MOST_SET_UPS]]}))  # fmt: skip
    return [row for _, row in sorted(rows, key=lambda one: one[0])[:MOST_TENSORS]]


@lru_cache(maxsize=1)
def others() -> tuple[str, ...]:
    """The catalogue's other models whose layers are one stack, the smallest first; of those of one shape the first."""
    seen = {_shape(catalogue.entry(id_).config) for id_ in COMMON}
    found: list[str] = []
    for entry in sorted(catalogue.models(), key=lambda one: one.published_parameters or 0):
        shape = _shape(entry.config)
        if entry.id not in COMMON and shape not in seen and _is_plain(entry.config):
            seen.add(shape)
            found.append(entry.id)
    return tuple(found)


def _shape(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What of a config decides sizes: its type and whole numbers."""
    return tuple(sorted((key, value) for key, value in config.items() if type(value) is int or key == "model_type"))


def _is_plain(config: Mapping[str, Any]) -> bool:
    """A causal decoder of one stack, without experts and without layers that loop over the sequence."""
    causal = any("CausalLM" in name or "LMHead" in name for name in config.get("architectures") or ())
    return causal and _depth(config) is not None and not any(part in key for key in config for part in UNLIKE)


def _depth(config: Mapping[str, Any]) -> str | None:
    return next((key for key in DEPTH if type(config.get(key)) is int), None)


def _guesses(message: OutOfMemoryText, models: Sequence[str]) -> Iterator[Guess]:
    held = message.allocated_bytes
    room = held if held is not None else message.capacity_bytes
    walks = 0
    for id_ in models:
        entry = catalogue.entry(id_)
        parameters = entry.published_parameters or 0
        plain, squares = _may_have(entry.config, message)
        for method, least, words in SET_UPS:
            if room is not None and least * parameters > 1.02 * room:
                continue
            for switches in (SDPA if plain else ()) + (EAGER if squares else ()):
                if walks == (MOST_WALKS if id_ in COMMON else 2 * MOST_WALKS):
                    break
                walks += 1
                yield from _of_set_up(id_, method, {**words, **switches}, message)


def _may_have(config: Mapping[str, Any], message: OutOfMemoryText) -> tuple[bool, bool]:
    """Has any product of the config's widths this size: with tokens or each other, and with the square of a length?

    Spares the walk of most models.
    """
    own = {value for value in config.values() if type(value) is int and 16 <= value <= 1_000_000}
    heads = [int(config.get(key) or 0) for key in ("num_attention_heads", "num_key_value_heads")]
    width = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // max(1, heads[0]))
    own |= {count * width for count in heads}
    tokens = {batch * length for batch, length in SHAPES}
    products = {a * b * k for a in own for b in (tokens | own) for k in (1, 2, 3)}
    squares = {batch * length * length * count for batch, length in SHAPES for count in heads}
    low, high = message.tried.low - ROUND_LARGE, message.tried.high
    return tuple(any(low <= n * size <= high for n in found for size in (2, 4)) for found in (products, squares))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Shallow:
    """The step of a model of few layers, as arrays.

    Attributes:
        kinds: the sizes, as polynomials; shape (sizes, monomials).
        kind, sign: of each event, which size, and whether it is born (1) or released (-1).
        groups: label, category, phase and size of what is asked for, all alike in one row.
        births, starts: the events at which something is born, group by group; where each group begins among them.
    """

    kinds: NDArray[np.int64]
    kind: NDArray[np.int64]
    sign: NDArray[np.int64]
    groups: dict[tuple[str, str, str, Size], int]
    births: NDArray[np.int64]
    starts: NDArray[np.int64]

    @staticmethod
    def of(walk: NamedWalk) -> _Shallow:
        """Births in groups of the same name, phase and size."""
        numbers: dict[Size, int] = {}
        kind_of = np.array([numbers.setdefault(size, len(numbers)) for size, _, _ in walk.names], dtype=np.int64)
        found: dict[tuple[str, str, str, Size], list[int]] = {}
        for place, event in enumerate(walk.events):
            if event > 0:
                size, category, label = walk.names[event - 1]
                phase = "backward" if place >= walk.backward else "forward"
                found.setdefault((label, category, phase, size), []).append(place)
        events = np.array(walk.events, dtype=np.int64)
        counts = [len(places) for places in found.values()]
        return _Shallow(
            np.array(list(numbers), dtype=np.int64), kind_of[np.abs(events) - 1], np.sign(events),
            {group: number for number, group in enumerate(found)},
            np.array([place for places in found.values() for place in places], dtype=np.int64),
            np.cumsum([0, *counts[:-1]]),
        )  # fmt: skip

    def alive(self, values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Of each group the least and the most that is alive before it, beside what rests; and on what share of cards it fails.

        What needs no more than something before it in the step cannot be what fails: that would have failed.
        """
        change = (self.kinds @ values)[self.kind] * self.sign
        after = np.cumsum(change)
        before = (after - change)[self.births]
        fullest = np.maximum.accumulate(np.concatenate([[0], after[:-1]]))
        gains = np.maximum(0, after - fullest)[self.births] / max(1, int(after.max()))
        return (
            np.minimum.reduceat(before, self.starts),
            np.maximum.reduceat(before, self.starts),
            np.add.reduceat(gains, self.starts),
        )


@dataclass(frozen=True, slots=True)
class _Walked:
    """A step at two depths, from which that of all layers follows: what is alive grows by as much with every layer.

    `shared`: of each group of the deeper one, its numbers in both.
    """

    few: _Shallow
    more: _Shallow
    shared: NDArray[np.int64]
    groups: list[tuple[str, str, str, Size]]
    sizes: NDArray[np.int64]
    resting: Size
    layers: int
    validity: Validity

    def alive(self, point: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Of each group the least and the most that is alive before it, of all layers; and on what share of cards it fails."""
        values = np.array(monomial_values(*point), dtype=np.int64)
        few, more = self.few.alive(values), self.more.alive(values)
        deeper, resting = (self.layers - FEW) / (MORE - FEW), self.resting.at(*point)
        least, most = (
            (resting + low[self.shared[0]] + deeper * (high[self.shared[1]] - low[self.shared[0]])).astype(np.int64)
            for low, high in zip(few[:2], more[:2], strict=True)
        )
        return least, most, more[2][self.shared[1]]


@lru_cache(maxsize=512)
def _walked(id_: str, method: str, recipe: Recipe) -> _Walked | None:
    model = named(id_)
    layers = int(model.config[_depth(model.config) or DEPTH[0]])
    try:
        walks = [named_walk(_with_layers(model, count), method, recipe) for count in (FEW, MORE)]
        resting = resting_bytes(model, method, recipe)
    except LoraLensError:
        return None
    few, more = (_Shallow.of(walk) for walk in walks)
    groups = [group for group in more.groups if group in few.groups]
    shared = np.array([[few.groups[group] for group in groups], [more.groups[group] for group in groups]])
    sizes = np.array([size for *_, size in groups], dtype=np.int64)
    return _Walked(few, more, shared, groups, sizes, resting, layers, walks[1].validity)


def _with_layers(model: Model, count: int) -> Model:
    config = {**model.config, _depth(model.config) or DEPTH[0]: count}
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = config["layer_types"][:count]
    return replace(model, config=config, key=None)


def _of_set_up(id_: str, method: str, words: Mapping[str, Any], message: OutOfMemoryText) -> Iterator[Guess]:
    recipe = Recipe.from_mapping({"sequence_length": 2048, **words})
    found = _walked(id_, method, recipe)
    if found is None:
        return
    for rank in RANKS if method != "full" else RANKS[:1]:
        points = [(*shape, rank) for shape in SHAPES if found.validity.covers(*shape, rank)]
        values = np.array([monomial_values(*point) for point in points], dtype=np.int64).reshape(len(points), -1)
        sizes = found.sizes @ values.T
        fits = _prints_alike(sizes, message)
        for column in np.flatnonzero(fits.any(axis=0)):
            at = replace(recipe, micro_batch_size=points[column][0], sequence_length=points[column][1],
                         lora=replace(recipe.lora, rank=rank))  # fmt: skip
            yield from _at_point(found, id_, method, at, sizes[:, column], fits[:, column], message.allocated_bytes)


def _prints_alike(sizes: NDArray[np.int64], message: OutOfMemoryText) -> NDArray[np.bool_]:
    """Sizes whose segment lies within what the printed figure stands for."""
    blocks = -(-sizes // MIN_BLOCK) * MIN_BLOCK
    segments = -(-blocks // ROUND_LARGE) * ROUND_LARGE
    found: NDArray[np.bool_] = (
        (blocks >= MIN_LARGE_REQUEST) & (segments >= message.tried.low) & (segments <= message.tried.high)
    )
    return found


def _at_point(
    found: _Walked,
    model: str,
    method: str,
    recipe: Recipe,
    sizes: NDArray[np.int64],
    fits: NDArray[np.bool_],
    held: int | None,
) -> Iterator[Guess]:
    """The requests of these sizes with what is alive before them; of each the layer at which that is nearest."""
    least, most, shares = found.alive((recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank))
    for row in np.flatnonzero(fits & (shares > 0)).tolist():
        label, category, phase, size = found.groups[row]
        low, high = int(least[row]), int(most[row])
        before, step = low, (high - low) / max(1, found.layers - 1)
        if held is not None and step:
            before = round(low + step * min(found.layers - 1, max(0, round((held - low) / step))))
        yield Guess(label, category, phase, int(sizes[row]), formula(size), model, method, recipe, before,
                    None if held is None else abs(before - held), float(shares[row]))  # fmt: skip
