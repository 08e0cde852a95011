"""How many rows each rank sends to each other one: a fake tensor has no numbers to read, so an equal share is read from it.

Source: transformers 5.23 distributed/expert_parallel.py, `AllToAllEP._dispatch_tokens` (`send_sizes, recv_sizes = … .tolist()`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def equal_rows() -> Iterator[None]:
    """While it lasts, every rank sends and is sent as many rows.

    The rows that are sent are asked for just before: the all-to-all of the counts is the last call that knows them.
    """
    from transformers.distributed.expert_parallel import AllToAllEP

    dispatch, tolist = AllToAllEP._dispatch_tokens, FakeTensor.tolist
    rows = 0

    def counted(self: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
        nonlocal rows
        rows = top_k_index.numel() // self.tp_mesh.size()
        return dispatch(self, hidden_states, top_k_index, top_k_weights)

    def shares(self: Any) -> Any:
        pair, ranks = self.shape if self.dim() == 2 else (0, 0)
        return [[rows // ranks] * ranks] * 2 if pair == 2 else tolist(self)

    real: tuple[Any, Any] = AllToAllEP, FakeTensor
    real[0]._dispatch_tokens, real[1].tolist = counted, shares
    try:
        yield
    finally:
        real[0]._dispatch_tokens, real[1].tolist = dispatch, tolist
