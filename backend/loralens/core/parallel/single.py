"""One GPU by itself."""

from __future__ import annotations

from loralens.core.parallel.sharded import Sharded


class Single(Sharded):
    """Nothing is divided; weights may still wait on the host."""
