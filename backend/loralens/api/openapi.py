"""The parts of the OpenAPI schema that FastAPI cannot read off a signature: recipes as query strings and bodies."""

from __future__ import annotations

from typing import Any

from loralens.core.answer.estimate import ALLOCATORS
from loralens.core.question import recipe
from loralens.core.question.recipe_words import WORDS, Word, default

TYPES = {"integer": "integer", "number": "number", "boolean": "boolean", "text": "string"}
_MODEL = "An alias (7B, 13B, 30B, 70B), a catalogue id (qwen2.5-7b) or a Hugging Face id."
_METHOD = "full, lora, qlora, …; several with commas. Without it: full, lora and qlora."
_GPU = "Judge only this GPU in `fits`: a name of GET /api/gpus, or your own as custom:24GiB,1008GB/s,165TFLOP/s,name=…"
_ALLOCATOR = {
    "type": "string",
    "enum": list(ALLOCATORS),
    "default": ALLOCATORS[0],
    "description": "What reserved, device and needed stand on: a percentage of the peak, or PyTorch's allocator simulated.",
}
EXAMPLE_BODY: dict[str, Any] = {
    "model": "7B",
    "methods": ["lora", "qlora"],
    "recipe": {
        "micro_batch_size": 1,
        "sequence_length": 2048,
        "lora": {"rank": 8, "target_modules": ["q_proj", "v_proj"]},
    },
}


def _schema(word: Word) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": TYPES[word.kind]}
    if word.choices:
        schema["enum"] = list(word.choices)
    value = default(word.name)
    if isinstance(value, list):
        value = ",".join(value)
    if value is not None and not (word.choices and value not in word.choices):
        schema["default"] = value
    return schema


def query_parameters() -> list[dict[str, Any]]:
    """`model`, `method` and every flat recipe name as OpenAPI query parameters."""
    model = _in_query("model", _MODEL, {"type": "string", "minLength": 1}) | {"required": True, "example": "7B"}
    method = _in_query("method", _METHOD, {"type": "string"})
    gpu = _in_query("gpu", _GPU, {"type": "string"})
    return [model, method, gpu, *(_in_query(word.name, word.help, _schema(word)) for word in WORDS)]


def allocator_parameter() -> dict[str, Any]:
    """The word that `GET /api/memory` knows beside a recipe's."""
    return _in_query("allocator", str(_ALLOCATOR["description"]), _ALLOCATOR)


def with_allocator(body: dict[str, Any]) -> dict[str, Any]:
    """`request_body()` with the word that `POST /api/memory` knows beside them."""
    body["content"]["application/json"]["schema"]["properties"]["allocator"] = _ALLOCATOR
    return body


def _in_query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def request_body() -> dict[str, Any]:
    """The body of `POST /api/memory` and its relatives."""
    properties = {word.name: _schema(word) for word in WORDS}
    groups = {
        "lora": recipe.Recipe().to_dict()["lora"],
        "quantization": default_quantization(),
        "parallelism": recipe.Recipe().to_dict()["parallelism"],
    }
    inside = {name for values in groups.values() for name in values} | set(groups)
    nested_schema: dict[str, Any] = {name: schema for name, schema in properties.items() if name not in inside}
    for group, values in groups.items():
        fields = {name: _of_value(value) | properties.get(name, {}) for name, value in values.items() if name != "type"}
        if group == "lora":
            fields |= {
                "target_modules": {
                    "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}, {"type": "null"}],
                    "default": None,
                },
                "modules_to_save": {"type": "array", "items": {"type": "string"}},
            }
        if group == "quantization":
            fields["type"] = {"type": "string", "enum": list(recipe.QUANTIZATIONS)}
        nested_schema[group] = {"type": ["object", "null"], "properties": fields, "additionalProperties": False}
    nested_schema["stack"] = {"type": "object", "additionalProperties": {"type": "string"}}
    for name in ("autocast", "max_grad_norm", "trainable_layers"):
        schema = dict(nested_schema[name])
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [value for value in schema["enum"] if value != "none"] + [None]
        nested_schema[name] = schema
    nested_schema["fused_kernels"] = {"enum": [False, True, "+lora"], "default": False}
    body = {
        "type": "object",
        "properties": {
            "model": {"type": "string", "description": _MODEL},
            "config": {"type": "object", "description": "A config.json as published, instead of `model`."},
            "method": {"type": "string"},
            "methods": {"type": "array", "items": {"type": "string"}},
            "gpu": {"type": "string", "description": _GPU},
            "recipe": {"type": "object", "properties": nested_schema, "additionalProperties": False},
        },
        "additionalProperties": False,
    }
    return {"required": True, "content": {"application/json": {"schema": body, "example": EXAMPLE_BODY}}}


def default_quantization() -> dict[str, Any]:
    """Every field of the `quantization` object with its default."""
    names = ("double_quant", "compute_dtype", "prepare_kbit", "group_size")
    return {"type": "nf4", **{name: default(name) for name in names}}


def _of_value(value: Any) -> dict[str, Any]:
    if value is None:
        return {"default": None}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return {"type": kinds[type(value)], "default": value}
