"""Generation, one token at a time, for one prompt and a row for each adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.base import BaseModel
from loralens.lab.matmul.table import Selection, using

MAX_TOKENS: Final = 512
MAX_ROWS: Final = 64
MAX_PROMPT_CHARACTERS: Final = 4000


@dataclass(frozen=True, slots=True)
class Token:
    """One new token of one row; `text` is what it adds (nothing while a character is still incomplete)."""

    row: int
    adapter: str | None
    index: int
    text: str
    last: bool


def stream_tokens(
    base: BaseModel,
    prompt: str,
    adapters: Sequence[str | None],
    selection: Selection,
    *,
    tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[Token]:
    """Tokens of all rows in step; a row ends at end-of-text or after `tokens` tokens."""
    ids = _checked(base, prompt, len(adapters), tokens, temperature)
    tokens = min(tokens, base.positions - len(ids))
    generators = [torch.Generator().manual_seed(seed) for _ in adapters]
    block = torch.tensor([ids] * len(adapters), dtype=torch.int64)
    said: list[list[int]] = [[] for _ in adapters]
    shown = [0] * len(adapters)
    ended = [False] * len(adapters)
    cache: Any = None
    for index in range(tokens):
        # The selection is set for the forward pass alone: between two tokens the caller's own code runs.
        with using(selection), torch.inference_mode():
            logits, cache = base.step(block, cache)
        chosen = [_choose(logits[row], temperature, generators[row]) for row in range(len(adapters))]
        block = torch.tensor(chosen, dtype=torch.int64)[:, None]
        for row, token in enumerate(chosen):
            if ended[row]:
                continue
            at_end = token in base.end_ids
            if not at_end:
                said[row].append(token)
            ended[row] = at_end or index == tokens - 1
            text = base.decode(said[row])
            if not ended[row]:
                text = text.rstrip("\ufffd")  # the rest of this character comes with the next token
            yield Token(row, adapters[row], index, text[shown[row] :], ended[row])
            shown[row] = max(shown[row], len(text))
        if all(ended):
            return


def _checked(base: BaseModel, prompt: str, rows: int, tokens: int, temperature: float) -> list[int]:
    if not prompt.strip() or len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidInput(f"the prompt must have 1 to {MAX_PROMPT_CHARACTERS} characters", field="prompt")
    if not 1 <= rows <= MAX_ROWS:
        raise InvalidInput(f"a batch has 1 to {MAX_ROWS} rows, got {rows}", field="adapters")
    if not 1 <= tokens <= MAX_TOKENS:
        raise InvalidInput(f"tokens must be from 1 to {MAX_TOKENS}, got {tokens}", field="tokens")
    if not 0 <= temperature <= 10:
        raise InvalidInput(f"temperature must be from 0 to 10, got {temperature}", field="temperature")
    ids = base.encode(prompt)
    if not ids or len(ids) >= base.positions:
        raise InvalidInput(
            f"the prompt has {len(ids)} tokens, the model has {base.positions} positions", field="prompt"
        )
    return ids


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    below = logits.float() - logits.max()  # so that dividing by next to nothing gives 0 and -inf, and no inf - inf
    shares = torch.softmax(below / max(temperature, torch.finfo(torch.float32).tiny), dim=-1)
    return int(torch.multinomial(shares, 1, generator=generator))
