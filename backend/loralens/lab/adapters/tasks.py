"""Six tasks for six adapters: the same request, answered in six ways. All text is made here, from a small grammar.

A request says who wrote about what, what happened and when; each task turns the same four facts into its own kind of
answer. So the adapters can be told apart at a glance, each can be checked exactly, and requests that were kept out of
training show whether the task was learned rather than remembered.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PEOPLE: Final = ("Anna", "Ben", "Carol", "David", "Emma", "Frank", "Grace", "Henry")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
THINGS: Final = ("invoice", "meeting", "delivery", "report", "contract", "budget", "password", "order")
EVENTS: Final = ("is late", "is missing", "is ready", "was moved", "was changed", "is wrong")

_DO: Final = dict(
    zip(EVENTS, ("speed it up", "look for it", "send it", "tell the team", "check it", "correct it"), strict=True)
)
_VERB: Final = dict(zip(EVENTS, ("hurry", "find", "send", "move", "check", "fix"), strict=True))
_STATE: Final = dict(zip(EVENTS, ("late", "missing", "ready", "moved", "changed", "wrong"), strict=True))
_IMAGE: Final = dict(
    zip(
        EVENTS,
        (
            "time stood still",
            "the wind had taken it",
            "it shone like the sun",
            "it walked away by night",
            "it wore a new face",
            "the mirror laughed",
        ),
        strict=True,
    )
)
_ZH_DAY: Final = dict(zip(DAYS, "一二三四五", strict=True))
_ZH_THING: Final = dict(zip(THINGS, ("发票", "会议", "快递", "报告", "合同", "预算", "密码", "订单"), strict=True))
_ZH_EVENT: Final = dict(zip(EVENTS, ("晚了", "丢了", "好了", "改期了", "变了", "错了"), strict=True))


@dataclass(frozen=True, slots=True)
class Facts:
    """What one request says."""

    person: str
    thing: str
    event: str
    day: str

    @property
    def request(self) -> str:
        """The request as text, as it stands in a prompt."""
        return f"{self.person}: the {self.thing} {self.event}, {self.day}."


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of answer: its name (also the adapter's), a title in both languages and the rule."""

    name: str
    title: str
    title_zh: str
    answer: Callable[[Facts], str]


TASKS: Final = (
    Task(
        "email_summary",
        "Email summary",
        "邮件摘要",
        lambda f: f"Summary: {f.person} says the {f.thing} {f.event}. To do by {f.day}: {_DO[f.event]}.",
    ),
    Task(
        "code_generation",
        "Code generation",
        "代码生成",
        lambda f: (
            f'def {_VERB[f.event]}_{f.thing}(who="{f.person}", day="{f.day}"):\n'
            f"    return {f.thing}.{_VERB[f.event]}(who)"
        ),
    ),
    Task(
        "customer_service",
        "Customer service",
        "客户服务",
        lambda f: (
            f"Dear {f.person}, thank you. We are sorry that the {f.thing} {f.event}; we will {_DO[f.event]} on {f.day}."
        ),
    ),
    Task(
        "creative_writing",
        "Creative writing",
        "创意写作",
        lambda f: f"One {f.day} in the rain, {f.person} dreamed of the {f.thing}: {_IMAGE[f.event]}.",
    ),
    Task(
        "sql_query",
        "SQL query",
        "SQL 查询",
        lambda f: (
            f"SELECT * FROM {f.thing} WHERE state = '{_STATE[f.event]}' AND owner = '{f.person}' AND day = '{f.day}';"
        ),
    ),
    Task(
        "translation",
        "Translation",
        "翻译",
        lambda f: f"{f.person}:{_ZH_THING[f.thing]}{_ZH_EVENT[f.event]},星期{_ZH_DAY[f.day]}。",
    ),
)


def task(name: str) -> Task:
    """The task of this name; `KeyError` for another one (names come from this module)."""
    return {each.name: each for each in TASKS}[name]


def prompt_for(request: str) -> str:
    r"""The text an adapter is asked to continue.

    >>> prompt_for("Anna: the order is late, Friday.")
    'Request: Anna: the order is late, Friday.\nAnswer:'
    """
    return f"Request: {request}\nAnswer:"


def all_facts() -> list[Facts]:
    """Every request of the grammar, in a fixed mixed order (1,920 of them)."""
    facts = [Facts(p, t, e, d) for p in PEOPLE for t in THINGS for e in EVENTS for d in DAYS]
    random.Random(20260101).shuffle(facts)
    return facts


def training_facts() -> list[Facts]:
    """Nine tenths of the requests."""
    facts = all_facts()
    return facts[: len(facts) * 9 // 10]


def held_out_facts() -> list[Facts]:
    """The tenth that no adapter is trained on."""
    facts = all_facts()
    return facts[len(facts) * 9 // 10 :]


def grammar_hash() -> str:
    """Changes whenever any request or answer would, so that nothing stale is read from a cache."""
    digest = hashlib.sha256()
    for facts in all_facts():
        digest.update(facts.request.encode())
        for each in TASKS:
            digest.update(each.answer(facts).encode())
    return digest.hexdigest()[:16]
