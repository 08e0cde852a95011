"""Trace one rank: the real model, shared out, and one steady step of it on the fake GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import peft  # noqa: F401  # it brings bitsandbytes' operators
import torch

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, case, step
from loralens.lab.trace.quantize import hush_bitsandbytes
from loralens.lab.trace.ranks.loop import RankStep
from loralens.lab.trace.ranks.shared import Meshes, share_out
from loralens.lab.trace.ranks.spread import equal_rows
from loralens.lab.trace.ranks.stages import PipelineStep, cut_into_stages
from loralens.lab.trace.ranks.world import RankLedger, Sent, world


def trace_rank(
    config: Mapping[str, Any], method: str, recipe: Recipe | Mapping[str, Any], rank: int = 0
) -> tuple[case.TraceResult, Sent]:
    """One rank's peaks as `case.trace` has them, and what it sent and received in a step.

    Raises:
        InvalidInput: the config or the recipe is refused.
        UnsupportedArchitecture: transformers has no such family, or none with a loss.
    """
    hush_bitsandbytes()
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_mapping(recipe)
    p, ledger = recipe.parallelism, RankLedger()
    rank = p.pipeline_rank or rank
    with world(p.gpus, rank, ledger), equal_rows():
        meshes = None if p.pp > 1 else Meshes.of(p)

        def shared(model: torch.nn.Module) -> torch.nn.Module:
            return cut_into_stages(model, p, rank) if meshes is None else share_out(model, p, meshes)

        subject = build.read_config(config)
        stepping = PipelineStep if p.pp > 1 else RankStep
        _, counts = step.run(subject, method, recipe, ledger=ledger, shared=shared, stepping=stepping)
    return case.summarize(ledger, counts), ledger.sent
