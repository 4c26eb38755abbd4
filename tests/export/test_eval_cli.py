import json
from pathlib import Path

import pytest

from edgekit.cli import main
from tests import tiny
from tests.export.exports import export_tiny

BOOLQ = {"question": "is ice cold", "passage": "Ice is cold.", "answer": True}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    export_tiny(tiny.write_hf_folder(tmp_path / "tiny"), tmp_path / "bundle", "int4")
    (tmp_path / "text.txt").write_text("The keeper wrote down the weather. " * 20, encoding="utf-8")
    (tmp_path / "boolq.jsonl").write_text(json.dumps(BOOLQ), encoding="utf-8")
    return tmp_path / "bundle"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["eval", *map(str, arguments)])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_json_has_the_fields_that_scripts_rely_on(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, text, task = tmp_path / "tiny", tmp_path / "text.txt", tmp_path / "boolq.jsonl"
    words = (bundle, "--reference", reference, "--text", text, "--tokens", "50", "--task", task, "--json")
    code, out, err = run(capsys, *words)
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        *("perplexity", "reference_perplexity", "kl", "same_top_token", "tokens"),
        *("score", "score_normalised", "reference_score", "agreement", "questions", "tasks"),
        "tokens_per_answer",
    }
    assert found["tokens"] == 50
    assert 0 < found["kl"] < 1
    assert found["tasks"][0]["task"] == "boolq"
    assert "opening" in err


def test_a_person_gets_lines_and_a_table(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, task = tmp_path / "text.txt", tmp_path / "boolq.jsonl"
    _, out, err = run(capsys, bundle, "--reference", tmp_path / "tiny", "--text", text, "--task", task, "--task", task)
    for words in ("perplexity", "reference's perplexity", "nats", "same top token", "| boolq | 1 |", "| all | 2 |"):
        assert words in out
        assert words not in err
    assert "asking boolq: 1 questions" in err


def test_without_a_reference_its_lines_are_not_there(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, bundle, "--text", tmp_path / "text.txt")
    assert [line.split("  ")[0] for line in out.splitlines()] == ["predicted tokens", "perplexity"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("bundle",), 2, "give --text FILE or --task FILE"),
        (("nothing", "--text", "text.txt"), 31, "no such folder"),
        (("bundle", "--text", "nothing.txt"), 2, "there is no such file"),
        (("bundle", "--task", "text.txt"), 4, "line 1 is not JSON"),
        (("bundle", "--task", "boolq.jsonl", "--shots", "1"), 4, "too few for 1 examples"),
    ],
)
@pytest.mark.usefixtures("bundle")
def test_an_error_is_one_line_and_a_code(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [word if word.startswith("--") or word.isdigit() else str(tmp_path / word) for word in arguments]
    found, out, err = run(capsys, *paths)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert found == code
    assert said in line
    assert out == ""


def test_help_lists_every_kind_of_task(capsys: pytest.CaptureFixture[str]) -> None:
    from export.evaluate.questions import KINDS

    _, out, _ = run(capsys, "--help")
    for kind in KINDS.values():
        assert any(all(field in line for field in kind.fields) for line in out.splitlines())


def test_strategies_are_compared(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (bundle, "--task", tmp_path / "boolq.jsonl", "--reasoning-tokens", "3")
    _, out, _ = run(capsys, *words, "--strategy", "direct, step-by-step,direct", "--json")
    rows = json.loads(out)["strategies"]
    assert [row["strategy"] for row in rows] == ["direct", "step-by-step"]
    assert {"score", "tokens_per_answer"} <= set(rows[0])
    assert rows[1]["tokens_per_answer"] <= rows[0]["tokens_per_answer"] + 3
    _, out, _ = run(capsys, *words, "--strategy", "auto")
    assert "| auto | 1 |" in out


def test_strategies_of_the_users_own_are_known(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path))
    (tmp_path / "strategies.toml").write_text('[strategy.mine]\ndescription = "d"\n', encoding="utf-8")
    code, out, _ = run(capsys, bundle, "--task", tmp_path / "boolq.jsonl", "--strategy", "mine", "--json")
    assert code == 0
    assert json.loads(out)["strategies"][0]["strategy"] == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "boolq.jsonl", "--strategy", "dirct"), "--strategy: There is no strategy 'dirct'. Did you mean"),
        (("--task", "boolq.jsonl", "--strategy", ""), "There is no strategy ''"),
        (("--text", "text.txt", "--strategy", "direct"), "give --task FILE"),
    ],
)
def test_a_wrong_strategy_is_a_wrong_command(
    words: tuple[str, ...], said: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(tmp_path / word) if "." in word else word for word in words]
    code, _, err = run(capsys, bundle, *paths)
    assert code == 2
    assert said in err
