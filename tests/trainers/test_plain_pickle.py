"""Pickles from strangers: what is no plain data is refused, and nothing in any of them is run."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import struct
import subprocess

import pytest

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.trainers import plain_pickle
from loralens.trainers.plain_pickle import LEFT_OUT, read_plain

FRAMES = [{"filename": "a.py", "line": 1, "name": "f"}]
PLAIN = {
    "segments": [{"address": 1 << 47, "blocks": [{"size": 512, "frames": FRAMES, "pool": (0, -1)}] * 3, "big": 2**90}],
    "device_traces": [[{"action": "alloc", "frames": FRAMES, "n": n, "x": 0.5} for n in range(2500)], []],
    "settings": {"a": None, "b": True, "c": "", "d": ()},
}  # fmt: skip
CALLED = {
    "system": os.system, "popen": os.popen, "eval": eval, "exec": exec, "open": open, "import": builtins.__import__,
    "compile": compile, "run": subprocess.run, "remove": os.remove, "getattr": getattr, "print": print, "bytes": bytearray,
    "random": random.Random, "set": set, "range": range,
}  # fmt: skip


class Calls:
    """Pickles as a call."""

    def __init__(self, target, *arguments):
        self.made = (target, arguments)

    def __reduce__(self):
        return self.made


def hostile():
    """A hundred kinds: calls by every protocol, and opcodes by hand."""
    for name, target in CALLED.items():
        for protocol in (2, 3, 4, 5):
            yield f"{name} {protocol}", pickle.dumps({"segments": Calls(target, "x")}, protocol)
    for protocol in (0, 1):
        yield f"protocol {protocol}", pickle.dumps(PLAIN, protocol)
        yield f"call {protocol}", pickle.dumps(Calls(os.system, "true"), protocol)
    for value in (
        b"bytes",
        bytearray(b"x"),
        {1, 2},
        frozenset({1}),
        1j,
        object,
        Exception("x"),
        {1: 2},
        {None: 1},
        {("a",): 1},
    ):
        yield f"value {value!r:.20}", pickle.dumps({"segments": value}, 4)
    head = b"\x80\x04"
    by_hand = {
        "global": b"cos\nsystem\n", "instance": b"(S'true'\nios\nsystem\n", "stack global": b"\x8c\x02os\x8c\x06system\x93",
        "object": b"(cos\nsystem\n\x8c\x04trueo", "reduce": b"]]R", "build": b"}}b", "new object": b"])\x81", "new object of keywords": b"])}\x92",
        "extension": b"\x82\x01", "extension of two": b"\x83\x01\x00", "extension of four": b"\x84\x01\x00\x00\x00",
        "persistent": b"Px\n", "persistent of the stack": b"NQ", "buffer": b"\x97", "read-only buffer": b"N\x98", "duplicate": b"]2",
        "pop": b"N0N", "pop to mark": b"(N1N", "old text": b"S'a'\n", "old number": b"I1\n", "old float": b"F1\n",
        "old memo": b"]p0\n", "no such opcode": b"\xff", "nothing": b"", "stop alone": b".", "memo that is not there": b"h\x05",
        "list without a mark": b"Ne", "mark at the end": b"N(", "append to a number": b"K\x01K\x02a", "set in a list": b"]K\x01K\x02s",
        "odd pairs": b"}(Nu", "long text": b"X" + struct.pack("<I", 1 << 31), "text of exabytes": b"\x8d" + struct.pack("<Q", 1 << 60),
        "huge number": b"\x8b" + struct.pack("<i", 1 << 30), "negative length": b"\x8b" + struct.pack("<i", -5),
        "depth": b"(" * 100_000, "two objects": b"NN.", "memo of nothing": b"\x94",
    }  # fmt: skip
    for name, text in by_hand.items():
        yield name, head + text
    whole = pickle.dumps(PLAIN, 4)
    for count in (3, 30, 300, len(whole) - 1):
        yield f"cut at {count}", whole[:count]
    yield "no pickle", b"PK\x03\x04"


HOSTILE = list(hostile())


def test_there_are_a_hundred_kinds():
    assert len(HOSTILE) >= 100


@pytest.mark.parametrize("content", [content for _, content in HOSTILE], ids=[name for name, _ in HOSTILE])
def test_hostile_pickles_are_refused(content, monkeypatch):
    def fail(*_args, **_keywords):
        raise AssertionError("run")

    monkeypatch.setattr(os, "system", fail)
    with pytest.raises(InvalidInput) as refused:
        read_plain(io.BytesIO(content))
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_reads_as_pickle_reads_it(protocol):
    content = pickle.dumps(PLAIN, protocol)
    assert read_plain(io.BytesIO(content)) == PLAIN
    assert read_plain(io.BytesIO(content), leave_out=("device_traces",)) == PLAIN | {"device_traces": LEFT_OUT}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "history",
    [[PLAIN["device_traces"][0]], [["x"]], ["x"], [["x", "y"]], {"a": "b"}, {"a": {"b": ["c"]}}, [{"a": "b"}], (("x",),), "x",
     [[{"a": "b", "n": 1 << 40}] * 3], {"a": "b", "c": [1, 2.5, None, True, -3, 2**40, 2**62]}],
)  # fmt: skip
def test_one_history_ends_where_it_ends(protocol, history):
    """A card alone has a list of one list, which is pickled without a mark."""
    whole = {"a": [1, "x"], "device_traces": history, "z": {"a": "x", "b": history}, "settings": {"c": ["y"]}}
    read = read_plain(io.BytesIO(pickle.dumps(whole, protocol)), leave_out=("device_traces",))
    assert {name: read[name] for name in ("a", "settings")} == {name: whole[name] for name in ("a", "settings")}
    assert list(read) == list(whole)


@pytest.mark.parametrize("piece", [64, 1000, 1 << 20])
def test_texts_named_first_in_what_is_left_out_are_known_after_it(monkeypatch, piece):
    """Whatever a piece of the file cuts in two."""
    monkeypatch.setattr(plain_pickle, "PIECE", piece)
    history = [[{"size": n << 30, "frames": FRAMES, "stack": [["deep", (n, 0.5)]]} for n in range(300)]]
    whole = {"device_traces": history, "segments": [{"size": 512, "frames": FRAMES, "stack": []}]}
    for protocol in (2, 4, 5):
        read = read_plain(io.BytesIO(pickle.dumps(whole, protocol)), leave_out=("device_traces",))
        assert [one["size"] for one in read["segments"]] == [512]
        assert read["segments"][0].keys() == {"size", "frames", "stack"}


def test_the_history_of_one_card_is_not_held(monkeypatch):
    content = pickle.dumps({"segments": PLAIN["segments"], "device_traces": PLAIN["device_traces"][:1]}, 4)
    monkeypatch.setattr(plain_pickle, "MOST_OBJECTS", 20)
    assert read_plain(io.BytesIO(content), leave_out=("device_traces",))["segments"] == PLAIN["segments"]


def test_what_is_left_out_is_not_held(monkeypatch):
    content = pickle.dumps(PLAIN, 4)
    monkeypatch.setattr(plain_pickle, "MOST_OBJECTS", 100)
    assert read_plain(io.BytesIO(content), leave_out=("device_traces",))["segments"] == PLAIN["segments"]
    with pytest.raises(InputTooLarge):
        read_plain(io.BytesIO(content))
    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 1_000)
    with pytest.raises(InputTooLarge, match="more than 1,000 bytes"):
        read_plain(io.BytesIO(content), leave_out=("device_traces",))
