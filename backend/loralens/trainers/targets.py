"""What a recipe can be exported to: a config or a script of each trainer, and the command that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from loralens.core.question.recipe import Recipe
from loralens.trainers.scripts import write_transformers_script, write_trl_script, write_unsloth_script
from loralens.trainers.write_verl import write_verl
from loralens.trainers.writing import WRITERS, render

HEAD: Final = (
    "# What decides the memory of a step. The data, the learning rate and the folder for results are yours to add.\n"
)
SCRIPT_HEAD: Final = "# What decides the memory of a step, as a script that runs one: made-up rows of full length stand in for your data.\n"


@dataclass(frozen=True, slots=True)
class Target:
    """`table`: as which the text is read again. `write`: model, method and recipe as text. `command`: of method, file and recipe."""

    trainer: str
    table: str
    file: Callable[[str, Recipe], str]
    write: Callable[[str, str, Recipe], str]
    command: Callable[[str, str, Recipe], str]


def _yaml(name: str) -> Callable[[str, str, Recipe], str]:
    return lambda model, method, recipe: HEAD + render(WRITERS[name](model, method, recipe))


def _script(write: Callable[[str, str, Recipe], str]) -> Callable[[str, str, Recipe], str]:
    return lambda model, method, recipe: SCRIPT_HEAD + write(model, method, recipe)


def _train(ending: str) -> Callable[[str, Recipe], str]:
    return lambda method, recipe: f"train.{ending}"


def _many(recipe: Recipe, words: str) -> str:
    """Words that only several GPUs need; `{}`: how many."""
    gpus = recipe.parallelism.gpus
    return words.format(gpus) if gpus > 1 else ""


def _torchtune_file(method: str, recipe: Recipe) -> str:
    kind = "full" if method == "full" else "lora"
    return f"{kind}_finetune_{'distributed' if recipe.parallelism.gpus > 1 else 'single_device'}.yaml"


def _torchtune_command(method: str, file: str, recipe: Recipe) -> str:
    return f"tune run {_many(recipe, '--nproc_per_node {} ')}{file.removesuffix('.yaml')} --config {file}"


def _litgpt_command(method: str, file: str, recipe: Recipe) -> str:
    return f"litgpt finetune_{'full' if method == 'full' else 'lora'} --config {file}"


def _trl_file(method: str, recipe: Recipe) -> str:
    kind = recipe.objective.type
    return "train.yaml" if kind == "sft" else f"{kind}.yaml"


def _trl_command(method: str, file: str, recipe: Recipe) -> str:
    start = _many(recipe, "torchrun --nproc-per-node {} -m trl.cli.main") or "trl"
    return f"{start} {recipe.objective.type} --config {file}"


def _python(method: str, file: str, recipe: Recipe) -> str:
    return f"{_many(recipe, 'torchrun --nproc-per-node {} ') or 'python '}{file}"


TARGETS: Final[Mapping[str, Target]] = {
    "axolotl": Target(
        "axolotl", "axolotl", _train("yaml"), _yaml("axolotl"),
        lambda method, file, recipe: f"axolotl train {file}" + _many(recipe, " --num-processes {}"),
    ),
    "llama-factory": Target(
        "llama-factory", "llama-factory", _train("yaml"), _yaml("llama-factory"),
        lambda method, file, recipe: _many(recipe, "FORCE_TORCHRUN=1 NPROC_PER_NODE={} ") + f"llamafactory-cli train {file}",
    ),
    "trl": Target("trl", "trl", _trl_file, _yaml("trl"), _trl_command),
    "trl-script": Target("trl", "trl-python", _train("py"), _script(write_trl_script), _python),
    "transformers": Target(
        "transformers", "transformers-python", _train("py"), _script(write_transformers_script), _python
    ),
    "ms-swift": Target(
        "ms-swift", "ms-swift", _train("yaml"), _yaml("ms-swift"),
        lambda method, file, recipe: _many(recipe, "NPROC_PER_NODE={} ") + f"swift sft {file}",
    ),
    "unsloth": Target("unsloth", "unsloth", _train("py"), _script(write_unsloth_script), _python),
    "torchtune": Target("torchtune", "torchtune", _torchtune_file, _yaml("torchtune"), _torchtune_command),
    "litgpt": Target("litgpt", "litgpt", _train("yaml"), _yaml("litgpt"), _litgpt_command),
    "verl": Target("verl", "verl", _train("sh"), write_verl, lambda method, file, recipe: f"bash {file}"),
}  # fmt: skip
