"""The device's verbs as a person and a script meet them."""

import importlib.metadata
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from device_agent import EmbeddingModel, Model
from device_agent import cli as verbs
from device_agent.engine.records import Generation, Piece, Timings
from device_agent.engine.scheduling.answers import QueuedAnswer
from edgekit import cli
from edgekit.bundle import read_manifest
from edgekit.manifest import parse
from tests.device_agent.bundles import CONCAT, CONTEXT, ENCODER, INT8, TINY, copy_to, set_fields

VERBS = (
    *("inspect", "verify", "generate", "chat", "embed", "serve", "bench", "keys", "usage", "doctor"),
    *("enrol", "sync", "rollback", "pin"),
)
PROMPT = ("--prompt", "hello the", "--max-tokens", "12")


class Ran:
    """What a command printed, and its exit code."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Keyboard(io.TextIOWrapper):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


class Run:
    """Runs `edgekit` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str | Path, stdin: bytes = b"", typed: Sequence[str] | None = None) -> Ran:
        kind = io.TextIOWrapper if typed is None else Keyboard
        self._monkeypatch.setattr(sys, "stdin", kind(io.BytesIO(stdin), encoding="utf-8"))
        lines = iter(typed or ())
        self._monkeypatch.setattr("builtins.input", lambda _: next(lines))
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        return Ran(ended.value.code, *self._capsys.readouterr())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(capsys, monkeypatch)


# --- inspect and verify ---------------------------------------------------------------------


def test_inspect_shows_what_matters(run: Run) -> None:
    shown = run("inspect", TINY)
    assert shown.code == 0
    for words in ("tiny-llama 1", "llama, 2 layers, width 64", "2,048 tokens", "int4-b32", "model.onnx.data", "kl 0."):
        assert words in shown.out


def test_inspect_json_is_the_manifest(run: Run) -> None:
    shown = run("inspect", TINY, "--json")
    assert parse(shown.out.encode(), path="shown") == read_manifest(TINY)


def test_inspect_says_what_an_encoder_makes(run: Run) -> None:
    shown = run("inspect", ENCODER)
    assert shown.code == 0
    for words in ("64 values of length 1, pooled by mean", "64 tokens", "3 texts", "cosine 0."):
        assert words in shown.out
    assert "in use at" not in shown.out


def test_inspect_says_what_an_int8_cache_saves(run: Run) -> None:
    floats, codes = (run("inspect", folder).out for folder in (TINY, INT8))
    assert "in use at 2,048 tokens (int8 cache)" in codes
    assert "in use at 2,048 tokens\n" in floats


@pytest.mark.parametrize(
    "arguments",
    [("generate", *PROMPT), ("bench", "--prompt-tokens", "8", "--decode-tokens", "4", "--repetitions", "1")],
)
def test_an_int8_cache_serves_like_another(arguments: tuple[str, ...], run: Run) -> None:
    verb, *options = arguments
    assert run(verb, INT8, *options).code == 0


def test_inspect_says_what_is_not_known(run: Run, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    set_fields(quality={}, source__licence=None)(folder)
    shown = run("inspect", folder)
    assert "not measured" in shown.out
    assert "not stated" in shown.out


def test_verify_says_ok(run: Run) -> None:
    shown = run("verify", TINY)
    assert (shown.code, shown.out) == (0, f"ok  {TINY} is whole, loads, and gives its golden answers\n")
    assert json.loads(run("verify", TINY, "--json").out) == {"ok": True, "problems": []}


def test_verify_lists_problems_and_what_to_do(run: Run, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    (folder / "model.onnx.data").unlink()
    (folder / "MODEL_CARD.md").unlink()
    shown = run("verify", folder)
    assert shown.code == 33
    assert [line.split()[0] for line in shown.out.splitlines()] == ["bad", "bad"]
    assert "hint:" in shown.err


# --- generate -------------------------------------------------------------------------------


def test_generate_prints_the_text_and_its_speed_apart(run: Run) -> None:
    with Model.open(TINY) as model:
        text = "".join(model.generate("hello the", max_tokens=12))
    shown = run("generate", TINY, *PROMPT)
    assert (shown.code, shown.out) == (0, text + "\n")
    assert "12 tokens at" in shown.err
    assert run("generate", TINY, *PROMPT, "--raw").err == ""


def test_generate_json_has_the_promised_fields(run: Run) -> None:
    told = json.loads(run("generate", TINY, *PROMPT, "--json").out)
    assert set(told) == {"text", "tokens", "finish_reason", "usage", "timings"}
    assert told["text"] == run("generate", TINY, *PROMPT, "--raw").out[:-1]
    assert len(told["tokens"]) == 12
    assert told["finish_reason"] == "length"
    assert told["usage"]["completion_tokens"] == 12
    assert told["usage"]["total_tokens"] == told["usage"]["prompt_tokens"] + 12
    assert set(told["timings"]) == {"prompt_tokens_per_s", "decode_tokens_per_s", "time_to_first_token_s"}


def test_generate_reads_a_prompt_from_standard_input(run: Run) -> None:
    given = run("generate", TINY, "--prompt", "-", "--max-tokens", "12", "--raw", stdin=b"hello the")
    assert given.out == run("generate", TINY, *PROMPT, "--raw").out


def test_a_seed_makes_a_draw_repeatable(run: Run) -> None:
    draws = [run("generate", TINY, *PROMPT, "--temperature", "1.5", "--seed", seed, "--raw").out for seed in "112"]
    assert draws[0] == draws[1] != draws[2]


# --- chat -----------------------------------------------------------------------------------


def test_a_chat_remembers_its_turns_and_ends_with_its_input(run: Run) -> None:
    first = {"role": "user", "content": "hello"}
    with Model.open(TINY) as model:
        one = "".join(model.chat([first], max_tokens=9))
        turns = [first, {"role": "assistant", "content": one}, {"role": "user", "content": "and then"}]
        two = "".join(model.chat(turns, max_tokens=9))
    shown = run("chat", TINY, "--max-tokens", "9", stdin=b"hello\nand then\n")
    assert (shown.code, shown.out) == (0, f"{one}\n{two}\n")


def test_new_forgets_the_turns_and_keeps_the_system_message(run: Run) -> None:
    chat = ("chat", TINY, "--max-tokens", "9", "--system", "the end")
    alone = run(*chat, stdin=b"hello\n").out
    assert run(*chat, stdin=b"hello\n/new\nhello\n").out == alone * 2
    assert run(*chat[:-2], stdin=b"hello\n").out != alone


def test_an_empty_line_ends_a_chat(run: Run) -> None:
    assert run("chat", TINY, stdin=b"\nhello\n").out == ""


def test_a_looping_model_ends_its_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Generation] = []
    submit = Model.submit

    def overheard(model: Model, generation: Generation) -> QueuedAnswer:
        asked.append(generation)
        return submit(model, generation)

    monkeypatch.setattr(Model, "submit", overheard)
    run("chat", TINY, stdin=b"hello\n")
    assert [generation.max_tokens for generation in asked] == [1024]


def test_a_piped_turn_that_does_not_fit_fails(run: Run) -> None:
    shown = run("chat", TINY, stdin=b"x " * CONTEXT + b"\n")
    assert shown.code == 42
    assert "maximum context length is 2048" in shown.err


class Interrupted:
    """An answer that a person interrupts after its first piece; records.Answer as far as chat uses it."""

    def __init__(self) -> None:
        self.cancelled = False
        self._told = False

    def __iter__(self) -> Iterator[Piece]:
        if not self._told:
            self._told = True
            yield Piece(text="Par", tokens=(5,))
            if not self.cancelled:
                raise KeyboardInterrupt
        timings = Timings(prompt_tokens=1, prompt_s=0.1, generated_tokens=1, generate_s=0.1)
        yield Piece(text="", finish="cancelled" if self.cancelled else "stop", timings=timings)

    def cancel(self) -> None:
        self.cancelled = True


def test_ctrl_c_ends_an_answer_and_not_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Interrupted()

    class Asked:
        def submit(self, generation: Generation) -> Interrupted:
            return answer

    assert verbs._say(Asked(), Generation(prompt=(1,))) == "Par"  # type: ignore[arg-type]  # as much of a Model as it uses
    assert answer.cancelled
    assert capsys.readouterr().out == "Par\n"


def test_ctrl_c_at_the_prompt_exits_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "_ask", interrupted)
    assert run("chat", TINY).code == 130


def test_at_a_terminal_a_turn_that_does_not_fit_is_told_and_forgotten(run: Run) -> None:
    alone = run("chat", TINY, "--max-tokens", "5", typed=["hello", ""])
    shown = run("chat", TINY, "--max-tokens", "5", typed=["x " * CONTEXT, "hello", ""])
    assert shown.code == 0
    assert "maximum context length" in shown.err
    assert shown.out == alone.out


# --- bench ----------------------------------------------------------------------------------


def test_bench_json_has_the_promised_fields(run: Run) -> None:
    options = ["--json", "--prompt-tokens", "300", "--decode-tokens", "5", "--repetitions", "1", "--threads", "1"]
    shown = run("bench", TINY, *options)
    told = json.loads(shown.out)
    promised = (
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "time_to_first_token_s",
        "load_s",
        "rss_bytes",
        "threads",
    )
    assert all(told[name] > 0 for name in promised)
    assert told["prefill_tokens_per_s"] == pytest.approx(300 / told["time_to_first_token_s"])
    assert (told["prompt_tokens"], told["decode_tokens"], told["threads"], told["batch"]) == (300, 5, 1, 1)
    assert told["rss_start_bytes"] < told["rss_loaded_bytes"] <= told["rss_bytes"]
    assert told["against"] == []


def test_bench_shows_a_table(run: Run) -> None:
    shown = run("bench", TINY, "--prompt-tokens", "5", "--decode-tokens", "3", "--repetitions", "1")
    rows = [line.split("  ")[0] for line in shown.out.splitlines()]
    assert rows == ["prompt", "decode", "first token", "load", "memory", "bandwidth", "threads", "prompts by"]


def test_bench_compares_bundles_and_draws_them(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "speed.svg"
    options = ("--repetitions", "1", "--decode-tokens", "4", "--plot", picture)
    shown = run("bench", TINY, "--against", INT8, "--against", CONCAT, *options, "--json")
    told = json.loads(shown.out)
    assert [other["bundle"] for other in told["against"]] == [str(INT8), str(CONCAT)]
    assert all(ratio > 0 for other in told["against"] for ratio in other["ratios"]["decodes"])
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert "plot:" in run("bench", TINY, *options).out


# --- errors and help ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("inspect", "nowhere"), 31, "nowhere is not a bundle"),
        (("generate", "nowhere", "--prompt", "x"), 31, "nowhere is not a bundle"),
        (("chat", "nowhere"), 31, "nowhere is not a bundle"),
        (("serve", "nowhere"), 31, "nowhere is not a bundle"),
        (("bench", "nowhere"), 31, "nowhere is not a bundle"),
        (("generate", str(TINY), "--prompt", ""), 41, "prompt is empty"),
        (("generate", str(TINY), "--prompt", "x " * CONTEXT), 42, "maximum context length is 2048"),
        (("generate", str(TINY), "--prompt", "a\udcff"), 41, "not Unicode"),
        (("bench", str(TINY), "--prompt-tokens", "2048"), 2, "the model's context is 2048"),
        (("serve", str(TINY), "--host", "a..b"), 2, "cannot listen on"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    shown = run(*arguments)
    assert shown.code == code
    lines = [line for line in shown.err.splitlines() if not line.startswith(("hint:", "measuring"))]
    assert len(lines) == 1
    assert words in lines[0]
    assert shown.out == ""


def test_a_prompt_that_is_no_text_is_wrong_usage(run: Run) -> None:
    shown = run("generate", TINY, "--prompt", "-", stdin=b"\xff\xfe")
    assert shown.code == 2
    assert "not UTF-8" in shown.err


@pytest.mark.parametrize("arguments", [("--max-tokens", "0"), ("--temperature", "-1"), ("--threads", "0")])
def test_values_out_of_range_are_wrong_usage(run: Run, arguments: tuple[str, str]) -> None:
    assert run("generate", TINY, *PROMPT, *arguments).code == 2


# --- embed ----------------------------------------------------------------------------------


def test_embed_prints_a_line_of_numbers_for_each_text(run: Run) -> None:
    shown = run("embed", ENCODER, "hello the", "and")
    assert shown.code == 0
    rows = [[float(number) for number in line.split(" ")] for line in shown.out.splitlines()]
    assert [len(row) for row in rows] == [64, 64]
    assert abs(sum(value * value for value in rows[0]) - 1) < 1e-3


def test_embed_json_has_the_vectors_and_the_count_of_tokens(run: Run) -> None:
    shown = json.loads(run("embed", ENCODER, "hello the", "and", "--json").out)
    expected = EmbeddingModel.open(ENCODER).embed(["hello the", "and"])
    assert (shown["model"], shown["dimension"]) == ("tiny-bert", 64)
    assert np.allclose(shown["embeddings"], expected, atol=1e-5)
    tokens = EmbeddingModel.open(ENCODER).tokens
    assert shown["usage"] == {"prompt_tokens": len(tokens("hello the")) + len(tokens("and"))}


def test_embed_reads_lines_of_standard_input(run: Run) -> None:
    assert run("embed", ENCODER, "-", stdin=b"hello the\nand\n").out == run("embed", ENCODER, "hello the", "and").out


def test_embed_refuses_a_text_that_is_too_long_unless_it_may_cut_it(run: Run) -> None:
    refused = run("embed", ENCODER, "x" * 100)
    assert refused.code == 42
    assert "maximum context length is 64 tokens" in refused.err
    assert run("embed", ENCODER, "x" * 100, "--truncate").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", ENCODER, "--prompt", "x"),
        ("chat", ENCODER),
        ("bench", ENCODER),
        ("embed", TINY, "x"),
        ("embed", CONCAT, "x"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[1].name}",
)
def test_a_verb_that_the_bundle_is_not_for_names_the_one_to_use(run: Run, arguments: tuple[str | Path, ...]) -> None:
    shown = run(*arguments)
    assert shown.code == 2
    assert ("Use: edgekit generate" if arguments[0] == "embed" else "Use: edgekit embed") in shown.err
    assert shown.err.count("error:") == 1


@pytest.mark.parametrize(
    "arguments", [("generate", "--prompt", "hello", "--max-tokens", "4"), ("bench", "--repetitions", "1"), ("inspect",)]
)
def test_verbs_work_on_a_bundle_with_a_copied_cache(run: Run, arguments: tuple[str, ...]) -> None:
    verb, *options = arguments
    shown = run(verb, CONCAT, *options, "--json")
    assert shown.code == 0
    assert json.loads(shown.out)


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_an_example_that_names_the_verb(run: Run, verb: str) -> None:
    shown = run(verb, "--help")
    assert shown.code == 0
    assert f"edgekit {verb} " in shown.out.split("Example")[1]


def test_the_verbs_are_those_that_are_installed() -> None:
    installed = importlib.metadata.entry_points(group="edgekit.verbs")
    assert {entry.name for entry in installed if entry.value.startswith("device_agent")} == set(VERBS)


def test_golden_tokens_of_the_manifest_are_what_the_engine_gives() -> None:
    golden = read_manifest(TINY).golden[2]
    with Model.open(TINY) as model:
        pieces = list(model.submit(Generation(prompt=golden.prompt, max_tokens=golden.sure)))
    assert tuple(token for piece in pieces for token in piece.tokens) == golden.tokens[: golden.sure]
