"""The examples, as a newcomer runs them: each in a few seconds, with what it asserts itself."""

import json

import pytest
from children import TESTS, finish, start

import fastgru as fg

# The others take longer, or need the network once.
QUICK = {"event_loop", "understanding_gru"}
EXAMPLES = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])
    for path in sorted((TESTS.parent / "examples").glob("*.py"))
]


def run(path, folder, *arguments):
    return finish(start(str(path), *arguments, cwd=folder, PYTHONPATH=str(TESTS.parent)))


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_ends_well_and_says_what_it_measured(path, tmp_path):
    arguments = ["--smoke", "--json", "--seed", "1"]
    if path.stem == "understanding_gru":
        (tmp_path / "reviews.tsv").write_text("1\ta moving film\n0\ta dull film\n" * 50)
        arguments += ["a dull film", "--data", str(tmp_path / "reviews.tsv")]
    measured = json.loads(run(path, tmp_path, *arguments).splitlines()[-1])
    assert measured["seconds"] > 0
    if path.stem == "event_loop":
        assert measured["recall"] > 0.9 and measured["parameters"] == 977
    if path.stem == "understanding_gru":
        assert measured["difference"] < 1e-6
        assert measured["gradient_kept"]["GRU"] > 10 * measured["gradient_kept"]["SimpleRNN"]
        assert {name: cell["parameters"] for name, cell in measured["cells"].items()} == {
            "SimpleRNN": 528, "LSTM": 2112, "GRU": 1632,
        }  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_explains_itself(path, tmp_path):
    text = run(path, tmp_path, "--help")
    assert all(option in text for option in ("--smoke", "--seed", "--threads", "--json"))


def test_the_quickstart_refuses_what_it_could_not_save_before_it_trains(tmp_path):
    path = TESTS.parent / "examples" / "quickstart.py"
    for arguments, message in (
        (("--save", "no/such/folder/m.safetensors"), "--save: expected a file in an existing"),
        (("--threads", "0"), "expected a positive integer, given 0"),
    ):
        process = start(str(path), *arguments, cwd=tmp_path, PYTHONPATH=str(TESTS.parent))
        output, errors = process.communicate(timeout=60)
        assert process.returncode and message in errors and not output


def test_a_name_that_does_not_exist_gets_the_list_of_those_that_do():
    with pytest.raises(AttributeError, match=r"expected one of .* GRU, .* given 'GatedTurnstile'"):
        _ = fg.GatedTurnstile
    with pytest.raises(AttributeError, match="Did you mean 'SimpleRNN'"):
        _ = fg.SimpleRnn
    assert not hasattr(fg, "tanh")
