"""The step of one rank that has a part of the model: of its width, its length, its layers or its experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loralens.core import methods
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.registry import label_parameters
from loralens.core.objectives.assembled import build_root
from loralens.core.partition.context import lengthen
from loralens.core.partition.rank import cut
from loralens.core.step.rank import of_rank
from loralens.core.step.step import Step, walk_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.work import WorkLog


def walk_rank(config: Mapping[str, Any], method: str, recipe: Recipe, work: WorkLog | None = None) -> Step:
    """Build the model, leave the rank's part, and walk it. `work`: counts what the operators do, in the whole length's words.

    Raises:
        InvalidInput, UnsupportedArchitecture: the model does not divide so.
    """
    root = build_root(config, recipe)
    own = cut(root, recipe)
    prepared = methods.prepare(method, root, own)
    label_parameters(root)
    step = walk_step(root, prepared, own, work=work)
    if work is not None and recipe.parallelism.cp > 1:
        lengthen(work, recipe.parallelism.cp)
    return of_rank(step, recipe, root.s.hidden if isinstance(root, CausalDecoder) else 0)
