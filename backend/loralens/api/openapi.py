"""The parts of the OpenAPI schema that FastAPI cannot read off a signature: recipes as query strings and bodies."""

from __future__ import annotations

from loralens.core.answer.estimate import ALLOCATORS
from loralens.core.question.indices import Indices
from loralens.core.question.kinds import Maybe, Schema, Truth
from loralens.core.question.recipe import GROUPS, TRAINERS, WORDS, Recipe
from loralens.core.question.words import Word, words_of

_MODEL = "An alias (7B, 13B, 30B, 70B), a catalogue id (qwen2.5-7b) or a Hugging Face id."
_METHOD = "full, lora, qlora, …; several with commas. Without it: full, lora and qlora."
_GPU = "Check only this GPU in `fits`: a name of GET /api/gpus, or your own as custom:24GiB,1008GB/s,165TFLOP/s,name=…"
_ALLOCATOR = {
    "type": "string",
    "enum": list(ALLOCATORS),
    "default": ALLOCATORS[0],
    "description": "What reserved, device and needed stand on: a percentage of the peak, or PyTorch's allocator simulated, also with expandable segments.",
}
EXAMPLE_BODY: Schema = {
    "model": "7B",
    "methods": ["lora", "qlora"],
    "recipe": {
        "micro_batch_size": 1,
        "sequence_length": 2048,
        "lora": {"rank": 8, "target_modules": ["q_proj", "v_proj"]},
    },
}


def _in_text(word: Word) -> Schema:
    """The schema of a word in a query string, with its default as it would be typed."""
    value = ",".join(word.default) if isinstance(word.default, list) else word.default
    typed = str(value).lower() if value is False and word.kind.text == "text" else value
    return word.kind.text_schema() | ({} if typed is None or typed == "" else {"default": typed})


def _in_body(word: Word) -> Schema:
    """The schema of a word in a recipe; null leaves it open, as if it were not there, where it is no value of its own."""
    schema = word.kind.schema()
    schema = schema if word.kind.nullable else or_null(schema)
    kind = word.kind.of if isinstance(word.kind, Maybe) else word.kind
    if isinstance(kind, Truth) and not kind.strict:  # 0 and 1 are taken too
        schema = schema | {"type": [*schema["type"], "integer"], "minimum": 0, "maximum": 1}
    if isinstance(kind, Indices):  # one of them without a list too
        schema = schema | {"type": [*schema["type"], "integer"], "minimum": 0, "maximum": kind.largest}
    return {"description": word.help} | schema | {"default": word.default}


def components() -> Schema:
    """The named schemas of a recipe and its groups: every word that a body may hold, and what an answer shows."""
    groups = {name: _object(cls.__doc__, words_of(cls, name)) for name, cls in GROUPS.items()}
    whole = _object("One training set-up: everything about a step that is not the model.", words_of(Recipe))
    whole["properties"] |= {name: _group(name, words_of(cls, name)) for name, cls in GROUPS.items()}
    return {"Recipe": whole} | {name.capitalize(): schema for name, schema in groups.items()}


def _group(name: str, words: tuple[Word, ...]) -> Schema:
    """A group's object, or the one word that it is called by (`quantization: nf4`, `value: same`), or nothing."""
    alone = next((word for word in words if word.name == name or word.path == f"{name}.model"), None)
    choices = {"enum": list(alone.kind.choices)} if alone is not None and alone.kind.choices else {}
    short = [] if alone is None else [{"type": "string"} | choices]
    return {"anyOf": [{"$ref": _reference(name)}, *short, {"type": "null"}]}


def _object(text: str | None, words: tuple[Word, ...]) -> Schema:
    return {
        "type": "object",
        "description": text,
        "properties": {word.field: _in_body(word) for word in words},
        "additionalProperties": False,
    }


def _reference(name: str) -> str:
    return f"#/components/schemas/{name.capitalize()}"


def query_parameters() -> list[Schema]:
    """`model`, `method` and every flat recipe name as OpenAPI query parameters."""
    model = _in_query("model", _MODEL, {"type": "string", "minLength": 1}) | {"required": True, "example": "7B"}
    method = _in_query("method", _METHOD, {"type": "string"})
    gpu = _in_query("gpu", _GPU, {"type": "string"})
    return [model, method, gpu, *(_in_query(word.name, word.help, _in_text(word)) for word in WORDS)]


def allocator_parameter() -> Schema:
    """The word that `GET /api/memory` knows beside a recipe's."""
    return _in_query("allocator", str(_ALLOCATOR["description"]), _ALLOCATOR)


def with_allocator(body: Schema) -> Schema:
    """`request_body()` with the words that `POST /api/memory` knows beside them."""
    properties = body["content"]["application/json"]["schema"]["properties"]
    properties["allocator"] = _ALLOCATOR
    pair = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}
    properties["lengths"] = {
        "description": "Lengths of your samples, as pairs of tokens and samples: what batches of them take.",
        "type": "array",
        "items": pair,
        "minItems": 1,
    }
    properties["trainers"] = {
        "description": "true, or names: what the same words come to with each trainer's defaults.",
        "anyOf": [
            {"type": ["boolean", "null"]},
            {"type": "array", "items": {"type": "string", "enum": list(TRAINERS)}},
        ],
    }
    return body


def _in_query(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def or_null(schema: Schema) -> Schema:
    """The schema of something for which null says the same as leaving it out."""
    if isinstance(schema.get("type"), str):
        choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return schema | {"type": [schema["type"], "null"]} | choices
    if set(schema) == {"anyOf"}:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def request_body() -> Schema:
    """The body of `POST /api/memory` and its relatives."""
    properties: dict[str, Schema] = {
        "model": {"type": "string", "description": _MODEL},
        "config": {"type": "object", "description": "A config.json as published, instead of `model`."},
        "method": {"type": "string"},
        "methods": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 16},
        "gpu": {"type": "string", "description": _GPU},
        "recipe": {"$ref": _reference("recipe")},
    }
    body = {
        "type": "object",
        "properties": {name: or_null(schema) for name, schema in properties.items()},
        "additionalProperties": False,
    }
    return {"required": True, "content": {"application/json": {"schema": body, "example": EXAMPLE_BODY}}}
