"""Experts whose rows depend on routing, traced with an equal share of the tokens for each: a fake tensor has no numbers to read.

Source: transformers 5.23, models/dbrx/modeling_dbrx.py, `DbrxExperts.forward`, whose other lines stand here as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _dbrx(self: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
    batch_size = hidden_states.shape[0]
    hidden_states = hidden_states.reshape(-1, self.hidden_size)
    next_states = torch.zeros_like(hidden_states, dtype=hidden_states.dtype, device=hidden_states.device)
    with torch.no_grad():
        shape = (*top_k_index.shape, self.num_experts + 1)
        expert_mask = torch.empty(shape, dtype=torch.int64, device=hidden_states.device).permute(2, 1, 0)
    share = max(1, top_k_index.numel() // self.num_experts)
    split = (-1, self.ffn_hidden_size, self.hidden_size)
    for number in range(self.num_experts):
        with torch.no_grad():
            idx, token_idx = torch.empty(share, 2, dtype=torch.int64, device=hidden_states.device).unbind(1)
        v1 = self.mlp.v1.view(split)[number]
        w1 = self.mlp.w1.view(split)[number]
        w2 = self.mlp.w2.view(split)[number]
        states = self.mlp(hidden_states[token_idx], w1, v1, w2)
        states = states.view(-1, self.hidden_size) * top_k_weights[token_idx, idx, None]
        next_states.index_add_(0, token_idx, states)
    del expert_mask
    return next_states.view(batch_size, -1, self.hidden_size)


@contextmanager
def equal_shares(config: Any) -> Iterator[None]:
    """While it lasts, every expert of a family that reads its routing gets as many rows."""
    if config.model_type != "dbrx":
        yield
        return
    from transformers.models.dbrx.modeling_dbrx import DbrxExperts

    original = DbrxExperts.forward
    DbrxExperts.forward = _dbrx
    try:
        yield
    finally:
        DbrxExperts.forward = original
