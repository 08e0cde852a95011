"""Keywords of the calls that set a training up, from a script or a notebook: its syntax tree is read, nothing is run.

Names that were assigned a constant, a list of constants or a sum of those above are resolved.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any, Final

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.trainers.files import SourceFile, TextPlace
from loralens.trainers.yamlfile import read_json_text

MAX_NODES: Final = 100_000
MAX_CODE: Final = 262_144
CALLS: Final = {
    "SFTConfig": "args", "TrainingArguments": "args", "DPOConfig": "args", "GRPOConfig": "args", "RLOOConfig": "args", "KTOConfig": "args",
    "ORPOConfig": "args", "RewardConfig": "args", "UnslothTrainingArguments": "args", "Seq2SeqTrainingArguments": "args",
    "LoraConfig": "lora", "get_peft_model": "peft", "BitsAndBytesConfig": "bnb", "from_pretrained": "load",
    "SFTTrainer": "trainer", "DPOTrainer": "trainer", "GRPOTrainer": "trainer", "UnslothTrainer": "trainer",
    "get_chat_template": "", "Trainer": "trainer", "Seq2SeqTrainer": "trainer", "prepare_model_for_kbit_training": "prepare",
    "KTOTrainer": "trainer", "RLOOTrainer": "trainer", "RewardTrainer": "trainer", "ORPOTrainer": "trainer",
}  # fmt: skip
TRL_TRAINERS: Final = ("SFTTrainer", "DPOTrainer", "GRPOTrainer", "RLOOTrainer", "KTOTrainer", "RewardTrainer", "ORPOTrainer", "UnslothTrainer",
                       "SFTConfig", "DPOConfig", "GRPOConfig", "RLOOConfig", "KTOConfig", "RewardConfig", "ORPOConfig")  # fmt: skip
LENGTHS: Final = (
    "length",
    "max_length",
    "max_len",
    "max_seq_length",
    "max_seq_len",
    "sequence_length",
    "block_size",
    "cutoff_len",
)
"""Names under which a script keeps the tokens of a sample."""
LOADERS: Final = ("AutoModelForCausalLM", "FastLanguageModel", "FastModel", "FastVisionModel", "FastSentenceTransformer",
                  "AutoModelForSequenceClassification", "AutoModelForImageTextToText")  # fmt: skip


def read_python(name: str, text: str, *, notebook: bool = False) -> SourceFile:
    """Settings as `GROUP.keyword`, groups as `CALLS` has them; `call.NAME` for every call of `CALLS`.

    Raises:
        InvalidInput: it is no Python, or there is too much of it.
    """
    source = SourceFile(name, "notebook" if notebook else "python", text)
    code = _cells(name, text) if notebook else text
    if len(code) > MAX_CODE:
        raise InputTooLarge(f"{name} has {len(code):,} characters of code, allowed are {MAX_CODE:,}", field="files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise InvalidInput(
            f"{name} is not Python{f', line {line}' if line else ''}",
            field="files",
            hint="give the training script or notebook as it is",
        ) from None
    lines = code.split("\n")
    constants: dict[str, object] = {}
    for number, node in enumerate(_in_order(tree)):
        if number > MAX_NODES:
            raise InvalidInput(f"{name} holds more code than a training script", field="files")
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = constant(node.value, constants)
            if value is not _UNKNOWN:
                constants[node.targets[0].id] = value
                if node.targets[0].id.lower() in LENGTHS and type(value) is int and "own.length" not in source.settings:
                    source.put("own.length", value, node.lineno, None if notebook else _place(node.value, lines))
        elif isinstance(node, ast.Call):
            _call(source, node, constants, lines, notebook)
    return source


def _in_order(tree: ast.AST) -> list[ast.AST]:
    nodes = [node for node in ast.walk(tree) if hasattr(node, "lineno")]
    return sorted(nodes, key=lambda node: (node.lineno, node.col_offset, -_end(node)))  # type: ignore[attr-defined]


def _end(node: ast.AST) -> int:
    return (getattr(node, "end_lineno", 0) or 0) * 10_000 + (getattr(node, "end_col_offset", 0) or 0)


def _cells(name: str, text: str) -> str:
    found = read_json_text(name, text)
    cells = found.get("cells")
    if not isinstance(cells, list):
        raise InvalidInput(f"{name} is not a notebook: it has no cells", field="files")
    code = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            body = "".join(map(str, source)) if isinstance(source, list) else str(source)
            lines = ["" if line.lstrip().startswith(("!", "%")) else line for line in body.split("\n")]
            block = "\n".join(lines)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ast.parse(block)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # a cell of another language
            code.append(block)
    return "\n".join(code)


def _call(source: SourceFile, node: ast.Call, constants: dict[str, object], lines: list[str], notebook: bool) -> None:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = getattr(node.func, "value", None)
    owner_name = getattr(owner, "id", "")
    if called not in CALLS or (called == "from_pretrained" and owner_name not in LOADERS):
        return
    group = CALLS[called]
    if called == "get_peft_model" and owner_name:
        group = "lora"
    if not group or f"call.{called}" in source.settings:
        return  # the first is the training
    source.put(f"call.{called}", owner_name or called, node.lineno)
    if group == "load" and node.args:
        value = constant(node.args[0], constants)
        if value is not _UNKNOWN:
            source.put("load.model_name", value, node.lineno)
    for keyword in node.keywords:
        if keyword.arg is None:
            source.notes.append(f"**{ast.unparse(keyword.value)[:40]} in {called} is not resolved")
            continue
        value = constant(keyword.value, constants)
        if value is _UNKNOWN:
            value = f"={ast.unparse(keyword.value)[:80]}"
        key = f"{group}.{keyword.arg}"
        if key not in source.settings:
            source.put(key, value, keyword.value.lineno, None if notebook else _place(keyword.value, lines))


class _Unknown:
    """No constant."""


_UNKNOWN: Final = _Unknown()


def constant(node: ast.AST, constants: dict[str, object]) -> Any:
    """The value of an expression of constants, or `_UNKNOWN`; `torch.bfloat16` is `bfloat16`."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, (str, int, float, bool, type(None))) else _UNKNOWN
    if isinstance(node, ast.Name):
        return constants.get(node.id, _UNKNOWN)
    if isinstance(node, (ast.List, ast.Tuple)):
        found = [constant(one, constants) for one in node.elts[:512]]
        return _UNKNOWN if any(one is _UNKNOWN for one in found) else found
    if isinstance(node, ast.Dict):
        keys = [constant(one, constants) if one is not None else _UNKNOWN for one in node.keys[:64]]
        values = [constant(one, constants) for one in node.values[:64]]
        bad = any(one is _UNKNOWN for one in (*keys, *values)) or any(isinstance(key, (list, dict)) for key in keys)
        return _UNKNOWN if bad else dict(zip(keys, values, strict=True))
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "torch":
        return node.attr
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = constant(node.operand, constants)
        return -value if isinstance(value, (int, float)) else _UNKNOWN
    return _UNKNOWN


def _place(node: ast.expr, lines: list[str]) -> TextPlace | None:
    """Columns of `ast` count bytes."""
    if node.end_lineno is None or node.end_col_offset is None:
        return None
    start = len(lines[node.lineno - 1].encode()[: node.col_offset].decode("utf-8", "ignore"))
    end = len(lines[node.end_lineno - 1].encode()[: node.end_col_offset].decode("utf-8", "ignore"))
    return TextPlace(node.lineno - 1, start, node.end_lineno - 1, end)
