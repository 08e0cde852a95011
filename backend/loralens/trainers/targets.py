"""What a recipe can be exported to: a config or a script of each trainer, and the command that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from loralens.core.question.recipe import Recipe
from loralens.trainers.scripts import write_transformers_script, write_trl_script, write_unsloth_script
from loralens.trainers.writing import WRITERS, render

HEAD: Final = (
    "# What decides the memory of a step. The data, the learning rate and the folder for results are yours to add.\n"
)
SCRIPT_HEAD: Final = "# What decides the memory of a step, as a script that runs one: random tokens of full length stand in for your data.\n"


@dataclass(frozen=True, slots=True)
class Target:
    """`table`: as which the text is read again. `write`: model, method and recipe as text. `command`: file and GPUs."""

    trainer: str
    table: str
    file: Callable[[str, int], str]
    write: Callable[[str, str, Recipe], str]
    command: Callable[[str, str, int], str]


def _yaml(name: str) -> Callable[[str, str, Recipe], str]:
    return lambda model, method, recipe: HEAD + render(WRITERS[name](model, method, recipe))


def _script(write: Callable[[str, str, Recipe], str]) -> Callable[[str, str, Recipe], str]:
    return lambda model, method, recipe: SCRIPT_HEAD + write(model, method, recipe)


def _train(ending: str) -> Callable[[str, int], str]:
    return lambda method, gpus: f"train.{ending}"


def _torchrun(gpus: int, otherwise: str) -> str:
    return f"torchrun --nproc-per-node {gpus} " if gpus > 1 else otherwise


def _torchtune_file(method: str, gpus: int) -> str:
    kind = "full" if method == "full" else "lora"
    return f"{kind}_finetune_{'distributed' if gpus > 1 else 'single_device'}.yaml"


def _torchtune_command(method: str, file: str, gpus: int) -> str:
    many = f"--nproc_per_node {gpus} " if gpus > 1 else ""
    return f"tune run {many}{file.removesuffix('.yaml')} --config {file}"


def _litgpt_command(method: str, file: str, gpus: int) -> str:
    return f"litgpt finetune_{'full' if method == 'full' else 'lora'} --config {file}"


def _python(method: str, file: str, gpus: int) -> str:
    return f"{_torchrun(gpus, 'python ')}{file}"


TARGETS: Final[Mapping[str, Target]] = {
    "axolotl": Target(
        "axolotl", "axolotl", _train("yaml"), _yaml("axolotl"),
        lambda method, file, gpus: f"axolotl train {file}" + (f" --num-processes {gpus}" if gpus > 1 else ""),
    ),
    "llama-factory": Target(
        "llama-factory", "llama-factory", _train("yaml"), _yaml("llama-factory"),
        lambda method, file, gpus: (f"FORCE_TORCHRUN=1 NPROC_PER_NODE={gpus} " if gpus > 1 else "")
        + f"llamafactory-cli train {file}",
    ),
    "trl": Target(
        "trl", "trl", _train("yaml"), _yaml("trl"),
        lambda method, file, gpus: (f"{_torchrun(gpus, '')}-m trl.cli.main" if gpus > 1 else "trl") + f" sft --config {file}",
    ),
    "trl-script": Target("trl", "trl-python", _train("py"), _script(write_trl_script), _python),
    "transformers": Target(
        "transformers", "transformers-python", _train("py"), _script(write_transformers_script), _python
    ),
    "ms-swift": Target(
        "ms-swift", "ms-swift", _train("yaml"), _yaml("ms-swift"),
        lambda method, file, gpus: (f"NPROC_PER_NODE={gpus} " if gpus > 1 else "") + f"swift sft {file}",
    ),
    "unsloth": Target("unsloth", "unsloth", _train("py"), _script(write_unsloth_script), _python),
    "torchtune": Target("torchtune", "torchtune", _torchtune_file, _yaml("torchtune"), _torchtune_command),
    "litgpt": Target("litgpt", "litgpt", _train("yaml"), _yaml("litgpt"), _litgpt_command),
}  # fmt: skip
