"""The recipe: everything about a training step that is not the model. The words are the contract's.

**One row per word**: name, default, kind with its range or choices, and meaning. The reader, the flat names of query strings
and the command line, help, OpenAPI, the page's fields and the planner's changes all come from these rows.

`Recipe.from_mapping` reads the nested form (JSON bodies), and refuses unknown words and values out of range, naming the field
and the way out. `flat.nested` turns the flat form of query strings and the command line into the nested one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question import media
from loralens.core.question.accelerator import ACCELERATORS, CUDA
from loralens.core.question.evaluation import Evaluation
from loralens.core.question.frozen import frozen, thawed
from loralens.core.question.kinds import (
    Choice,
    Fused,
    Maybe,
    Number,
    Place,
    Truth,
    Whole,
    mapping,
)
from loralens.core.question.lora import Lora as Lora
from loralens.core.question.losses import LOSS_TABLE, LOSSES
from loralens.core.question.names import Versions
from loralens.core.question.needs import (
    CACHE,
    CHECKPOINTS,
    CROSS_ENTROPY,
    FULL,
    IN_PLACE,
    LABELLED,
    LANGUAGE_HEAD,
    OUTPUTS,
    PICKED,
    TRANSFORMERS_LOOP,
    TRANSFORMERS_MIXERS,
    TRANSFORMERS_MODEL,
)
from loralens.core.question.objective_names import said_plainly
from loralens.core.question.objectives import Objective, RewardModel, Rollout, Teacher, Value
from loralens.core.question.parallelism import Parallelism
from loralens.core.question.parallelism_rules import go_together, segments_alone
from loralens.core.question.precision import DTYPES
from loralens.core.question.quantization import Quantization
from loralens.core.question.shapes import RecipeWords
from loralens.core.question.versions import framework
from loralens.core.question.words import Word, left_open, read_words, shown, word, words_of

OPTIMIZERS: Final = (
    "adamw_fused",
    "adamw_foreach",
    "adamw_loop",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "adamw_4bit",
    "adamw_anyprecision",
    "sgd",
    "sgd_momentum",
    "adafactor",
    "lion",
    "lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "muon",
)
NO_TRAINER: Final = "none"
TRAINERS: Final = (
    "transformers", "trl", "axolotl", "llama-factory", "ms-swift", "unsloth", "torchtune", "litgpt", "verl", "megatron", "plain",
)  # fmt: skip
HEADS: Final = (
    "lm", "sequence_classification", "reward", "token_classification", "question_answering", "embedding",
)  # fmt: skip
LIBRARIES: Final = (
    "transformers", "torch", "peft", "bitsandbytes", "trl", "liger", "unsloth", "litgpt", "torchtune", "accelerate", "verl", "megatron", "framework",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training set-up; see the module's docstring. Every field has the contract's name and default."""

    micro_batch_size: int = word(
        1, Whole(1, 65_536), "Samples per GPU and forward pass.", common=True,
        aliases=("batch_size", "per_device_train_batch_size"),
    )  # fmt: skip
    sequence_length: int = word(
        2048, Whole(1, 16_777_216), "Tokens per sample.", common=True,
        aliases=("seq_len", "seq_length", "max_seq_length", "max_length"),
    )  # fmt: skip
    gradient_accumulation_steps: int = word(
        1, Whole(1, 1_000_000), "Forward and backward passes per optimizer step.", common=True, aliases=("grad_accum",)
    )
    padded: bool = word(False, Truth(), "An attention mask is passed, as with padded batches.")
    weights_dtype: str = word("bfloat16", Choice(DTYPES), "Data type of the base weights.")
    autocast: str | None = word(
        "bfloat16", Maybe(Choice(("bfloat16", "float16"))), "Compute dtype under autocast, or none."
    )
    optimizer: str = word("adamw_fused", Choice(OPTIMIZERS), "Optimizer and its implementation.", common=True)
    gradient_checkpointing: bool = word(
        True, Truth(), "Recompute activations in the backward pass instead of storing them.", common=True
    )
    checkpoint_every: int = word(
        1,
        Whole(1, 10_000),
        "Checkpoint one layer in so many; the others keep all their activations (transformers' every_n_layers).",
        needs=(CHECKPOINTS,),
    )
    checkpoint_segment: int = word(
        1,
        Whole(1, 10_000),
        "Layers per checkpointed segment: only the segment's input is stored, and all its layers run again.",
        needs=(CHECKPOINTS,),
    )
    checkpoint_offload: str = word(
        "none",
        Choice(("none", "cpu")),
        "Where the saved inputs of checkpointed segments are stored.",
        needs=(CHECKPOINTS,),
    )
    checkpoint_reentrant: bool | None = word(
        None,
        Maybe(Truth()),
        "Use torch's reentrant gradient checkpointing; none: what the library defaults to.",
        needs=(CHECKPOINTS,),
    )
    checkpoint_saves: str = word(
        "inputs",
        Choice(("inputs", "ops")),
        "What checkpointed layers save: their inputs; ops: also what attention, collectives and every second matrix product "
        "make (torchtitan's selective checkpointing by operator).",
        needs=(CHECKPOINTS,),
    )
    attention: str = word("sdpa", Choice(("sdpa", "flash", "eager")), "Attention implementation.", common=True)
    accelerator: str = word(
        CUDA,
        Choice(ACCELERATORS),
        "What runs the kernels, which decides which attention kernel PyTorch picks; cuda: compute capability 8.0 and later.",
        needs=(PICKED,),
    )
    optimizer_in_backward: bool = word(
        False, Truth(), "Update each parameter during the backward pass, so that no gradient outlives its layer."
    )
    max_grad_norm: float | None = word(
        None,
        Maybe(Number(0, 1e9)),
        "Clip gradients at this norm; none: no clipping.",
        needs=(IN_PLACE,),
    )
    keep_outputs: bool = word(
        False,
        Truth(),
        "The training loop holds the model's output (logits; keys and values with use_cache) through the backward pass and the optimizer step.",
        needs=(OUTPUTS, TRANSFORMERS_LOOP),
    )
    use_cache: bool = word(
        False,
        Truth(),
        "The model fills its key-value cache while it trains, as its config says where no trainer turns it off.",
        needs=(CACHE, TRANSFORMERS_LOOP),
    )
    loss: str = word(
        "full",
        Choice(LOSSES),
        "How the cross entropy over the vocabulary is computed.",
        common=True,
        needs=(CROSS_ENTROPY,),
    )
    labelled_tokens: int | None = word(
        None,
        Maybe(Whole(1, 16_777_216)),
        "Tokens of a sample that have a label, as prompts have none; none: all.",
        needs=(LABELLED, LANGUAGE_HEAD),
    )
    head: str | None = word(
        None,
        Maybe(Choice(HEADS)),
        "The model's last part; none: what the config's `architectures` name, else the language model's head.",
        needs=(TRANSFORMERS_MODEL,),
    )
    num_labels: int | None = word(
        None,
        Maybe(Whole(1, 1_000_000)),
        "Classes of a classification head; none: the config's, else two.",
        needs=(TRANSFORMERS_MODEL,),
    )
    images: int = media.images
    image_size: tuple[int, int] | None = media.image_size
    video_frames: int = media.video_frames
    audio_seconds: float = media.audio_seconds
    freeze_tower: str = media.freeze_tower
    fused_kernels: str = word("none", Fused(), "Fused norm and rotary kernels; +lora fuses LoRA too.")
    mixer_kernels: str = word(
        "torch",
        Choice(("torch", "fused")),
        "State-space and linear-attention layers: transformers' PyTorch code, or fused kernels (flash-linear-attention, mamba-ssm, "
        "causal-conv1d).",
        needs=(TRANSFORMERS_MIXERS,),
    )
    compile: bool = word(False, Truth(), "torch.compile.")
    trainable_layers: int | None = word(
        None,
        Maybe(Whole(0, 100_000)),
        "Train only this many of the last layers; none: all.",
        needs=(FULL,),
    )
    trainer: str = word(
        NO_TRAINER,
        Choice((*TRAINERS, NO_TRAINER)),
        "Fill the options left open with this trainer's defaults; plain: a training loop of your own.",
        common=True,
    )
    stack: tuple[tuple[str, str], ...] = word((), Versions(LIBRARIES), "Library versions that change the answer.")
    lora: Lora = field(default=Lora())
    quantization: Quantization | None = None
    parallelism: Parallelism = field(default=Parallelism())
    objective: Objective = field(default=Objective())
    teacher: Teacher = field(default=Teacher())
    rollout: Rollout = field(default=Rollout())
    value: Value = field(default=Value())
    reward_model: RewardModel = field(default=RewardModel())
    evaluation: Evaluation = field(default=Evaluation())
    left_open: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Flat names of the words that nobody said, where a trainer is to fill them (`presets.as_trained`)."""
    idle_packing: Quantization | None = field(default=None, repr=False)
    """What was said of a packing though nothing is packed (`presets.packed_by`); its type is empty where none was named."""
    idle_words: frozenset[str] = field(default=frozenset(), repr=False)
    """Where its type was not named: flat names of the words that were said of it, those with their usual values too."""

    @staticmethod
    def from_mapping(given: Any = None) -> Recipe:
        """Read the contract's `recipe` object.

        Raises:
            InvalidInput: an unknown word, or a value of the wrong type or out of range.
        """
        entries = mapping(said_plainly(given), "recipe", _names(), "recipe field") if given is not None else {}
        try:
            return _cached(frozen(entries))
        except TypeError:  # something unhashable inside: read it uncached, the reader will say what is wrong
            return _read(entries)

    def at(self, micro_batch_size: int, sequence_length: int, lora: Lora) -> Recipe:
        """The recipe with another batch, length and adapter; `dataclasses.replace` takes three times as long."""
        values = list(_values(self))
        for place, value in zip(_OPEN, (micro_batch_size, sequence_length, lora), strict=True):
            values[place] = value
        return Recipe(*values)

    def to_dict(self) -> RecipeWords:
        """The nested JSON form, complete, so that an answer shows every default that was used."""
        groups = {name: getattr(self, name) for name in GROUPS}
        return RecipeWords(
            shown(words_of(Recipe), self)
            | {name: None if value is None else shown(words_of(GROUPS[name]), value) for name, value in groups.items()}
        )

    @property
    def unnamed_packing(self) -> bool:
        """Is it said how a base is packed, but not that it is? Then it is meant for a method that packs by itself."""
        return self.quantization is not None and "quantization" in self.left_open

    @property
    def keeps_outputs(self) -> bool:
        """Is what the model returns alive in backward, in the step and in the next forward pass?"""
        return LOSS_TABLE[self.loss].kept or (self.keep_outputs and not framework(self))

    def holder(self, row: Word) -> Any:
        """What holds the word's value: for words of a packing, said though nothing is packed, what was said; else None."""
        if row.group == "quantization" and self.quantization is None and self.idle_packing is not None:
            return self.idle_packing if self.idle_packing.type or row.name != "quantization" else None
        return getattr(self, row.group) if row.group else self

    def get(self, name: str) -> Any:
        """A word's value by its flat name, as JSON; None for a packing's words where nothing is packed."""
        row = WORD[name]
        holder = getattr(self, row.group) if row.group else self
        return None if holder is None else row.kind.shown(getattr(holder, row.field))

    def with_(self, name: str, value: Any) -> Recipe:
        """The recipe with one word changed, by its flat name; raises `InvalidInput` for a value that it does not take."""
        row = WORD[name]
        read = row.kind.read(value, Place(row.path, row.default, word=row.name))
        if name == "quantization" and read is None:
            return replace(self, quantization=None)
        if not row.group:
            return replace(self, **{row.field: read})
        holder = getattr(self, row.group) or GROUPS[row.group]()
        return replace(self, **{row.group: replace(holder, **{row.field: read})})


_FIELDS: Final = [one.name for one in fields(Recipe)]
_values: Final = attrgetter(*_FIELDS)
_OPEN: Final = [_FIELDS.index(name) for name in ("micro_batch_size", "sequence_length", "lora")]
GROUPS: Final[dict[str, Any]] = {
    "lora": Lora, "quantization": Quantization, "parallelism": Parallelism, "objective": Objective, "teacher": Teacher, "rollout": Rollout,
    "value": Value, "reward_model": RewardModel, "evaluation": Evaluation,
}  # fmt: skip
ALL_WORDS: Final[tuple[Word, ...]] = (
    *words_of(Recipe),
    *(
        # nothing is packed unless somebody says so
        replace(row, default=None, kind=Maybe(row.kind)) if row.name == "quantization" else row
        for name, cls in GROUPS.items()
        for row in words_of(cls, name)
    ),
)
PACKING_WORDS: Final = frozenset(row.name for row in ALL_WORDS if row.group == "quantization")
WORDS: Final = tuple(row for row in ALL_WORDS if row.kind.flat)
"""The rows that query strings and the command line can say: all that fit into a line of text."""
WORD: Final = {row.name: row for row in WORDS}
ALIASES: Final = {alias: row.name for row in WORDS for alias in row.aliases}
"""What other programs call some words; the command line understands these too."""


@cache
def _names() -> tuple[str, ...]:
    """What a nested recipe may hold."""
    return (*(row.field for row in words_of(Recipe)), *GROUPS)


@lru_cache(maxsize=1024)
def _cached(entries: Any) -> Recipe:
    return _read(thawed(entries))


def _read(entries: Mapping[str, Any]) -> Recipe:
    given = {name: entries[name] for name in GROUPS if entries.get(name) is not None}
    groups = {name: GROUPS[name].from_mapping(value) for name, value in given.items()}
    recipe = Recipe(**read_words(words_of(Recipe), entries), **groups)
    go_together(recipe.parallelism)
    if recipe.checkpoint_segment > 1:
        segments_alone(recipe)
    if recipe.checkpoint_saves == "ops" and recipe.checkpoint_reentrant:
        raise InvalidInput(
            "torch's reentrant checkpointing saves inputs alone, not the results of operators",
            field="checkpoint_saves",
            hint="try checkpoint_reentrant=false, or checkpoint_saves=inputs",
        )
    said = left_open(ALL_WORDS, entries)
    if recipe.trainer == NO_TRAINER:  # nothing fills them; only how a base is packed may be said without that it is
        said &= PACKING_WORDS if recipe.quantization is not None else frozenset()
    return replace(recipe, left_open=said)
