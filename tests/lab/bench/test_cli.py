import json

import pytest

from loralens.cli.main import run

QUICK = ["bench", "--width", "64", "--seconds", "0.5", "--cache", "hot", "--variants", "addmm"]


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    from loralens.lab.matmul import roofline

    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setitem(roofline.GEMM_SIZE, "cpu", 128)
    monkeypatch.setitem(roofline.READ_BYTES, "cpu", 2**22)


def test_the_table_names_variants_noise_and_what_to_run(capsys):
    assert run(QUICK) == 0
    out, err = capsys.readouterr()
    for words in (
        "dense, second copy",
        "LoRA, addmm in place",
        "Recommended variant for this machine",
        "measured here",
    ):
        assert words in out
    assert "saved as" in err


def test_json_is_the_result_and_a_file_of_it_can_be_compared(tmp_path, capfdbinary):
    path = tmp_path / "a.json"
    assert run([*QUICK, "--json", "--no-keep", "-o", str(path)]) == 0
    printed = json.loads(capfdbinary.readouterr().out)
    assert printed == json.loads(path.read_text())
    assert run(["bench", "--compare", str(path), str(path), "--json"]) == 0
    compared = json.loads(capfdbinary.readouterr().out)
    assert {row["verdict"] for row in compared["points"][0]["rows"]} == {"same"}


def test_a_sweep_is_written_as_one_word(capfdbinary):
    assert run([*QUICK, "--json", "--no-keep", "--sweep", "rank=1,2"]) == 0
    assert [point["value"] for point in json.loads(capfdbinary.readouterr().out)["points"]] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rank", "0"], "rank"),
        (["--dtype", "int3"], "dtype"),
        (["--sweep", "time"], "axis"),
        (["--compare", "nowhere.json", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert run(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and "Traceback" not in err


def test_a_device_that_is_not_there_is_exit_code_3(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert run(["bench", "--device", "cuda"]) == 3
    assert "CUDA" in capsys.readouterr().err


def test_a_file_that_is_no_result_is_named(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text('{"format": 1}')
    assert run(["bench", "--compare", str(path), str(path)]) == 2
    assert "not a benchmark result" in capsys.readouterr().err
