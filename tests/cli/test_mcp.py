"""`loralens mcp`: the tools answer as the endpoints do, through the official SDK too; what is hostile is refused by name."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys

import pytest
from mcp.server.mcpserver.exceptions import ToolError

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


@pytest.mark.parametrize(
    "tool, arguments, says",
    [
        ("estimate", {"modle": "7B"}, "takes no argument 'modle'"),
        ("estimate", {**BODY, "gpus": 2}, "belong into recipe"),
        ("estimate", {"model": 5}, "valid string"),
        ("estimate", {"model": "7B", "recipe": []}, "valid dictionary"),
        ("estimate", {"model": "7B", "recipe": {"micro_batch_size": 10**400}}, "from 1 to 65536"),
        ("estimate", {"model": "\ud800"}, "no model is called"),
        ("estimate", {"model": "/etc/passwd"}, "no model is called"),
        ("estimate", {"config": {"model_type": "llama", "hidden_size": 1e308}}, "config.hidden_size"),
        ("estimate", {"config": {"model_type": "llama", "num_hidden_layers": True}}, "config."),
        ("fit", {}, "Field required"),
        ("fit", {"gpu": {}, **BODY}, "valid string"),
        ("check", {"files": {}}, "files must be"),
        ("check", {"files": {"a.yaml": None}}, "valid string"),
        ("check", {"files": {"a.yaml": "a: &a [x, x]\nb: &b [*a, *a]\n" * 4_000}}, "a.yaml"),
        ("check", {"files": {"a.yaml": "base_model: !!python/object/apply:os.system [id]\n"}}, "is not data"),
        ("explain", {"text": "x" * 300_000}, "characters"),
        ("no_such_tool", {}, "Unknown tool"),
    ],
)  # fmt: skip
def test_hostile_arguments_are_refused(tool, arguments, says):
    with pytest.raises(ToolError, match=re.escape(says)):
        asyncio.run(server().call_tool(tool, arguments))


def test_lines_that_are_no_requests_do_not_end_the_server():
    first = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": first}),
        '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        '{"jsonrpc": "2.0", "id": 1, "method":', "null", "[" * 100_000, "\x00", "",
        '{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "estimate", "arguments": [1]}}',
        '{"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "check", "arguments": {"files": '
        + '{"a":' * 5_000 + "1" + "}" * 5_000 + "}}}",
        json.dumps({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "fit", "arguments": {"gpu": "24GB", **BODY}}}),
    ]  # fmt: skip
    running = subprocess.Popen([sys.executable, "-m", "loralens", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert running.stdin and running.stdout
    running.stdin.write("\n".join(lines) + "\n")
    running.stdin.flush()
    answers = {}
    while 4 not in answers:
        answer = json.loads(running.stdout.readline())
        answers[answer.get("id")] = answer
    running.stdin.close()
    assert running.wait(timeout=30) == 0
    running.stdout.close()
    assert answers[2]["error"]["message"] == "Invalid request parameters"
    assert json.loads(answers[4]["result"]["content"][0]["text"])["verdict"] == "fits"
