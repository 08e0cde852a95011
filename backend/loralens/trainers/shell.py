r"""The training command of a shell script, read word by word and never run.

Understood: line continuations, comments, quotes, assignments (`N=2`), `$N` and `${N}` of what was assigned above, and
whole-number arithmetic (`$(expr 64 / $N)`, `$((64 / N))`). Everything else stays as it is written.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.trainers.arrays import expanded, without_arrays
from loralens.trainers.files import SourceFile, TextPlace
from loralens.trainers.yamlfile import number

MAX_WORDS: Final = 4_000
MAX_LINE: Final = 4_000
_ASSIGNED: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w{0,80})=(\S{0,400})")
_OVERRIDE: Final = re.compile(r"\+{0,2}([A-Za-z_][\w.]{1,120})=(.{0,400})")
"""Hydra's way to set a key on the command line."""
_NAME: Final = re.compile(r"\$\{(\w{1,80})(?::-([^{}$]{0,200}))?\}|\$(\w{1,80})")
_SUM: Final = re.compile(r"\$\(\s*expr ([^()]{1,80})\)|\$\(\(([^()]{1,80})\)\)")
PROGRAMS: Final = (
    ("swift sft", r"\bswift\s+sft\b|swift/cli/sft\.py"),
    ("swift pt", r"\bswift\s+pt\b|swift/cli/pt\.py"),
    ("swift rlhf", r"\bswift\s+rlhf\b|swift/cli/rlhf\.py"),
    ("megatron", r"\bmegatron\s+(?:sft|pt|rlhf)\b"),
    *((f"trl {name}", rf"\btrl\s+{name}\b|\b{name}(?:_\w+)?\.py\b") for name in ("sft", "dpo", "kto", "grpo", "rloo")),
    ("trl other", r"\btrl\s+reward\b|\b(?:orpo|cpo|ppo|reward_modeling|gkd)(?:_\w+)?\.py\b"),
    ("llamafactory", r"\bllamafactory-cli\s+train\b"),
    ("verl", r"\bverl\.trainer\.main_ppo\b"),
    ("pretrain_gpt", r"\bpretrain_gpt\.py\b.*--"),
)


def read_shell(name: str, text: str) -> SourceFile:
    """The first training command's arguments as settings; `CUDA_VISIBLE_DEVICES` and the like as `env.NAME`.

    Raises:
        InvalidInput: no training command is in it, or a quote is not closed.
    """
    variables: dict[str, str] = {}
    commands, arrays, conditional = without_arrays(_commands(text))
    for written in commands:
        command = expanded(written, arrays, variables)
        program = next(
            (name_ for name_, pattern in PROGRAMS if re.search(pattern, " ".join(w for _, w, _ in command))), ""
        )
        if not program:
            for _, word, _ in command:
                match = _ASSIGNED.fullmatch(word)
                if match:
                    variables[match[1]] = _resolved(match[2].strip("'\""), variables)
            continue
        source = SourceFile(name, "shell", text, program=program)
        if conditional:
            source.notes.append("what the script adds to its arguments under a condition is left out")
        _settings(source, command, variables)
        return source
    raise InvalidInput(
        f"{name} has no training command that is known",
        field="files",
        hint="known are swift sft, trl sft and its scripts, llamafactory-cli train, verl.trainer.main_ppo, and pretrain_gpt.py",
    )


def _commands(text: str) -> list[list[tuple[int, str, TextPlace]]]:
    """Each command as words with their places; a comment inside a continued command is left out."""
    commands: list[list[tuple[int, str, TextPlace]]] = []
    words: list[tuple[int, str, TextPlace]] = []
    total = 0
    for number_, line in enumerate(text.split("\n")):
        if len(line) > MAX_LINE:
            raise InvalidInput(
                f"line {number_ + 1} of the script is longer than {MAX_LINE:,} characters", field="files"
            )
        stripped = line.strip()
        if stripped.startswith("#"):
            continue
        continued = stripped.endswith("\\")
        found = _words(line.rstrip().removesuffix("\\"), number_)
        total += len(found)
        if total > MAX_WORDS:
            raise InvalidInput(f"the script has more than {MAX_WORDS:,} words", field="files")
        words += found
        if not continued and words:
            commands.append(words)
            words = []
    if words:
        commands.append(words)
    return commands


_WORD: Final = re.compile(r"""(?:\$\((?:[^()]|\([^()]*\))*\)|'[^']*'|"[^"]*"|[^\s'"$]|\$)+""")


def _words(line: str, number_: int) -> list[tuple[int, str, TextPlace]]:
    found = []
    for match in _WORD.finditer(line):
        word = match[0]
        if word.startswith("#"):
            break
        found.append((number_, word, TextPlace(number_, match.start(), number_, match.end())))
    return found


def _settings(source: SourceFile, command: list[tuple[int, str, TextPlace]], variables: dict[str, str]) -> None:
    rest = list(command)
    while rest:
        line, word, place = rest.pop(0)
        assigned = _ASSIGNED.fullmatch(word)
        if assigned and not word.startswith("--"):
            value = _resolved(assigned[2].strip("'\""), variables)
            variables[assigned[1]] = value
            source.put(f"env.{assigned[1]}", number(value), line + 1)
        elif source.program == "verl" and (override := _OVERRIDE.fullmatch(word)):
            source.put(override[1], _listed(_value([_resolved(override[2], variables)])), line + 1)
        elif word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            values = [(value, place)] if equals else []
            script = (
                source.program == "pretrain_gpt"
            )  # the launcher's arguments are arrays too, and its name follows them
            while not equals and rest and not re.match(r"--[A-Za-z]", rest[0][1]):
                if script and rest[0][1].endswith(".py"):
                    break
                values.append((rest[0][1], rest[0][2]))
                rest.pop(0)
            source.indent = source.indent or " " * place.column
            source.first = source.first or place
            source.put(key.replace("-", "_"), _value([_resolved(v, variables) for v, _ in values]), line + 1,
                       values[0][1] if len(values) == 1 and not equals else None)  # fmt: skip
        elif word.endswith((".yaml", ".yml")):
            source.put("config", word, line + 1)


def _value(values: list[str]) -> Any:
    plain = [_plain(one) for one in values]
    if not plain:
        return True
    return plain[0] if len(plain) == 1 else plain


def _listed(value: Any) -> Any:
    """Hydra's list of plain words, `[q_proj,v_proj]`; anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"\[[\w.]+(?:, *[\w.]+)*\]", value):
        return [part.strip() for part in value[1:-1].split(",")]
    return value


def _plain(text: str) -> Any:
    if text[:1] in "'\"":
        with contextlib.suppress(ValueError, IndexError):
            text = shlex.split(text)[0]
    if text.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
            return found if isinstance(found, dict) else text
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    return None if lowered in ("none", "null") else number(text)


def _resolved(text: str, variables: dict[str, str]) -> str:
    def named(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        return variables.get(name, match[2] if match[2] is not None else match[0])

    text = _NAME.sub(named, text)
    if len(text) > MAX_LINE:
        raise InvalidInput(f"a variable of the script grows beyond {MAX_LINE:,} characters", field="files")
    return _SUM.sub(lambda match: _summed(match[1] or match[2], variables, match[0]), text)


def _summed(terms: str, variables: dict[str, str], written: str) -> str:
    """`64 / 8` as the shell computes it; what is not two whole numbers stays."""
    terms = re.sub(r"\b[A-Za-z_]\w*\b", lambda match: variables.get(match[0], match[0]), terms)
    match = re.fullmatch(r"\s*(\d{1,9})\s*(/|\*|\\\*|\+|-)\s*(\d{1,9})\s*", terms)
    if match is None:
        return written
    left, right = int(match[1]), int(match[3])
    if match[2] == "/":
        return str(left // right) if right else written
    return str({"*": left * right, "\\*": left * right, "+": left + right, "-": left - right}[match[2]])
