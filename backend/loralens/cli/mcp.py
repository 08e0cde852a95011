"""`loralens mcp`: estimate, fit, check and explain for programs that speak the Model Context Protocol, over stdio alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import loralens
from loralens.extras import needing

if TYPE_CHECKING:
    from mcp.server import MCPServer

EXAMPLES = (("loralens mcp", "what a client starts: it speaks JSON-RPC on stdin and stdout"),)
Object = dict[str, object]


def command() -> None:
    """Serve estimate, fit, check and explain to a client of the Model Context Protocol, over stdin and stdout.

    Each takes the body of the endpoint of the same name and answers with its JSON; nothing is downloaded, and nothing in a
    file is run.
    """
    server().run("stdio")


def server() -> MCPServer:
    """The official SDK's server with the tools.

    Raises:
        DependencyMissing: the package mcp is not installed.
    """
    from loralens.core.errors import LoraLensError
    from loralens.endpoints.problem import from_error, problem_bytes

    with needing("mcp", "loralens mcp"):
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError

    made = MCPServer("loralens", version=loralens.__version__, instructions=INSTRUCTIONS)
    call = made.call_tool

    async def strictly(name: str, arguments: Object, context: Any = None) -> Any:
        """Run a tool, unless it is given what it does not take: the SDK would leave that out."""
        try:
            refuse_unknown(name, arguments)
        except LoraLensError as error:
            raise ToolError(problem_bytes(from_error(error)).decode()) from None
        return await call(name, arguments, context)

    made.call_tool = strictly
    for name, tool in TOOLS.items():
        made.add_tool(_told(tool, ToolError), name=name, description=tool.__doc__)
    return made


def refuse_unknown(tool: str, arguments: Object) -> None:
    """Raise `InvalidInput` for an argument that a tool does not take."""
    from loralens.core.errors import InvalidInput

    taken = list(inspect.signature(TOOLS[tool]).parameters) if tool in TOOLS else list(arguments)
    for name in arguments:
        if name not in taken:
            hint = f"it takes {', '.join(taken)}; words such as sequence_length belong into recipe"
            raise InvalidInput(f"{tool} takes no argument {name[:60]!r}", field=name[:60], hint=hint)


def _told(tool: Callable[..., Object], failure: type[Exception]) -> Callable[..., Object]:
    """The tool, with an error of ours as the problem that the API answers with."""
    from functools import wraps

    from loralens.core.errors import LoraLensError
    from loralens.endpoints.problem import from_error, problem_bytes

    @wraps(tool)
    def asked(**given: Any) -> Object:
        try:
            return tool(**given)
        except LoraLensError as error:
            raise failure(problem_bytes(from_error(error)).decode()) from None

    return asked


def _answer(endpoint: str, **body: Any) -> Object:
    from loralens.endpoints.table import compute

    return dict(compute(endpoint, {name: value for name, value in body.items() if value is not None}))


def estimate(
    model: str | None = None,
    method: str | None = None,
    recipe: Object | None = None,
    config: Object | None = None,
    gpu: str | None = None,
) -> Object:
    """Memory of one fine-tuning step, to the byte: POST /api/memory.

    model: a name such as 7B, qwen2.5-7b or a Hugging Face id; or config: its config.json. method: full, lora, qlora or dora;
    without it full, lora and qlora. recipe: micro_batch_size, sequence_length, optimizer, gradient_checkpointing, trainer,
    lora {rank, target_modules}, parallelism {gpus, strategy} and so on. gpu: such as rtx-4090 or 24GB.
    """
    return _answer("memory", model=model, method=method, recipe=recipe, config=config, gpu=gpu)


def fit(
    gpu: str,
    model: str | None = None,
    method: str | None = None,
    recipe: Object | None = None,
    config: Object | None = None,
) -> Object:
    """What fits a GPU, and the smallest changes that make it fit: POST /api/fit. Words as in estimate."""
    return _answer("fit", gpu=gpu, model=model, method=method, recipe=recipe, config=config)


def check(files: dict[str, str], gpu: str | None = None, gpus: int | None = None, model: str | None = None) -> Object:
    """A trainer's own config file or script, judged: POST /api/check.

    files: name to text, such as {"train.yaml": "…"}: Axolotl, LLaMA-Factory, TRL, ms-swift, torchtune, LitGPT, Unsloth, verl, Megatron-LM or
    transformers; a DeepSpeed or accelerate file may go with it. The answer has the verdict, the lines that matter most, the
    smallest change as a patch, and every key that was not understood.
    """
    return _answer("check", files=files, gpu=gpu, gpus=gpus, model=model)


def explain(
    text: str,
    model: str | None = None,
    method: str | None = None,
    recipe: Object | None = None,
    files: dict[str, str] | None = None,
) -> Object:
    """Which tensor a CUDA out-of-memory message is about: POST /api/explain.

    text: the error as PyTorch prints it. With model and recipe, or files as in check, the tensor is known; without, guessed.
    """
    return _answer("explain", text=text, model=model, method=method, recipe=recipe, files=files)


TOOLS: Final[dict[str, Callable[..., Object]]] = {"estimate": estimate, "fit": fit, "check": check, "explain": explain}
INSTRUCTIONS: Final = "What fine-tuning a model costs in GPU memory, computed to the byte. Sizes are bytes."
