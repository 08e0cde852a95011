"""The words of the objective: what a step learns from, and what runs beside the model that learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.frozen import frozen, thawed
from loralens.core.question.kinds import Choice, Maybe, Number, Place, Schema, Text, Truth, Whole
from loralens.core.question.needs import Need
from loralens.core.question.words import read_group, word

SFT: Final = "sft"
OBJECTIVES: Final = (
    SFT,
    "dpo",
    "kto",
    "orpo",
    "cpo",
    "simpo",
    "reward",
    "distillation",
    "contrastive",
    "grpo",
    "rloo",
    "ppo",
)
GENERATED: Final = ("grpo", "rloo", "ppo")
"""Objectives that learn from completions which the model has written itself."""
GROUPED: Final = ("grpo", "rloo")
"""Of these, the ones that compare completions of one prompt."""
STILL: Final = ("dpo", "kto", "orpo", "cpo", "simpo", "reward")
"""TRL's trainers that switch every dropout off. Source: trl 1.16.0, `disable_dropout` of their configs."""
WHOLE_LOGITS: Final = ("orpo", "cpo", "simpo")
"""TRL's trainers that build whole logits. Source: trl 1.16.0 experimental/orpo, experimental/cpo."""
DIVIDED: Final = ("zero3", "fsdp", "fsdp2")
"""Strategies that divide the weights."""
ENGINES: Final = ("none", "transformers", "vllm", "sglang", "server")
ON_THIS_CARD: Final = ("vllm", "sglang")
"""Engines of their own that stand beside the learner."""
DTYPES: Final = ("float32", "bfloat16", "float16")


def _of(*types: str) -> Need:
    """A word that only some objectives have."""
    return Need(f"only these objectives have it: {', '.join(types)}", lambda _, r: r.objective.type in types)


TAUGHT: Final = _of("distillation")
REFERRED: Final = _of("dpo", "kto", *GENERATED)
PRECOMPUTED: Final = Need(
    "only a reference whose log-probabilities are precomputed has it, on weights that are not divided",
    lambda _, r: (
        r.objective.type in ("dpo", "kto")
        and r.objective.reference == "precomputed"
        and r.parallelism.strategy not in DIVIDED
    ),
)
ROLLED: Final = _of(*GENERATED)
SCORED: Final = _of("grpo", "ppo")
VECTORS: Final = _of("contrastive")
SEVERAL: Final = Need("one GPU has no others to gather from", lambda _, r: r.parallelism.data_parallel > 1)
VALUED: Final = _of("ppo")
JUDGED: Final = Need("functions judge where no reward_model is named", lambda _, r: r.reward_model.model is not None)
SGLANG: Final = Need("only a SGLang engine on this card has it", lambda _, r: r.rollout.engine == "sglang")
OWN_ENGINE: Final = Need("only an engine of its own on this card has it", lambda _, r: r.rollout.engine in ON_THIS_CARD)
VLLM: Final = Need("only a vLLM engine on this card has it", lambda _, r: r.rollout.engine == "vllm")


@dataclass(frozen=True)
class Subject(Text):
    """A model: a name that the catalogue reads, or its config.json."""

    def read(self, value: Any, at: Place) -> Any:
        """A config as a hashable copy."""
        return frozen(value) if isinstance(value, Mapping) else super().read(value, at)

    def shown(self, value: Any) -> Any:
        """The name, or the config."""
        return thawed(value) if isinstance(value, tuple) else value

    def from_text(self, text: str) -> Any:
        """A name, even one that looks like a number."""
        return text.strip()

    def schema(self) -> Schema:
        """A text or an object."""
        return {"anyOf": [super().schema(), {"type": "object"}]}


@dataclass(frozen=True, slots=True)
class Objective:
    """What a step learns from."""

    type: str = word(
        SFT,
        Choice(OBJECTIVES),
        "What the step learns from.",
        name="objective",
        common=True,
    )
    reference: str | None = word(
        None,
        Maybe(Choice(("adapter", "copy", "precomputed", "absent"))),
        "Where the reference's log-probabilities come from; none: the model without its adapter, a copy in full fine-tuning. absent: RLOO "
        "or PPO without a reference.",
        needs=(REFERRED,),
    )
    precompute_batch_size: int | None = word(
        None,
        Maybe(Whole(1, 65_536)),
        "Pairs, or KTO's rows, that the reference scores at a time before training; none: micro_batch_size.",
        needs=(PRECOMPUTED,),
    )
    divergence: str = word(
        "jsd",
        Choice(("forward_kl", "reverse_kl", "jsd")),
        "Which divergence from the teacher is learned.",
        needs=(TAUGHT,),
    )
    mini_batch_size: int | None = word(
        None,
        Maybe(Whole(1, 65_536)),
        "Rows of an embedding's batch that run at a time, their vectors' gradients cached (GradCache); none: all at once.",
        needs=(VECTORS,),
    )
    gather_across_devices: bool = word(
        False,
        Truth(),
        "Compare an embedding with those of all GPUs: each holds the vectors of all.",
        needs=(VECTORS, SEVERAL),
    )
    old_logprobs: bool | None = word(
        None,
        Maybe(Truth()),
        "Score the completions before learning from them; none: as the engine asks for it.",
        needs=(SCORED,),
    )

    @staticmethod
    def from_mapping(given: Any) -> Objective:
        """Read the `objective` object (or just its type); raises `InvalidInput`."""
        return Objective(**read_group(Objective, "objective", {"type": given} if isinstance(given, str) else given))


@dataclass(frozen=True, slots=True)
class Teacher:
    """The model that a student learns from; it stands beside it and has no gradients."""

    model: str | tuple[Any, ...] | None = word(
        None,
        Maybe(Subject(200)),
        "The teacher: a model's name, or by POST its config.json.",
        name="teacher",
        needs=(TAUGHT,),
    )
    weights_dtype: str = word(
        "bfloat16", Choice(DTYPES), "How the teacher's weights are held.", name="teacher_dtype", needs=(TAUGHT,)
    )
    quantization: str | None = word(
        None,
        Maybe(Choice(("nf4", "fp4", "int8"))),
        "How the teacher's weights are packed.",
        name="teacher_quantization",
        needs=(TAUGHT,),
    )

    @staticmethod
    def from_mapping(given: Any) -> Teacher:
        """Read the `teacher` object (or just its model); raises `InvalidInput`."""
        return Teacher(**read_group(Teacher, "teacher", {"model": given} if isinstance(given, str) else given))


@dataclass(frozen=True, slots=True)
class Value:
    """The value model (critic) that learns beside a policy."""

    model: str | tuple[Any, ...] | None = word(
        None,
        Maybe(Subject(200)),
        "The value model, or by POST its config.json; none: the model that learns, with a head of one number.",
        name="value_model",
        needs=(VALUED,),
    )
    weights_dtype: str | None = word(
        None,
        Maybe(Choice(DTYPES)),
        "How the value model's weights are held; none: as the policy's.",
        name="value_dtype",
        needs=(VALUED,),
    )
    trains: str = word(
        "full",
        Choice(("full", "lora")),
        "What of the value model trains: all of it, or an adapter like the policy's.",
        name="value_trains",
        needs=(VALUED,),
    )
    together: bool = word(
        False,
        Truth(),
        "One loss for policy and value model, as TRL's PPO had it; else each learns in passes of its own, as in verl.",
        name="value_together",
        needs=(VALUED,),
    )

    @staticmethod
    def from_mapping(given: Any) -> Value:
        """Read the `value` object (or just its model); raises `InvalidInput`."""
        return Value(**read_group(Value, "value", {"model": given} if isinstance(given, str) else given))


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A model that judges completions; it has no gradients."""

    model: str | tuple[Any, ...] | None = word(
        None,
        Maybe(Subject(200)),
        "The model that judges completions, or by POST its config.json; none: functions do.",
        name="reward_model",
        needs=(ROLLED,),
    )
    weights_dtype: str = word(
        "bfloat16",
        Choice(DTYPES),
        "How the reward model's weights are held.",
        name="reward_dtype",
        needs=(ROLLED, JUDGED),
    )
    quantization: str | None = word(
        None,
        Maybe(Choice(("nf4", "fp4", "int8"))),
        "How the reward model's weights are packed.",
        name="reward_quantization",
        needs=(ROLLED, JUDGED),
    )

    @staticmethod
    def from_mapping(given: Any) -> RewardModel:
        """Read the `reward_model` object (or just its model); raises `InvalidInput`."""
        return RewardModel(
            **read_group(RewardModel, "reward_model", {"model": given} if isinstance(given, str) else given)
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where completions are generated, and what the engine keeps."""

    engine: str = word(
        "none",
        Choice(ENGINES),
        "What generates: the model itself by transformers, a vLLM or SGLang engine on this card, or a server elsewhere; none: not asked.",
        name="rollout",
        needs=(ROLLED,),
    )
    rows: int | None = word(
        None,
        Maybe(Whole(1, 1_000_000)),
        "Completions generated at a time; none: those of one optimizer step.",
        name="rollout_rows",
        needs=(ROLLED,),
    )
    utilization: float = word(
        0.3,
        Number(0.01, 1),
        "Share of the whole card that vLLM takes.",
        name="gpu_memory_utilization",
        needs=(ROLLED, VLLM),
    )
    sleep_level: int = word(
        2,
        Whole(0, 2),
        "What vLLM gives back while the model learns: 0 nothing, 1 its cache and its weights to the host, 2 both for good.",
        needs=(ROLLED, VLLM),
    )

    mem_fraction_static: float = word(
        0.5,
        Number(0.01, 1),
        "Share, of what is free on the card when SGLang starts, that its weights and its cache take; verl's default.",
        needs=(ROLLED, SGLANG),
    )
    memory_release: str = word(
        "weights",
        Choice(("nothing", "kv_cache", "weights")),
        "What SGLang gives back while the model learns: nothing, its cache, or its weights too.",
        needs=(ROLLED, SGLANG),
    )

    tensor_parallel: int = word(
        1,
        Whole(1, 64),
        "Cards that one engine's weights and cache are cut among.",
        name="rollout_tp",
        needs=(ROLLED, OWN_ENGINE),
    )
    trainer_offload: str = word(
        "none",
        Choice(("none", "optimizer", "parameters")),
        "What of the trainer waits on the host while completions are generated: nothing, optimizer states, or weights too (verl).",
        needs=(ROLLED, OWN_ENGINE),
    )

    @staticmethod
    def from_mapping(given: Any) -> Rollout:
        """Read the `rollout` object (or just its engine); raises `InvalidInput`."""
        return Rollout(**read_group(Rollout, "rollout", {"engine": given} if isinstance(given, str) else given))
