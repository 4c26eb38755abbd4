"""`Model`: a bundle in this process."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_agent import EmbeddingModel, Model
from device_agent.engine.records import Generation, Grammar, Sampling
from edgekit.chat import Message
from edgekit.errors import (
    ContextOverflow,
    CorruptBundle,
    InvalidRequest,
    NotABundle,
    ShuttingDown,
    UnsafePath,
    UsageError,
)
from tests.device_agent.bundles import (
    CONCAT,
    CONTEXT,
    ENCODER,
    FILES,
    NO_END,
    TINY,
    copy_to,
    edit,
    seal,
    tokens_when_idle,
)
from tests.imports import ROOT

ENDLESS = Sampling(temperature=0.0, logit_bias=NO_END)
QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.open(TINY, threads=1) as opened:
        yield opened


def joined(pieces: Iterator[str]) -> str:
    return "".join(pieces)


def test_it_knows_what_it_runs(model: Model) -> None:
    assert model.manifest.name == "tiny-llama"
    assert model.context_tokens == CONTEXT
    assert model.loaded_at > 1_700_000_000


def test_text_comes_in_pieces_and_is_the_same_each_time(model: Model) -> None:
    pieces = list(model.generate("hello the", max_tokens=30))
    assert len(pieces) > 5
    assert all(pieces)
    assert "".join(pieces) == joined(model.generate("hello the", max_tokens=30))


def test_an_answer_is_cut_at_max_tokens(model: Model) -> None:
    pieces = list(model.submit(Generation(prompt=model.text_prompt("the"), sampling=ENDLESS, max_tokens=7)))
    assert pieces[-1].finish == "length"
    assert sum(len(piece.tokens) for piece in pieces) == 7


def test_a_chat_is_the_continuation_of_the_rendered_template(model: Model) -> None:
    prompt = model.chat_prompt([Message(role="user", content="hello")])
    pieces = model.submit(Generation(prompt=prompt, max_tokens=20))
    assert joined(model.chat(QUESTION, max_tokens=20)) == "".join(piece.text for piece in pieces)
    assert joined(model.chat([Message(role="user", content="hello")], max_tokens=20)) == joined(
        model.chat(QUESTION, max_tokens=20)
    )


@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_text_before_it(model: Model, as_list: bool) -> None:
    whole = joined(model.generate("hello", max_tokens=40, sampling=ENDLESS))
    stop = whole[10:12]
    stops = [stop, "never said"] if as_list else stop
    assert joined(model.generate("hello", max_tokens=40, sampling=ENDLESS, stop=stops)) == whole[: whole.index(stop)]


def test_a_seed_repeats_a_draw_and_another_does_not(model: Model) -> None:
    def draw(seed: int) -> str:
        return joined(model.generate("hello", max_tokens=30, sampling=Sampling(temperature=1.0, seed=seed)))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_nothing_is_computed_for_pieces_that_nobody_asks_for(model: Model) -> None:
    before = tokens_when_idle(model)
    model.generate("hello", sampling=ENDLESS)
    assert not model.busy
    assert model.waiting == 0
    assert tokens_when_idle(model) == before


def test_closing_an_answer_stops_the_model(model: Model) -> None:
    before = tokens_when_idle(model)
    pieces = model.generate("hello", sampling=ENDLESS)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator, promised as an iterator
    assert tokens_when_idle(model) - before < CONTEXT // 2


def test_forgetting_an_answer_stops_the_model(model: Model) -> None:
    before = tokens_when_idle(model)
    for _ in model.generate("hello", sampling=ENDLESS):
        break
    assert tokens_when_idle(model) - before < CONTEXT // 2


def test_two_threads_get_their_own_answers(model: Model) -> None:
    prompts = ["hello", "and the end"]
    alone = [joined(model.generate(prompt, max_tokens=60)) for prompt in prompts]
    together: dict[str, str] = {}

    def run(prompt: str) -> None:
        together[prompt] = joined(model.generate(prompt, max_tokens=60))

    threads = [threading.Thread(target=run, args=[prompt]) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[prompt] for prompt in prompts] == alone


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(model: Model) -> None:
    with pytest.raises(ContextOverflow) as refused:
        next(model.generate("x " * CONTEXT))
    assert refused.value.context_tokens == CONTEXT
    assert refused.value.prompt_tokens > CONTEXT


def test_an_answer_may_fill_the_context_through_every_growth_of_the_cache(model: Model) -> None:
    pieces = list(model.submit(Generation(prompt=model.text_prompt("hello"), sampling=ENDLESS)))
    assert pieces[-1].finish == "length"
    assert sum(len(piece.tokens) for piece in pieces) == CONTEXT - len(model.text_prompt("hello"))


@pytest.mark.parametrize("message", [{"role": "user"}, {"content": "hello"}, {"role": "user", "content": 1}])
def test_something_that_is_no_message_is_refused(model: Model, message: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="role"):
        model.chat([message])


# --- other kinds of bundles -----------------------------------------------------------------


def test_a_bundle_with_a_copied_cache_generates_and_chats() -> None:
    with Model.open(CONCAT, threads=1) as opened:
        text = joined(opened.generate("hello the", max_tokens=20))
        assert text
        assert text == joined(opened.generate("hello the", max_tokens=20))
        assert joined(opened.chat(QUESTION, max_tokens=5))


def test_texts_become_vectors_in_their_order() -> None:
    encoder = EmbeddingModel.open(ENCODER, threads=1)
    texts = ["hello the end", "and", "", "a much longer text about nothing at all"]
    vectors = encoder.embed(texts)
    assert vectors.shape == (4, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert float(encoder.embed([text])[0] @ vector) > 0.9999
    assert encoder.embed([]).shape == (0, 64)
    assert encoder.manifest.task == "embed"


def test_a_text_that_is_too_long_is_refused_or_cut() -> None:
    encoder = EmbeddingModel.open(ENCODER, threads=1)
    with pytest.raises(ContextOverflow):
        encoder.embed(["x" * 100])
    assert encoder.embed(["x" * 100], truncate=True).shape == (1, 64)


def test_one_text_is_not_a_list_of_texts() -> None:
    with pytest.raises(InvalidRequest, match="list of texts"):
        EmbeddingModel.open(ENCODER, threads=1).embed("hello")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_an_encoder_with_a_changed_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = copy_to(tmp_path, ENCODER)
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(CorruptBundle, match=re.escape(name)):
        EmbeddingModel.open(folder)


def test_a_bundle_of_the_other_kind_says_what_to_use() -> None:
    with pytest.raises(UsageError, match="edgekit embed"):
        Model.open(ENCODER)
    with pytest.raises(UsageError, match="edgekit generate"):
        EmbeddingModel.open(TINY)


# --- opening and closing --------------------------------------------------------------------


def test_no_folder_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotABundle):
        Model.open(tmp_path / "nothing")


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(CorruptBundle, match=re.escape(name)):
        Model.open(folder)


def test_a_tokenizer_that_would_cut_or_fill_texts_does_not(tmp_path: Path, model: Model) -> None:
    folder = copy_to(tmp_path)
    file = folder / "tokenizer.json"
    wish = {
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
        },
    }  # fmt: skip
    file.write_text(json.dumps(json.loads(file.read_bytes()) | wish), encoding="utf-8")
    seal(folder)
    with Model.open(folder, threads=1) as wished:
        assert wished.text_prompt("hello the hello the") == model.text_prompt("hello the hello the")


def test_a_changed_tokenizer_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    size = (folder / "tokenizer.json").stat().st_size
    (folder / "tokenizer.json").write_bytes(b"{" * size)
    with pytest.raises(CorruptBundle, match="SHA-256"):
        Model.open(folder)


def test_a_link_is_refused(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(TINY / "tokenizer.json")
    with pytest.raises(UnsafePath):
        Model.open(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("tokenizer.json", b"{}"), ("chat_template.jinja", b"{% for %}"), ("chat_template.jinja", b"\xff\xfe")],
)
def test_text_files_that_are_none_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = copy_to(tmp_path)
    (folder / name).write_bytes(content)
    seal(folder)
    with pytest.raises(CorruptBundle, match=name):
        Model.open(folder)


def test_a_bundle_without_a_chat_template_still_answers(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)

    def drop(manifest: dict[str, list[dict[str, str]]]) -> None:
        manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != "chat_template.jinja"]

    edit(folder, drop)
    with Model.open(folder) as opened:
        assert opened.chat_prompt([Message(role="user", content="hello")]) == opened.text_prompt("hello\n")


def test_it_knows_its_tokens(model: Model) -> None:
    end = model.manifest.tokens.eos[0]
    assert model.token_id("<|im_end|>") == end
    assert model.token_id("hello") is None
    ids = model.text_prompt("hello ü")
    assert b"".join(map(model.token_bytes, ids)).decode() == "hello ü"
    assert model.text_of([*ids, end]) == "hello ü<|im_end|>"


def test_the_template_is_the_bundles(model: Model) -> None:
    assert model.template == (TINY / "chat_template.jinja").read_text(encoding="utf-8")


def test_an_answer_follows_its_grammar_and_says_how_likely_it_was(model: Model) -> None:
    told = threading.Semaphore(0)
    generation = Generation(
        prompt=model.text_prompt("hello"), grammar=Grammar("regex", "[ab]{6}"), top_logprobs=2, prompt_logprobs=True
    )
    answer = model.submit(generation, on_piece=told.release)
    first, *pieces = answer
    assert [each.id for each in first.prompt_logprobs] == list(generation.prompt)
    assert re.fullmatch("[ab]{6}", "".join(piece.text for piece in pieces))
    assert all(len(piece.logprobs) == len(piece.tokens) for piece in pieces)
    assert all(told.acquire(blocking=False) for _ in (first, *pieces))


def test_special_tokens_may_be_shown(model: Model) -> None:
    end = model.manifest.tokens.eos[0]
    call = next(token for token in (0, 1, 2) if token not in model.manifest.tokens.eos)
    grammar = Grammar("lark", f'start: "a" <[{call}]> "b" <[{end}]>')
    for shown, expected in ((frozenset({call}), f"a{model.text_of([call])}b"), (frozenset[int](), "ab")):
        found = list(model.submit(Generation(prompt=(5,), grammar=grammar, shown=shown)))
        assert "".join(piece.text for piece in found) == expected


def test_closing_ends_what_tries_grammars() -> None:
    with Model.open(TINY, threads=1) as closed:
        list(closed.submit(Generation(prompt=(5,), grammar=Grammar("regex", "a"))))
        process = closed._grammars._trials._process
    assert process
    assert process.returncode is not None


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(UsageError):
        Model.open(TINY, threads=0)


def test_a_closed_model_takes_no_requests_and_closes_again() -> None:
    opened = Model.open(TINY)
    opened.close()
    opened.close()
    with pytest.raises(ShuttingDown):
        next(opened.generate("hello"))


def test_closing_ends_a_running_answer() -> None:
    opened = Model.open(TINY)
    pieces = opened.generate("hello", sampling=ENDLESS)
    next(pieces)
    opened.close()
    list(pieces)
    assert tokens_when_idle(opened) < CONTEXT // 2


def test_closing_can_let_a_running_answer_finish() -> None:
    opened = Model.open(TINY)
    answer = opened.submit(Generation(prompt=opened.text_prompt("hello"), sampling=ENDLESS, max_tokens=50))
    opened.close(finish=True)
    assert [piece.finish for piece in answer][-1] == "length"


def test_the_readme_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    (example,) = [code for code in examples if "device_agent" in code]
    shutil.copytree(TINY, tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out
