"""What is left out of a multimodal model whose tower is not walked: named, never left unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core.architecture.config import MAX_VOCABULARY, Config
from loralens.core.architecture.nested import filled_fields, trained_part, unread_fields
from loralens.core.architecture.registry import head_is_tied, media_class, text_config
from loralens.core.architecture.tied_head import is_uncertain
from loralens.core.architecture.towers import TOWERS, USUAL, projector
from loralens.core.errors import LoraLensError
from loralens.core.question.traced import TRACED

TALKER: Final = "the thinker alone, which is what trains: talker and vocoder are left out, and their weights are held too where a trainer loads them"
BEFORE: Final = (4, 57)  # transformers 4's last minor version
_PARTS: Final = {"vision_config": "vision tower", "audio_config": "audio tower", "speech_config": "speech encoder"}


def left_out_parameters(entries: Mapping[str, Any], text_hidden: int | None = None) -> int | None:
    """Parameters of the vision tower and its projector; None where there is none or its kind is not known.

    Raises:
        InvalidInput: a field of the vision config is malformed or out of range.
    """
    outer = Config(entries)
    v = outer.nested("vision_config")
    if v is None:
        return None
    kind = v.text("model_type", "") or USUAL.get(outer.text("model_type", ""), outer.text("model_type", ""))
    tower = TOWERS.get(kind)
    if tower is None:
        return None
    if text_hidden is None:
        text_hidden = text_config(entries).integer("hidden_size")
    joined = projector(outer, v, text_hidden)
    return None if joined is None else tower(v) + joined


def left_out_note(entries: Mapping[str, Any]) -> list[str]:
    """One sentence on each thing that the config has and the count has not; empty for a plain language model."""
    notes: list[str] = []
    if TRACED in entries:  # the whole model ran
        return notes
    if trained_part(entries) is not entries:
        notes.append(TALKER)
    whole = media_class(entries) is not None
    for field, name in _PARTS.items():
        part = entries.get(field)
        if whole or not isinstance(part, Mapping):
            continue
        kind = part.get("model_type")
        shown = f"{name} ({kind:.60})" if isinstance(kind, str) and kind else name
        notes.append(f"the language model alone: the {shown} is left out{_size(entries, field)}")
    if filled := filled_fields(entries):
        notes.append(f"text_config leaves out {', '.join(filled)}: transformers' defaults")
    if unread := unread_fields(entries):
        notes.append(
            f"text fields outside of text_config are not read by transformers here: {', '.join(unread)} instead"
        )
    return notes + _of_the_head(entries)


def _of_the_head(entries: Mapping[str, Any]) -> list[str]:
    """Where the file does not say whether its head is tied, and versions of transformers understand that differently."""
    if not is_uncertain(Config(trained_part(entries))):
        return []
    try:
        now, before = head_is_tied(entries), head_is_tied(entries, BEFORE)
        text = text_config(entries)
        table = text.integer("vocab_size", high=MAX_VOCABULARY) * text.integer("hidden_size")
    except LoraLensError:
        return []
    if now == before:
        return []
    tied, own = "ties the head to the embedding", "gives the head weights of its own"
    return [
        f"tie_word_embeddings is missing beside text_config: transformers 5 {tied if now else own}, transformers 4 "
        f"{own if now else tied}; a checkpoint of the other kind has {table:,} parameters {'more' if now else 'fewer'}"
    ]


def left_out_bytes(entries: Mapping[str, Any], item_bytes: int) -> int | None:
    """Bytes of the weights that `left_out_note` names; None where one of these parts has no known size."""
    parts = [field for field in _PARTS if isinstance(entries.get(field), Mapping)]
    if not parts or media_class(entries) is not None:
        return 0
    try:
        parameters = left_out_parameters(entries) if parts == ["vision_config"] else None
    except LoraLensError:
        parameters = None
    return None if parameters is None else parameters * item_bytes


def _size(entries: Mapping[str, Any], field: str) -> str:
    try:
        parameters = left_out_parameters(entries) if field == "vision_config" else None
    except LoraLensError:
        parameters = None
    if parameters is None:
        return ", and its parameters are not counted"
    return f" with its projector, {parameters:,} parameters"
