"""`loralens mcp`: the tools answer as the endpoints do; with the SDK installed, through it."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys

import pytest

from loralens.cli.mcp import TOOLS, refuse_unknown, server
from loralens.core.answer.answers import memory_answer
from loralens.core.errors import DependencyMissing, InvalidInput

BODY = {"model": "qwen2.5-0.5b", "method": "lora", "recipe": {"sequence_length": 512}}


def test_the_answer_is_the_endpoints():
    assert TOOLS["estimate"](**BODY) == memory_answer(BODY)
    assert TOOLS["fit"](gpu="24GB", **BODY)["verdict"] == "fits"
    checked = TOOLS["check"](
        {"train.yaml": "base_model: Qwen/Qwen2.5-0.5B\nmicro_batch_size: 1\nsequence_len: 64\ndatasets: x\n"}
    )
    assert checked["trainer"]["name"] == "axolotl"
    assert TOOLS["explain"]("CUDA out of memory. Tried to allocate 20.00 MiB")["message"]["tried_bytes"] == 20 << 20
    with pytest.raises(InvalidInput):
        TOOLS["estimate"](model="qwen2.5-0.5b", recipe={"rank": "x"})


def test_every_tool_says_what_it_takes():
    for tool in TOOLS.values():
        said = inspect.getdoc(tool) or ""
        assert "POST /api/" in said
        assert set(inspect.signature(tool).parameters) >= {"model"}


def test_without_the_sdk_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(DependencyMissing, match="loralens mcp needs mcp"):
        server()


def test_an_argument_that_a_tool_does_not_take_is_refused():
    with pytest.raises(InvalidInput, match="no argument 'sequence_length'") as refused:
        refuse_unknown("estimate", BODY | {"sequence_length": 8192})
    assert "belong into recipe" in refused.value.hint


def test_through_the_official_sdk():
    pytest.importorskip("mcp.server")
    from mcp.server.mcpserver.exceptions import ToolError

    made = server()

    async def ask():
        listed = await made.list_tools()
        answer = await made.call_tool("estimate", BODY)
        with pytest.raises(ToolError, match="no argument 'sequence_length'"):
            await made.call_tool("estimate", BODY | {"sequence_length": 8192})
        return listed, answer

    listed, answer = asyncio.run(ask())
    assert {one.name for one in listed} == set(TOOLS)
    assert json.loads(answer.content[0].text) == memory_answer(BODY)
