"""Hostile requests to every operation that an OpenAPI document names: what its schema allows, then spoiled here and there."""

from __future__ import annotations

import json
import math
import random
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from loralens.core import catalogue
from loralens.core.question.recipe import WORDS

CONFIGS: Final = [
    dict(catalogue.model(name).config) for name in ("7B", "qwen2.5-0.5b", "gpt2", "mixtral-8x7b", "t5-base")
]
_BOMB_LINES: Final = [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghij")]
BOMB: Final = "a: &a [x]\n" + "".join(_BOMB_LINES)
"""YAML of 300 bytes that means 9 ** 9 items."""
VALUES: Final[list[Any]] = [
    0, -1, 1, 2**31, 2**63, 10**99, 10**400, 0.5, 1e308, 5e-324, True, None, "", "8", "\ud800", "\x00", "../../etc/passwd",
    "(a+)+$", "é" * 3000, BOMB, [], {}, [[1, 2]] * 500, ["q_proj"] * 300, {"a": {"b": [1]}}, {"\ud800": 1},
]  # fmt: skip
NAMES: Final[dict[str, list[Any]]] = {
    "model": ["7B", "qwen2.5-0.5b", "gpt2", "qwen3-next-80b-a3b", "nobody/nothing"],
    "method": ["lora", "qlora", "full", "dora"],
    "gpu": ["t4", "h100", "custom:24GiB,1008GB/s,165TFLOP/s", "custom:" + "9" * 400 + "GiB"],
    "text": ["CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 23.69 GiB", "out of memory " * 9000],
    "files": [{"train.yaml": "base_model: NousResearch/Llama-2-7b-hf\nadapter: qlora\n"}, {"train.yaml": BOMB}, {"../x": "{" * 5000}],
    "lengths": [[[512, 100]], [[n, 1] for n in range(1, 9000)], [[10**400, 1]]],
}  # fmt: skip
"""Values that get further than a schema's own, or not as far, by the field's name."""
_MOST_DEEP: Final = 5


@dataclass(frozen=True, slots=True)
class Operation:
    """A method and a path, with what the document says of its parameters and body."""

    method: str
    path: str
    parameters: list[dict[str, Any]]
    bodies: dict[str, Any]  # media type -> schema

    @property
    def computes(self) -> bool:
        """Does it take a model's config?"""
        return "config" in self.bodies.get("application/json", {}).get("properties", {})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    operation: Operation
    path: str
    content: bytes
    headers: dict[str, str]


def operations(document: dict[str, Any]) -> list[Operation]:
    """All of a document, in its order."""
    return [
        Operation(method.upper(), path, found.get("parameters", []),
                  {kind: body.get("schema", {}) for kind, body in found.get("requestBody", {}).get("content", {}).items()})
        for path, methods in document["paths"].items()
        for method, found in methods.items()
    ]  # fmt: skip


class Requests:
    """Requests of one seed: every operation in turn, and between them what breaks readers of configs."""

    def __init__(self, seed: int, document: dict[str, Any]) -> None:
        self._random = random.Random(seed)
        self._schemas = document.get("components", {}).get("schemas", {})
        self.operations = operations(document)
        self._computing = [one for one in self.operations if one.computes]
        self._turn = 0
        self.known: list[str] = []
        """Ids and names that the server has answered with; the newest last."""

    def next(self) -> Asked:
        """Of two requests one is the next operation's."""
        self._turn += 1
        if self._turn % 2:
            return self._of(self.operations[self._turn // 2 % len(self.operations)])
        made = self._random.choice((self._config, self._recipe, self._garbage, self._large))
        return made(self._random.choice(self._computing))

    def _of(self, operation: Operation) -> Asked:
        path, query, headers = operation.path, [], {}
        for parameter in operation.parameters:
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                path = path.replace("{" + name + "}", _escaped(self._identifier()))
            elif self._random.random() < (0.8 if parameter.get("required") else 0.1):
                value = _escaped(self._text(self._field(name, parameter.get("schema", {}))))
                if place == "query":
                    query.append(f"{name}={value}")
                else:
                    headers[name] = value[:2000]
        path += "?" + "&".join(query) if query else ""
        if not operation.bodies:
            return Asked(operation, path, b"", headers)
        kind, schema = next(iter(operation.bodies.items()))
        if kind == "multipart/form-data":
            return Asked(operation, path, self._parts(schema), headers | {"content-type": f"{kind}; boundary=b"})
        body = self._spoiled(self._like(schema), self._random.choice((0, 0, 1, 2)))
        return Asked(operation, path, json.dumps(body).encode(), headers | {"content-type": kind})

    def _identifier(self) -> str:
        if self.known and self._random.random() < 0.7:
            return self._random.choice(self.known[-20:])
        return self._random.choice(
            ["x", "0", "../x", "a" * 300, "\x00", "%2e%2e", "é", "adapter_config.json", "gpt2", "t4"]
        )

    def _field(self, name: str, schema: Any) -> Any:
        if name in NAMES and self._random.random() < 0.8:
            return self._random.choice(NAMES[name])
        if name == "config" and self._random.random() < 0.6:
            return self._random.choice(CONFIGS)
        return self._random.choice(VALUES) if self._random.random() < 0.15 else self._like(schema)

    def _like(self, schema: Any, deep: int = 0) -> Any:
        """A value that a schema allows, roughly."""
        choose = self._random
        if not isinstance(schema, dict) or deep > _MOST_DEEP:
            return None
        if "$ref" in schema:
            return self._like(self._schemas[schema["$ref"].rpartition("/")[2]], deep)
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self._like(choose.choice(schema[several]), deep)
        if "enum" in schema:
            return choose.choice(schema["enum"])
        kind = schema.get("type")
        kind = choose.choice(kind) if isinstance(kind, list) else kind
        if kind == "object":
            required = schema.get("required", ())
            return {
                name: self._field(name, of) if deep < _MOST_DEEP else None
                for name, of in schema.get("properties", {}).items()
                if name in required or choose.random() < 0.2
            }
        if kind == "array":
            return [self._like(schema.get("items"), deep + 1) for _ in range(choose.choice((1, 2, 3, 50)))]
        low, high = int(schema.get("minimum", 1)), int(min(schema.get("maximum", 4096), 10**9))
        made = {"integer": choose.randint(min(low, high), high), "number": choose.uniform(low, high), "boolean": choose.random() < 0.5,
                "string": choose.choice(["lora", "8", "q_proj", "x" * choose.choice((1, 50, 5000))])}  # fmt: skip
        return made.get(str(kind))

    def _spoiled(self, value: Any, times: int) -> Any:
        for _ in range(times):
            if isinstance(value, dict) and value:
                name = self._random.choice(list(value))
                deeper = isinstance(value[name], (dict, list)) and self._random.random() < 0.6
                value = {**value, name: self._spoiled(value[name], 1) if deeper else self._random.choice(VALUES)}
            elif isinstance(value, list) and value:
                at = self._random.randrange(len(value))
                value = [*value[:at], self._random.choice(VALUES), *value[at + 1 :]]
            else:
                value = self._random.choice(VALUES)
        return value

    def _config(self, operation: Operation) -> Asked:
        config = dict(self._random.choice(CONFIGS))
        for _ in range(self._random.randint(1, 3)):
            config[self._random.choice([*config, "unknown", "rope_scaling"])] = self._random.choice(VALUES)
        return self._json(operation, {"config": config, "method": self._random.choice(("lora", "qlora", "full"))})

    def _recipe(self, operation: Operation) -> Asked:
        recipe = {self._random.choice(WORDS).name: self._random.choice(VALUES) for _ in range(3)}
        return self._json(operation, {"model": "qwen2.5-0.5b", "method": "lora", "recipe": recipe, "gpu": "a100"})

    def _garbage(self, operation: Operation) -> Asked:
        return Asked(operation, operation.path, self._random.randbytes(200), {"content-type": "application/json"})

    def _large(self, operation: Operation) -> Asked:
        config = {**CONFIGS[1], "x": [self._random.randint(0, 9)] * self._random.randint(1, 40_000)}
        return self._json(operation, {"config": config, "method": "lora"})

    def _json(self, operation: Operation, body: Any) -> Asked:
        needed = operation.bodies["application/json"].get("required", ())
        body |= {
            name: self._field(name, operation.bodies["application/json"]["properties"][name])
            for name in needed
            if name not in body
        }
        return Asked(operation, operation.path, json.dumps(body).encode(), {"content-type": "application/json"})

    def _parts(self, schema: Any) -> bytes:
        """A form: some of its fields, most adapters with both of their files."""
        names = list(schema.get("properties", {}))
        left_out = {name for name in names if "id" in name.split("_") or self._random.random() < 0.1}
        parts = [(name, self._part(name)) for name in names if name not in left_out]
        if left_out and self._random.random() < 0.2:
            parts.append((self._random.choice(sorted(left_out)), self._identifier().encode()))
        made = [
            b'--b\r\ncontent-disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n' % (name.encode(), part)
            for name, part in parts
        ]
        return b"".join(made) + b"--b--\r\n"

    def _part(self, name: str) -> bytes:
        if self._random.random() < 0.1:
            return self._random.randbytes(self._random.choice((0, 10, 5000)))
        if name == "base_config":
            return json.dumps(self._spoiled(self._random.choice(CONFIGS), self._random.choice((0, 2)))).encode()
        if name.startswith("config"):
            config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
            return json.dumps(self._spoiled(config, self._random.choice((0, 0, 0, 1)))).encode()
        tensors: dict[str, Any] = {f"a{n}": self._random.choice(VALUES) for n in range(20)}
        if self._random.random() < 0.7:  # an adapter in good order, whose numbers may not be
            tensors = {
                f"base_model.model.q_proj.lora_{name}.weight": {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 128]}
                for name, shape, at in (("A", [4, 8], 0), ("B", [8, 4], 128))
            }  # fmt: skip
        header, number = json.dumps(tensors).encode(), self._random.choice((0.0, 0.01, 1e-45, 3e38, math.inf))
        return len(header).to_bytes(8, "little") + header + struct.pack("<64f", *[number] * 64)

    def _text(self, value: Any) -> str:
        return value if isinstance(value, str) else ascii(value)[:5000]


def _escaped(text: str) -> str:
    return "".join(
        chr(byte) if byte < 128 and chr(byte).isalnum() else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogatepass")
    )
