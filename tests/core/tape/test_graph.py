"""Backward over a graph of which a part gets no gradient."""

from loralens.core.answer.answers import memory_answer


def test_what_no_gradient_reaches_is_passed_by() -> None:
    """An encoder whose states the decoder's checkpointed layers give no gradient: backward ends, and the parts are the whole."""
    recipe = {"trainer": "unsloth", "quantization": {"prepare_kbit": True}}
    (found,) = memory_answer({"model": "t5-small", "method": "qlora", "recipe": recipe})["estimates"]
    assert sum(found["breakdown"].values()) == found["peak"]["allocated_bytes"] > found["breakdown"]["weights_bytes"]
