from __future__ import annotations

import pytest

from loralens.api.answers import respond


def test_the_order_of_the_answer_is_kept_and_text_stays_readable():
    response = respond({"b": 1, "a": "参数 ×"})
    assert response.body.decode() == '{"b":1,"a":"参数 ×"}'
    assert response.headers["content-type"] == "application/json"


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="Out of range"):
        respond({"a": float("nan")})
