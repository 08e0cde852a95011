"""A pickle of containers, numbers and strings, read without pickle: no opcode that names, calls or builds anything is known here.

The bytes are read in pieces. What stands under the keys in `leave_out` is passed over as it is read and never held: a memory
history of a gigabyte costs no memory.

Source: CPython 3.11 Lib/pickletools.py, the opcodes of protocols 2 to 5 and what they do.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from typing import Any, BinaryIO, Final

from loralens.core.errors import InputTooLarge, InvalidInput

PIECE: Final = 1 << 20
MOST_BYTES: Final = 1 << 30
MOST_TEXT: Final = 1 << 16
MOST_DEPTH: Final = 64
MOST_OBJECTS: Final = 5_000_000
"""Containers that are held: some gigabyte of memory (assumption, far beyond the blocks of a card)."""
_MARK: Final = object()
LEFT_OUT: Final = "(left out)"
_NUMBERS: Final = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_CONSTANTS: Final = {b"N": None, b"\x88": True, b"\x89": False}
_TEXTS: Final = {b"\x8c": "<B", b"X": "<I", b"\x8d": "<Q"}
_INTEGERS: Final = {b"\x8a": "<B", b"\x8b": "<i"}
_PLAIN: Final = rb"[N\x88\x89\]})as\x85\x86\x87]|[hK].|M..|[Jj].{4}|[G\x95].{8}|\x8a(?:\x04.{4}|\x05.{5}|\x06.{6}|\x07.{7}|\x08.{8})"
"""Opcodes, with what follows them, that neither begin nor end a list or dict, nor keep anything to be named again."""
_SHORT_TEXT: Final = rb"\x8c(?:" + rb"|".join(re.escape(bytes([n])) + rb".{%d}" % n for n in range(256)) + rb")"
_STEPS: Final = re.compile(rb"(?:" + _PLAIN + rb"|[\x94(eut]|" + _SHORT_TEXT + rb")*+", re.DOTALL)
_MARKED: Final = re.compile(rb"(?:" + _PLAIN + rb")*+([eu]\(|[\x94(eut]|" + _SHORT_TEXT + rb"|\Z)", re.DOTALL)
_DEEPER: Final = {b"(": 1, b"e": -1, b"u": -1, b"t": -1}
_GOES_ON: Final = (b"e(", b"u(")
"""The next thousand of one list or dict."""
MOST_KEPT: Final = 100_000
"""Texts within what is left out that can be named outside of it: a snapshot has some hundred."""
_TUPLES: Final = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


def read_plain(file: BinaryIO, name: str = "the snapshot", leave_out: Collection[str] = ()) -> Any:
    """The object that the file holds.

    Raises:
        InvalidInput: anything but lists, tuples, dicts with text for keys, numbers, text, true, false and none; a broken file.
        InputTooLarge: more bytes or objects than allowed.
    """
    return _Reader(file, name, frozenset(leave_out)).read()


class _Reader:
    def __init__(self, file: BinaryIO, name: str, leave_out: frozenset[str]) -> None:
        self.file, self.name, self.leave_out = file, name, leave_out
        self.piece, self.at, self.passed, self.objects = b"", 0, 0, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.kept = 0  # objects that an opcode without a number kept
        self.skipping = -1  # the stack's height at which the value that is left out stands
        self.place = -1  # where it stood last
        self.marks = self.level = 0

    def read(self) -> Any:
        if self.take(1) != b"\x80" or not 2 <= self.take(1)[0] <= 5:
            raise self.refused("it is no pickle of protocol 2 to 5")
        while (code := self.take(1)) != b".":
            self.step(code)
            if self.marks > self.level and self.skipping >= 0:
                self.pass_over()
        if len(self.stack) != 1 or self.marks:
            raise self.refused("it ends in the middle of an object")
        return self.stack[0]

    def step(self, code: bytes) -> None:
        if code in _NUMBERS:
            form = _NUMBERS[code]
            self.push(struct.unpack(form, self.take(struct.calcsize(form)))[0])
        elif code in _CONSTANTS:
            self.push(_CONSTANTS[code])
        elif code in _TEXTS:
            self.push(self.text(_TEXTS[code]))
        elif code in _INTEGERS:
            self.push(self.integer(_INTEGERS[code]))
        elif code in b"]})":
            self.push({b"]": [], b"}": {}, b")": ()}[code] if not self.skips() else LEFT_OUT, made=True)
        elif code == b"(":
            self.marks += 1
            if self.marks > MOST_DEPTH:
                raise self.refused(f"it is nested deeper than {MOST_DEPTH} levels")
            self.stack.append(_MARK)
        elif code in b"ae":
            self.append([self.pop()] if code == b"a" else self.since_mark())
        elif code in b"su":
            pair = [self.pop(), self.pop()][::-1] if code == b"s" else self.since_mark()
            self.set_items(pair)
        elif code == b"t":
            found = self.since_mark()
            self.push(LEFT_OUT if self.skips() else tuple(found), made=True)
        elif code in _TUPLES:
            found = [self.pop() for _ in range(_TUPLES[code])][::-1]
            self.push(LEFT_OUT if self.skips() else tuple(found), made=True)
        else:
            self.remember(code)

    def remember(self, code: bytes) -> None:
        """Frames, and what is kept to be named again."""
        if code == b"\x95":
            self.take(8)
        elif code == b"\x94":
            self.memo[self.kept] = self.top()
            self.kept += 1
        elif code in b"qr":
            number = self.take(1)[0] if code == b"q" else struct.unpack("<I", self.take(4))[0]
            self.memo[number] = self.top()
        elif code in b"hj":
            number = self.take(1)[0] if code == b"h" else struct.unpack("<I", self.take(4))[0]
            if number not in self.memo and number >= self.kept:
                raise self.refused("it names an object that it does not hold")
            self.push(self.memo.get(number, LEFT_OUT))
        else:
            raise self.refused(
                f"it holds more than lists, dicts, numbers and text (opcode {code!r} at byte {self.passed:,})"
            )

    def skips(self) -> bool:
        """Does what comes now belong to what is left out?"""
        return 0 <= self.skipping <= len(self.stack)

    def pass_over(self) -> None:
        """Steps within what is left out, as many as this piece has whole: much faster than one by one.

        What they leave on the stack is put there as if it had been read: containers that have begun, and values to spare.
        """
        match = _STEPS.match(self.piece, self.at)
        end = self.at if match is None else match.end()
        text, depth = "", self.marks
        for place, found in enumerate(_MARKED.findall(self.piece, self.at, end)):
            if found == b"\x94":
                if text and len(self.memo) < MOST_KEPT:
                    self.memo[self.kept] = text
                self.kept += 1
            elif (change := _DEEPER.get(found)) is not None:
                if depth + change <= self.level:  # what is left out ends here
                    end = [one.start(1) for one in _MARKED.finditer(self.piece, self.at, end)][place]
                    break
                depth += change
                if depth > MOST_DEPTH:
                    raise self.refused(f"it is nested deeper than {MOST_DEPTH} levels")
            text = str(found[2:], "utf-8", "replace") if len(found) > 1 and found not in _GOES_ON else ""
        if end > self.at:
            first = next(place for place in range(self.skipping, len(self.stack)) if self.stack[place] is _MARK)
            self.stack[first:] = [_MARK, *[LEFT_OUT] * 3] * (depth - self.level)
            self.marks = depth
            self.passed += end - self.at
            self.at = end

    def push(self, value: Any, *, made: bool = False) -> None:
        if made and value is not LEFT_OUT:
            self.objects += 1
            if self.objects > MOST_OBJECTS:
                raise InputTooLarge(f"{self.name} holds more than {MOST_OBJECTS:,} objects", field="text")
        if (
            self.skipping >= 0
            and type(value) is str
            and value is not LEFT_OUT
            and (len(self.stack), self.marks) == (self.skipping + 1, self.level)
        ):
            self.skipping = -1  # the key after what was left out
        self.stack.append(value)
        if type(value) is str and value in self.leave_out and self.skipping < 0 and self.marks <= 1:
            self.skipping = self.place = len(self.stack)  # the next value is this key's
            self.level = self.marks

    def resume(self) -> None:
        """What seemed to be the key after what is left out was its only element: it goes on."""
        if self.skipping < 0 and len(self.stack) == self.place + 1:
            self.skipping = self.place

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.refused("it ends in the middle of an object")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                found = self.stack[place + 1 :]
                del self.stack[place:]
                self.marks -= 1
                return found
        raise self.refused("a list ends that was not begun")

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if target is LEFT_OUT:
            return self.resume()
        if type(target) is not list:
            raise self.refused("something is appended to what is no list")
        target.extend(values)

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if self.skipping > len(self.stack):
            self.skipping = -1  # its dict takes it
        if target is LEFT_OUT:
            return self.resume()
        if type(target) is not dict or len(pairs) % 2:
            raise self.refused("something is set in what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str:
                raise self.refused("a key is no text")
            target[key] = value

    def text(self, form: str) -> str:
        size = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        if size > MOST_TEXT:
            raise self.refused(f"a text has {size:,} bytes, allowed are {MOST_TEXT:,}")
        return str(self.take(size), "utf-8", "replace")

    def integer(self, form: str) -> int:
        size = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        if not 0 <= size <= 16:
            raise self.refused("a number has more than 128 bits")
        return int.from_bytes(self.take(size), "little", signed=True)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.piece):
            rest = self.piece[self.at :]
            self.piece = rest + self.file.read(max(PIECE, count - len(rest)))
            self.at, end = 0, count
            if end > len(self.piece):
                raise self.refused("it ends in the middle of an object")
        found = self.piece[self.at : end]
        self.at = end
        self.passed += count
        if self.passed > MOST_BYTES:
            raise InputTooLarge(
                f"{self.name} has more than {MOST_BYTES:,} bytes",
                field="text",
                hint="record a shorter history: _record_memory_history(max_entries=100000)",
            )
        return found

    def refused(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self.name} cannot be read: {why}",
            field="text",
            hint="give the file that torch.cuda.memory._dump_snapshot wrote",
        )
