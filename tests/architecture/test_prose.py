"""The glossary, kept: words that mislead or have a better one, and terms that go together in English and Chinese.

Looked at: both locale files of the page and its Chinese tables of what the API says, the READMEs, the lessons, the
command line's help, and every text that the package has in both languages. A new term gets its row here before it gets its first sentence.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backend" / "loralens"
LOCALES = ROOT / "frontend" / "src" / "locales"
HAN = r"[\u4e00-\u9fff]"
WIDE = r"[\u3000-\u303f\uff00-\uffef]"

NEVER_ENGLISH = {
    r"\ban? \{(?!n\}|count\})": "leave the article out: 'a {gpu}' becomes 'a A100'",
    r"(?<!here )\b(?:is|are) no (?!longer\b)[a-z]+\b": "is not a …",
    r"\bholds no\b": "contains no …",
    r"\bbeside\b": "next to, besides, in addition to",
    r"\btold\b": "said, reported",
    r"\bhonest(?:ly)?\b": "say what is meant: keeps the adapter separate, passes the error bound",
    r"\bhairline\b": "thin strip",
    r"\btextbook numbers\b": "the course's numbers",
    r"\b[Tt]he hub\b|\bA real hub\b": "adapters on one base; the Hugging Face Hub, in full",
    r"\bwall clock(?! \(|,)": "wall-clock time",
    r"\bunpack(?:ed|ing|s)?\b(?!;)": "dequantize",
    r"\bso-manieth\b": "one in so many",
    r"\b(?:every weight|all that) trains\b": "all weights are trained",
    r"\b[Tt]rained parameters\b": "trainable parameters",
    r"\bsamples per step\b": "micro-batch",
    r"\b[Kk]eeps? a whole (?:copy|model)\b": "stores",
    r"\bMiddle half\b": "interquartile range",
    r"\d %": "95%, without a space",
    "’": "one apostrophe: '",
    r"\b[Mm]icro batch|\bmicrobatch": "micro-batch",
    r"\bneeds? \{(?:least|low|high)\}|\{(?:least|low)\} at least|\bsafely needed\b": "needs at least …, to be safe …",
}
NEVER_CHINESE = {
    "操作数": "算子调用次数（操作数是 operand）",
    "墙钟": "实际耗时（wall clock）",
    "录制": "预存",
    "枢纽": "一个底座配多个适配器",
    "装载|载入|装入": "加载",
    "硬盘": "磁盘",
    "解压": "反量化",
    "存法": "存储方式",
    "噪声底": "本底噪声",
    "教科书": "课程",
    "中间一半": "四分位区间",
    "撤下": "移除",
    "诚实": "保留适配器且误差合格",
    "智能客服|机器翻译": "客户服务、翻译",
    "(?<!全量微调（)全参数?微调": "全量微调",
    "原模型|底模": "底座",
    "(?<!要)训练的参数": "可训练参数",
    "每步样本数": "微批量",
    "分配峰值|分配器的峰值": "已分配显存峰值",
    "临时量": "临时张量",
    "融合核|内核": "算子（kernel）",
    "经验估算": "经验公式",
    "下一词(?!元)": "下一词元",
    "追踪": "跟踪",
    "缩放系数再量化": "量化常数",
    r"(?:4|8|16|32) 位": "比特",
    r"\d %": "95%，不加空格",
    r"nats/token": "nats/词元",
    "微批次": "微批（一个）、微批量（大小）",
    "训练框架": "训练器",
    r"稳妥起见|至少(?:要|需要) [{$]|稳妥 \{": "最低需要 …，稳妥需要 …",
}
HALF_WIDTH = {
    rf"{HAN} ?[,;:!?()]|[,;!?()] ?{HAN}|: ?{HAN}": "全角标点",
    rf"{HAN}\.(?![\w/])|\.\.\.": "句号、省略号：。……",
    r"[：，；、][：，；、。]": "两个标点相连",
    rf" {WIDE}|[、，。；：（）“”] (?! )": "全角标点旁边不加空格",
}
CODE = r"`[^`]*`|[\w.-]+\([^()\u4e00-\u9fff]*\)|\([\w., ×-]*\)|\b[\w.]+=[\w.:+,-]+|\b[\w.-]+:[\w.-]+"
"""What is written in half width inside Chinese too: commands, calls, shapes, `name=value` and `host:port`."""
TOGETHER = (
    (r"\bfull fine-tuning\b", "全量"),
    (r"\bgradient checkpoint", "梯度检查点"),
    (r"\bgradient accumulation\b", "梯度累积"),
    (r"\bmicro-batch\b", "微批"),
    (r"\bsequence length\b", "序列长度"),
    (r"\bhost memory\b", "主机内存"),
    (r"\boptimizer state\b", "优化器状态"),
    (r"\bpeak allocated memory\b", "已分配显存峰值"),
    (r"\btrainable parameters\b", "可训练参数|参数更少"),
    (r"\btemporary tensors\b", "临时张量|临时副本"),
    (r"\bdequantiz", "反量化"),
    (r"\bquantization constant", "量化常数"),
    (r"\bbackward pass\b", "反向"),
    (r"\boptimizer step\b", "优化器更新|每次更新"),
    (r"\broofline\b", "屋顶线"),
    (r"\bwall-clock\b", "实际耗时"),
    (r"\bconfidence interval", "置信区间"),
    (r"\brandom seed", "随机种子"),
    (r"\bquartile", "四分位数"),
    (r"\binterquartile\b", "四分位区间"),
    (r"\bvariants?\b", "实现|算法|种"),
    (r"\bcatalogue\b", "内置模型库"),
    (r"\bhugging face hub\b", "Hugging Face Hub"),
    (r"\bword embeddings\b", "词嵌入"),
    (r"\brandom order", "随机"),
)
"""What an English sentence names, its Chinese twin must name by one of these."""


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@cache
def locale(name: str) -> dict[str, str]:
    return dict(flat(json.loads((LOCALES / f"{name}.json").read_text(encoding="utf-8")))) | words(name)


def words(name: str) -> dict[str, str]:
    """The texts of the recipe's words, which stand in one file for all languages."""
    texts = flat(json.loads((LOCALES / "recipe" / "words.json").read_text(encoding="utf-8")))
    return {f"word.{key.removesuffix(f'.{name}')}": text for key, text in texts if key.endswith(f".{name}")}


def literals(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of a module by line, an f-string as one text; docstrings are for another reader."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node)} - {id(node)}
        elif isinstance(node, ast.Expr):
            inside.add(id(node.value))
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


@cache
def bilingual() -> tuple[tuple[str, str], ...]:
    """Texts of the modules that speak Chinese, and of the lessons."""
    modules = [path for path in PACKAGE.rglob("*.py") if re.search(HAN, path.read_text(encoding="utf-8"))]
    lessons = (ROOT / "code" / "part2").glob("*.py")
    return tuple(text for path in [*modules, *lessons] for text in literals(path))


def tables(name: str) -> Iterator[tuple[str, str]]:
    """What Python says by key (`core/texts.py`)."""
    for path in PACKAGE.rglob(f"locales/{name}.json"):
        yield from json.loads(path.read_text(encoding="utf-8")).items()


def documents(language: str) -> Iterator[tuple[str, str]]:
    name = {"en": "README.md", "zh": "README.zh-CN.md"}[language]
    chinese, english = (ROOT / "code/part2/README.md").read_text(encoding="utf-8").split("\n---\n\n# ")
    texts = {name: (ROOT / name).read_text(encoding="utf-8"), "part2": english if language == "en" else chinese}
    if language == "en":
        texts["docs/cli.md"] = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    for where, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{where}:{number}", line


def english() -> Iterator[tuple[str, str]]:
    yield from locale("en").items()
    yield from tables("en")
    yield from documents("en")
    yield from ((where, text) for where, text in bilingual() if not re.search(HAN, text) and " " in text)


def strings(tree: Any, where: str) -> Iterator[tuple[str, str]]:
    """All texts of a table, whatever its form."""
    if isinstance(tree, str):
        yield where, tree
    elif isinstance(tree, (dict, list)):
        rows = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in rows:
            yield from strings(value, f"{where}.{key}" if len(str(key)) < 40 else where)


@cache
def translated() -> tuple[tuple[str, str], ...]:
    """What the page makes of the API's sentences, in Chinese."""
    found = [
        text
        for path in sorted((ROOT / "frontend" / "src").rglob("*.zh-CN.json"))
        for text in strings(json.loads(path.read_text(encoding="utf-8")), path.name)
    ]
    return tuple((where, text) for where, text in found if re.search(HAN, text))


def chinese() -> Iterator[tuple[str, str]]:
    yield from locale("zh-CN").items()
    yield from translated()
    yield from tables("zh-CN")
    yield from documents("zh")
    yield from ((where, text) for where, text in bilingual() if re.search(HAN, text))


def broken(rules: dict[str, str], texts: Iterator[tuple[str, str]]) -> list[str]:
    whole = re.compile("|".join(f"(?:{rule})" for rule in rules))
    return [
        f"{where}: {text[:200]!r}: {better}"
        for where, text in texts
        if whole.search(text)
        for rule, better in rules.items()
        if re.search(rule, text)
    ]


def parted(pairs: Iterator[tuple[str, str, str]]) -> list[str]:
    return [
        f"{where}: {en!r} and {zh!r}: {term} goes with {twin}"
        for where, en, zh in pairs
        for term, twin in TOGETHER
        if re.search(term, en, re.IGNORECASE) and not re.search(twin, zh)
    ]


def test_english_keeps_the_glossary() -> None:
    assert broken(NEVER_ENGLISH, english()) == []


def test_chinese_keeps_the_glossary() -> None:
    assert broken(NEVER_CHINESE, chinese()) == []


def test_both_languages_of_the_page_name_the_same_things() -> None:
    assert parted((key, text, locale("zh-CN")[key]) for key, text in locale("en").items()) == []


def test_chinese_is_written_in_full_width() -> None:
    texts = [*locale("zh-CN").items(), *translated(), *tables("zh-CN")]
    assert broken(HALF_WIDTH, ((where, re.sub(CODE, "x", text)) for where, text in texts)) == []


@pytest.mark.parametrize("package", ["loralens.planner", "loralens.lab.forgetting"])
def test_both_languages_of_python_name_the_same_things(package: str) -> None:
    from loralens.core.texts import Texts

    table = Texts(package).table
    assert parted((key, text, table["zh"][key]) for key, text in table["en"].items()) == []


def test_only_what_is_measured_on_it_speaks_of_this_machine() -> None:
    """The page may be read far from the machine that serves it."""
    allowed = re.compile(r"^(?:benchmark|lab|home\.true)\.")
    for name, words in (
        ("en", r"\bthis (?:machine|computer)\b|\bon your (?:machine|computer)\b"),
        ("zh-CN", "本机|这台机器"),
    ):
        assert [key for key, text in locale(name).items() if re.search(words, text) and not allowed.match(key)] == []


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (NEVER_ENGLISH, "{method} does not fit a {gpu}."),
        (NEVER_ENGLISH, "'x' is no owner/name"),
        (NEVER_ENGLISH, "Written the fastest honest way"),
        (NEVER_ENGLISH, "95 % interval"),
        (NEVER_ENGLISH, "the last micro batch"),
        (NEVER_ENGLISH, "needs {least}, to be safe {safe}"),
        (NEVER_CHINESE, "GPU：{size}，稳妥起见 {safe}"),
        (HALF_WIDTH, "图片大小（高, 宽）"),
        (HALF_WIDTH, "损失改为:分块"),
        (HALF_WIDTH, "损失改为：：分块"),
        (HALF_WIDTH, "长度(词元)"),
        (HALF_WIDTH, "装得下。 很快。"),
        (NEVER_CHINESE, "约需 8 位优化器"),
        (NEVER_CHINESE, "重新装载模型"),
        (NEVER_CHINESE, "全参数微调要多少显存"),
        (NEVER_CHINESE, "逐个算法的操作数"),
    ],
)
def test_the_rules_find_what_they_are_for(rules: dict[str, str], text: str) -> None:
    assert len(broken(rules, iter([("here", text)]))) == 1


def test_a_term_without_its_twin_is_found() -> None:
    assert len(parted(iter([("here", "Offload to host memory", "卸载到内存")]))) == 1
    assert parted(iter([("here", "Offload to host memory", "卸载到主机内存")])) == []


def test_a_percent_sign_stands_at_its_number_in_what_the_package_says():
    """Its sentences stand beside the page's numbers, which have no space there."""
    apart = re.compile(r"[\d}] %")
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.json"), *(ROOT / "frontend/src").rglob("*.json")]
    assert {str(file.relative_to(ROOT)) for file in files if apart.search(file.read_text("utf-8"))} == set()
