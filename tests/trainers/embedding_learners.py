"""The losses of sentence-transformers on fake tensors, with cached gradients and without. See `trl_objective_traces.py`.

The loss and the pooling are its own; the module that calls the model is transcribed (`base/modules/transformer.py`, `forward`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from trainers.trl_bare import prepared
from trainers.trl_learners import Objective


class Embedder(torch.nn.Module):
    """A model and the mean of its tokens, as `SentenceTransformer` runs them one after the other."""

    def __init__(self, model: Any, width: int) -> None:
        super().__init__()
        self.model = model
        self.pooling = import_module("sentence_transformers.sentence_transformer.modules.pooling").Pooling(width)

    def __getitem__(self, _: int) -> Any:
        return self.model

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        found = self.model(**features)
        features["token_embeddings"] = found["last_hidden_state"]
        pooled: dict[str, Any] = self.pooling(features)
        return pooled


class NoStates:
    """Random states, which lie on the host."""

    def __init__(self, *tensors: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *problem: object) -> None:
        pass


def joined_by(gpus: int) -> None:
    """This process is one of so many, with NCCL's way back through a gather (torch 2.13 distributed/nn/functional.py, `_AllGather`)."""
    if not dist.is_initialized():
        dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=gpus)
    vars(dist)["get_backend"] = lambda group=None: dist.Backend.NCCL


class Vectors(Objective):
    """`MultipleNegativesRankingLoss`, or the cached one where the recipe has a mini batch."""

    rows = 1
    head = "embedding"

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        embedder = prepared(Embedder(model, model.config.hidden_size), self.recipe.autocast)
        losses = import_module("sentence_transformers.sentence_transformer.losses")
        together = self.recipe.objective.mini_batch_size
        if together is None:
            self.learner = losses.MultipleNegativesRankingLoss(embedder)
        else:
            import_module("sentence_transformers.base.losses.gradcache").RandContext = NoStates
            self.learner = losses.CachedMultipleNegativesRankingLoss(embedder, mini_batch_size=together)
        if self.recipe.objective.gather_across_devices:
            joined_by(self.recipe.parallelism.gpus)
            self.learner.gather_across_devices = True

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        made = {}
        for column in ("anchor", "positive"):
            made[f"{column}_input_ids"] = torch.ones_like(ids)
            made[f"{column}_attention_mask"] = torch.ones_like(ids)
        return made

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        columns = [
            {name: batch[f"{column}_{name}"] for name in ("input_ids", "attention_mask")}
            for column in ("anchor", "positive")
        ]
        found: torch.Tensor = self.learner(columns, None)
        return found
