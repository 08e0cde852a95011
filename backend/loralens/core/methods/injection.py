"""LoRA put into a model: for every module one decision by its name, then the change that was decided on.

Layers for which all decisions are equal stay one object (`Stack.specialise`), so a decision is a value that compares.
"""

from __future__ import annotations

from collections.abc import Hashable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from loralens.core.architecture.heads import QUESTION_ANSWERING, TOKEN_CLASSIFICATION
from loralens.core.architecture.module import Embedding, FusedLinear, Linear, Module
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.methods import experts
from loralens.core.methods.adapters import (
    PEFT_DEFAULTS,
    DoraAdapter,
    LoraAdapter,
    ends,
    rank_of,
    refuse_wrapped,
    selector,
    settled,
)
from loralens.core.methods.base import for_each, parameters
from loralens.core.methods.embeddings import EmbeddingAdapter, walked_table
from loralens.core.methods.merged import MergedAdapter
from loralens.core.methods.tokens import train_rows
from loralens.core.question import patterns
from loralens.core.question.media import NO_TOWER
from loralens.core.question.presets import lists_linears

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Lora, Recipe
    from loralens.core.tape.size import Dim


class ModuleChange(Hashable, Protocol):
    """What is done to a module."""

    def make(self, name: str, module: Any, lora: Lora) -> None:
        """Do it to the module of that full name."""


@dataclass(frozen=True, slots=True)
class Adapt:
    """A linear layer gets an adapter."""

    rank: Dim

    def make(self, name: str, module: Any, lora: Lora) -> None:
        """LoRA, or DoRA when the recipe says so."""
        module.adapter = (DoraAdapter if lora.use_dora else LoraAdapter).on(module, name, lora)


@dataclass(frozen=True, slots=True)
class AdaptEmbedding:
    """A table of vectors gets an adapter."""

    rank: Dim

    def make(self, name: str, module: Any, lora: Lora) -> None:
        """As PEFT has it, which keeps its factors under names of their own."""
        module.adapter = EmbeddingAdapter.on(module, name, lora)


@dataclass(frozen=True, slots=True)
class AdaptParts:
    """A fused projection gets one adapter for some of its parts."""

    parts: tuple[str, ...]

    def make(self, name: str, module: Any, lora: Lora) -> None:
        """As LitGPT has it."""
        module.adapter = MergedAdapter.for_parts(module, self.parts, lora)


@dataclass(frozen=True, slots=True)
class AdaptExperts:
    """Stacked weights of experts get factors of their own."""

    weights: tuple[tuple[str, int], ...]

    def make(self, name: str, module: Any, lora: Lora) -> None:
        """As PEFT's `ParamWrapper` has it."""
        module.adapter = experts.ExpertAdapter.on(module, name, self.weights, lora)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy trains in the module's place (PEFT's `ModulesToSaveWrapper`)."""

    def make(self, name: str, module: Any, lora: Lora) -> None:
        """Beside the frozen original."""
        module.saved = trainable_copy(module)


class ModuleSelection:
    """Decides for every module, and remembers what was met on the way."""

    def __init__(self, root: Root, recipe: Recipe) -> None:
        lora = recipe.lora
        self._root, self._frozen = root, recipe.freeze_tower
        self._table = walked_table(root, recipe)
        self._lister = lists_linears(recipe) if settled(root, lora).target_modules == "all-linear" else ""
        self.lora, self._stacked = experts.translate(root, lora, listed=bool(self._lister))
        self._wanted = selector(root, self.lora, listed=bool(self._lister))
        self._adapted = False
        self._spared = False  # freeze_tower keeps an adapter from a module
        self._linears: dict[str, None] = {}  # names of linear layers, for the hint
        self._copied: set[str] = set()
        self._unmatched = self._named()
        self._unmatched_parameters = set(self.lora.target_parameters)
        patterns.affordable(
            [key for key, _ in self.lora.rank_pattern],
            [name for name, _ in root.walk()] if self.lora.rank_pattern else [],
            "lora.rank_pattern",
        )

    def _named(self) -> set[str]:
        targets = self.lora.target_modules
        return set(targets) if isinstance(targets, tuple) else set()

    def _met(self, name: str) -> None:
        """A module of that name is adapted."""
        self._adapted = True
        self._unmatched -= {key for key in self._unmatched if ends(name, (key,))}
        self._unmatched_parameters -= {key for key in self._unmatched_parameters if ends(name, (key,))}

    @property
    def everywhere(self) -> bool:
        """Is what happens to a module the same in every layer? Patterns and keys with an index in them may tell layers apart."""
        targets = settled(self._root, self.lora).target_modules or ()
        listed = () if targets == "all-linear" else targets
        if (
            isinstance(listed, str)
            or self.lora.rank_pattern
            or self.lora.layers_to_transform
            or self.lora.exclude_modules
        ):
            return False
        keys = (*listed, *self.lora.modules_to_save, *self.lora.target_parameters)
        return not any(part.isdigit() for key in keys for part in key.split("."))

    def change(self, name: str, module: Module) -> ModuleChange | None:
        """What the recipe does to this module; None: nothing."""
        if isinstance(module, FusedLinear):
            return self._parts(name, module)
        return self._adapter(name, module) or self._copy(name)

    def _parts(self, name: str, module: FusedLinear) -> ModuleChange | None:
        around, own = name.rpartition(".")[::2]
        self._linears.update(dict.fromkeys([own, *module.parts]))
        parts = tuple(part for part in module.parts if self._wanted(f"{around}.{part}", module))
        for part in parts:
            self._met(f"{around}.{part}")
        return AdaptParts(parts) if parts else None

    def _adapter(self, name: str, module: Module) -> ModuleChange | None:
        if self._root.media is not None and self._root.media.keeps_out(name, self._frozen):
            self._spared = self._spared or self._wanted(name, module)
            return None
        if isinstance(module, Linear):
            self._linears[name.rsplit(".", 1)[-1]] = None
        if self._wanted(name, module):
            _allowed(self._root, name)
            self._met(name)
            return self._embedding(name, module) if isinstance(module, Embedding) else Adapt(rank_of(name, self.lora))
        stacked = self._stacked.of(name, module)
        for own, _ in stacked:
            self._met(f"{name}.{own}")
        return AdaptExperts(stacked) if stacked else None

    def _embedding(self, name: str, table: Embedding) -> ModuleChange:
        if self.lora.use_dora:
            raise UnsupportedArchitecture(
                f"DoRA on the embedding {name} is not modelled",
                field="lora.target_modules",
                hint="name linear layers, or use LoRA",
            )
        if self.lora.lora_bias:
            raise InvalidInput(
                "PEFT refuses lora_bias on an embedding",
                field="lora.lora_bias",
                hint="switch it off, or name linear layers alone",
            )
        if table is not self._table:
            own = name.rsplit(".", 1)[-1]
            self._root.only_counted = (
                f"LoRA on the embedding {own} is only counted here: its step is modelled for a decoder's tokens, on GPUs that have "
                "the model whole"
            )
        return AdaptEmbedding(rank_of(name, self.lora))

    def _copy(self, name: str) -> ModuleChange | None:
        for key in self.lora.modules_to_save:
            if name.endswith(
                key
            ):  # not only behind a dot: `classifier` is `pre_classifier` too (PEFT utils/other.py, `_set_trainable`)
                self._copied.add(key)
                return Copy()
        return None

    def ignored(self) -> list[str]:
        """What PEFT passes over: names that match nothing while another one does, and words that keep no adapter away."""
        found = []
        if self._unmatched:
            names = ", ".join(sorted(self._unmatched))
            way = "; target_parameters adapts parameters" if self._are_parameters(self._unmatched) else ""
            found.append(
                f"without effect: target_modules {names} (this model has no such layer; PEFT ignores the name{way})"
            )
        if self._unmatched_parameters:
            names = ", ".join(sorted(self._unmatched_parameters))
            found.append(
                f"without effect: target_parameters {names} (this model has no such parameter; PEFT ignores the name)"
            )
        if self.lora.exclude_modules is not None and not self._excludes():
            found.append("without effect: exclude_modules (no target is called so; PEFT warns)")
        if self._root.media is not None and self._frozen != NO_TOWER and not self._spared:
            found.append(f"without effect: freeze_tower {self._frozen} (no target lies there)")
        return found

    def listed(self) -> list[str]:
        """What becomes of stacked experts where the trainer lists the linear layers for `all-linear`."""
        mapping = self._root.expert_targets
        if not self._lister or not mapping or not experts.has_experts(self._root):
            return []
        said = f"target_modules all-linear: {self._lister} hands PEFT a list of the linear layers' names"
        if not self._stacked.turned:
            return [f"{said}; stacked experts are no layers and get no adapter, unlike with PEFT's own all-linear"]
        names = ", ".join(sorted(old for old, new in mapping.items() if new in self._stacked.turned))
        return [f"{said}; PEFT takes {names} among them for the stacked experts, which get adapters, the router none"]

    def _are_parameters(self, names: set[str]) -> bool:
        keys = tuple(names)
        modules = ((name, module) for name, module, _ in self._root.distinct())
        return any(ends(f"{name}.{own}", keys) for name, module in modules for own, _ in module.own_parameters())

    def _excludes(self) -> bool:
        """Does `exclude_modules` keep an adapter from a target?"""
        targeted = selector(self._root, replace(self.lora, exclude_modules=None))
        return any(targeted(name, module) and not self._wanted(name, module) for name, module in self._root.walk())

    def require(self) -> None:
        """Raises `InvalidInput` when a name matched nothing."""
        missing = set(self.lora.modules_to_save) - self._copied
        if self._adapted and not missing:
            return
        if not missing and self.lora.target_parameters and not self.lora.target_modules:
            raise InvalidInput(
                f"no parameter of this model matches target_parameters {', '.join(self.lora.target_parameters)}",
                field="lora.target_parameters",
                hint="name them as transformers does, mlp.experts.gate_up_proj; experts that are layers belong into target_modules",
            )
        raise InvalidInput(
            f"no module of this model is called {', '.join(sorted(missing))}"
            if missing
            else f"no linear layer of this model matches target_modules {self.lora.target_modules!r}",
            field="lora.modules_to_save" if missing else "lora.target_modules",
            hint=f"this model has: {', '.join(self._linears)}; or all-linear",
        )


def inject(root: Root, recipe: Recipe) -> list[str]:
    """Put an adapter on every target and a trainable copy beside every module to save; returns the assumptions made.

    Raises:
        InvalidInput: no module matches `target_modules` or one of `modules_to_save`.
        UnsupportedArchitecture: adapters on this family are not modelled.
    """
    if root.no_adapters:
        raise UnsupportedArchitecture(root.no_adapters, field="config.model_type", hint="ask for method=full")
    targets = settled(root, recipe.lora).target_modules
    if (
        targets == "all-linear"
        and root.task is not None
        and root.task.kind in (TOKEN_CLASSIFICATION, QUESTION_ANSWERING)
    ):
        raise InvalidInput(
            f"PEFT refuses all-linear with a head for {root.task.kind.replace('_', ' ')}: it would adapt the head too, which it "
            "trains in full",
            field="lora.target_modules",
            hint=f"name layers: {', '.join(_names_of_linears(root))}",
        )
    if targets == "all-linear" and root.refuses_all_linear:
        raise InvalidInput(
            root.refuses_all_linear,
            field="lora.target_modules",
            hint=f"name layers: {', '.join(_names_of_linears(root))}",
        )
    refuse_wrapped(root, recipe.lora)
    selection = ModuleSelection(root, recipe)

    def apply(name: str, module: Module, change: ModuleChange | None) -> None:
        if change is not None:
            change.make(name, module, selection.lora)

    for_each(root, selection.change, apply, everywhere=selection.everywhere)
    selection.require()
    train_rows(root, recipe)
    if recipe.lora.freeze_a:
        _freeze_a(root)
    return [*_assumptions(root, recipe), *selection.listed(), *selection.ignored()]


def _freeze_a(root: Root) -> None:
    """Factor A of every layer; an embedding's goes on training.

    Source: PEFT 0.21 optimizers/lorafa.py `create_lorafa_optimizer`, whose condition on a parameter's name this is.
    """
    for name, parameter in parameters(root):
        if "lora_A" in name:
            parameter.trainable = False


def _names_of_linears(root: Root) -> list[str]:
    linears = (
        (name, module) for name, module in root.walk() if isinstance(module, Linear) and not root.is_head(module)
    )
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name, _ in linears))[:8]


def _assumptions(root: Root, recipe: Recipe) -> list[str]:
    found = []
    if recipe.lora.target_modules == root.default_targets != ("q_proj", "v_proj"):
        has = "PEFT's default" if root.model_type in PEFT_DEFAULTS else "usual; PEFT has no default"
        usual = root.default_targets
        found.append(
            f"target modules {usual if isinstance(usual, str) else ', '.join(usual)}: {has} for {root.model_type}"
        )
    if root.framework and recipe.lora.use_dora:
        found.append(f"DoRA as PEFT computes it, not {root.framework}")
    return found


def _allowed(root: Root, name: str) -> None:
    """Source: PEFT 0.21 tuners/tuners_utils.py, `_check_lora_target_modules_mamba`."""
    own = name.rsplit(".", 1)[-1]
    if own in root.refused_targets:
        raise InvalidInput(
            root.refusal.format(own),
            field="lora.target_modules",
            hint=f"name other layers, without {own}; all-linear would take it in too",
        )


def trainable_copy(module: Module) -> Module:
    """A copy of a module that trains beside the frozen original (PEFT's `ModulesToSaveWrapper`)."""
    copy = deepcopy(module)
    for _, part in copy.walk():
        for _, parameter in part.own_parameters():
            parameter.role, parameter.trainable = "adapter", True
    return copy
