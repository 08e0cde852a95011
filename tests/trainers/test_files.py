"""Files from strangers: bounded work and a clear error, whatever is in them; nothing in them is run."""

from __future__ import annotations

import json

import pytest

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.trainers.check import check_answer
from loralens.trainers.files import MAX_FILE_BYTES
from loralens.trainers.pythonfile import read_python
from loralens.trainers.shell import read_shell
from loralens.trainers.yamlfile import number, read_yaml

GOOD = "base_model: Qwen/Qwen2.5-0.5B\nmicro_batch_size: 1\nsequence_len: 128\nadapter: lora\nlora_r: 8\ndatasets: x\n"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)
BAD = {
    "aliases": (LAUGHS, "expands to more than"),
    "depth": ("a: " + "[" * 100 + "]" * 100, "nested deeper"),
    "depth without end": ("[" * 50_000, "nested deeper|not YAML"),
    "tab": ("base_model: x\n\tadapter: lora\n", "not YAML"),
    "binary": (b"\x7fELF\x00\x01\xff", "not text"),
    "zero": ("a: 1\0", "not text"),
    "large": ("a" * (MAX_FILE_BYTES + 1), "more than 1,048,576 bytes"),
    "object tag": ("a: !!python/object/apply:os.system ['true']\n", "is not data"),
    "own tag": ("a: !thing 1\n", "is not data"),
    "several documents": ("a: 1\n---\nb: 2\n", "several YAML documents"),
    "a list": ("- a\n- b\n", "no keys"),
    "nothing": ("", "no keys"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(3000)), "more than 2,000 keys"),
    "many entries": ("a: [" + "1," * 60_000 + "1]", "more than 50,000 entries"),
    "unknown trainer": ("foo: 1\nbar: 2\n", "no known trainer's config: train.yaml holds"),
    "self reference": ("a: &a {b: *a}\n", "expands to more than|not YAML"),
}


@pytest.mark.parametrize("content, says", BAD.values(), ids=BAD)
def test_bad_yaml_is_refused_by_name(content, says):
    with pytest.raises(InvalidInput, match=says) as refused:
        check_answer({"files": {"train.yaml": content}})
    assert "train.yaml" in refused.value.message
    assert len(refused.value.message) < 1_000


def test_the_hint_for_a_tab_names_it():
    with pytest.raises(InvalidInput) as refused:
        read_yaml("train.yaml", BAD["tab"][0])
    assert "tabs" in (refused.value.hint or "")


def test_long_digits_and_dates_stay_text():
    found = read_yaml("t.yaml", f"a: {'9' * 5000}\nb: 2026-11-29\nc: 1e-4\nd: 0x10\ne: on\nf: ~\ng: 1:30\n").whole
    assert (found["a"], found["b"], found["c"], found["e"], found["f"]) == ("9" * 5000, "2026-11-29", 1e-4, True, None)


@pytest.mark.parametrize(
    "text, value", [("1e-4", 1e-4), ("12", 12), ("1.5", 1.5), ("x", "x"), (".", "."), ("-", "-"), ("1.2.3", "1.2.3")]
)
def test_numbers_that_yaml_takes_for_text(text, value):
    assert number(text) == value


def test_merge_keys_and_anchors_are_followed():
    found = read_yaml("t.yaml", "base: &b {lora_r: 8, x: 1}\nown:\n  <<: *b\n  x: 2\n")
    assert found.whole["own"] == {"lora_r": 8, "x": 2}


def test_a_key_given_twice_is_noted():
    answer = check_answer({"files": {"train.yaml": GOOD + "lora_r: 16\n"}})
    assert answer["notes"] == ["lora_r is given twice: the last one counts"]
    assert answer["recipe"]["lora"]["rank"] == 16


@pytest.mark.parametrize(
    "files", [None, {}, [], {"a": 1}, {f"{n}.yaml": GOOD for n in range(17)}, {"a.yaml": GOOD, "b.yaml": GOOD}]
)
def test_the_files_themselves(files):
    with pytest.raises(InvalidInput):
        check_answer({"files": files})


@pytest.mark.parametrize(
    "text",
    [
        "swift sft --model " + "a" * 5_000,
        "swift infer --model x",
        "",
        "$(" * 1_000,
        "swift sft " + "x " * 1_900 + "\\\n" + "y " * 1_900 + "\\\n" + "z " * 1_900,
    ],
)
def test_bad_scripts_are_refused(text):
    with pytest.raises(InvalidInput):
        read_shell("sft.sh", text)


def test_a_script_is_read_and_not_run(tmp_path):
    target = tmp_path / "ran"
    source = read_shell(
        "sft.sh",
        f"N=4\nM=${{N}}\nswift sft --model $(touch {target}) --a $(expr 64 / $N) --b $((M * 2)) --c ${{X:-7}} --d 'a b'",
    )
    assert not target.exists()
    assert {key: one.value for key, one in source.settings.items()} == {
        "model": f"$(touch {target})", "a": 16, "b": 8, "c": 7, "d": "a b",
    }  # fmt: skip


@pytest.mark.parametrize("code", ["(" * 5_000, "def f(:", "x = " + "-" * 20_000 + "1", "\n".join(["a"] * 10) + "\n  b"])
def test_bad_python_is_refused(code):
    with pytest.raises(InvalidInput):
        read_python("train.py", code)


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"cells": 3}'])
def test_bad_notebooks_are_refused(text):
    with pytest.raises(InvalidInput):
        read_python("n.ipynb", text, notebook=True)


def test_python_is_read_and_not_run(tmp_path):
    target = tmp_path / "ran"
    code = f"r = 16\nopen({str(target)!r}, 'w')\nLoraConfig(r=r, target_modules=['a', 'b'], lora_alpha=f(3))\n"
    found = read_python("train.py", code).settings
    assert not target.exists()
    assert (found["lora.r"].value, found["lora.target_modules"].value) == (16, ["a", "b"])
    assert found["lora.lora_alpha"].value == "=f(3)"


def test_cells_of_another_language_are_left_out():
    cells = [
        {"cell_type": "code", "source": ["%%bash\n", "pip install x\n"]},
        {"cell_type": "code", "source": "%%capture\n!pip x\nLoraConfig(r=4)"},
    ]
    found = read_python("n.ipynb", json.dumps({"cells": cells}), notebook=True).settings
    assert found["lora.r"].value == 4


def test_too_large_is_413():
    with pytest.raises(InputTooLarge):
        check_answer({"files": {"train.yaml": "x" * (MAX_FILE_BYTES + 1)}})


def test_a_variable_that_doubles_itself_is_stopped():
    with pytest.raises(InvalidInput, match="grows beyond"):
        read_shell("sft.sh", "A=$A$A$A$A\n" * 30 + "swift sft --model $A")


def test_too_much_code_is_refused():
    with pytest.raises(InputTooLarge, match="characters of code"):
        read_python("train.py", "a = 1\n" * 50_000)


@pytest.mark.parametrize("name", ["llama3_8b.toml", "pasted.yaml", "config"])
def test_toml_is_called_toml(name):
    text = '# torchtitan\n\n[job]\ndump_folder = "./outputs"\n\n[parallelism]\ntensor_parallel_degree = 2\n'
    with pytest.raises(InvalidInput, match="is TOML, which is not read: torchtitan") as refused:
        check_answer({"files": {name: text}})
    assert refused.value.field == "files"
