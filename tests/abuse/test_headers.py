"""Headers of adapters that are made to be slow to check: the work grows with the text, not with its square."""

from __future__ import annotations

import json
import time

import pytest

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.header import read_header

NAMES = 20_000


def processor_seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_name_that_is_listed_twice_is_found_in_one_pass():
    text = ("{" + ",".join(f'"a{number}":1' for number in range(NAMES)) + f',"a{NAMES - 1}":2}}').encode()
    raw = len(text).to_bytes(8, "little") + text

    def refused():
        with pytest.raises(InvalidInput, match=f"'a{NAMES - 1}' is listed twice"):
            read_header(raw)

    # Reading the same text ten times as plain JSON is the yardstick: one pass more costs less, a search per name more.
    plain = processor_seconds(lambda: [json.loads(text) for _ in range(10)])
    assert processor_seconds(refused) < plain
