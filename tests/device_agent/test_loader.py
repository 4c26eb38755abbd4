"""What a loader adds to an opened bundle: INT8 weights for prompts, guesses of another model, prompts read ahead."""

import gc
import json
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device_agent import Model
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.records import EngineSettings, Generation, Piece, PrefillMode, Timings
from device_agent.loader import Loader
from edgekit.bundle import open_bundle
from edgekit.chat import Message
from edgekit.errors import UsageError
from tests.device_agent.bundles import CONCAT, CONTEXT, TINY, TWIN, VOCAB, copy_to, edit, seal
from tests.device_agent.test_model import ENDLESS

PROMPT = tuple((31 * i + 7) % VOCAB for i in range(CONTEXT // 2))
SYSTEM = "hello the hello the hello the hello the hello the hello the hello the hello the"


def loader_of(folder: Path, state: Path | None, prefill: PrefillMode = "int8") -> Loader:
    return Loader(open_bundle(folder), EngineSettings(threads=1, prefill=prefill), state)


def opened(loader: Loader) -> OnnxRows:
    _, rows = loader.first()
    assert isinstance(rows, OnnxRows)
    return rows


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


# --- INT8 weights for prompts -----------------------------------------------------------------


def test_prompts_are_read_with_unpacked_weights_and_say_nearly_the_same(state: Path) -> None:
    loader = loader_of(TWIN, state)
    rows = opened(loader)
    plain = rows.read(0, PROMPT)[0].copy()
    loader.complete(rows)
    assert rows.prompt is not None
    rows.truncate(0, 0)
    found = rows.read(0, PROMPT)[0]
    loader.close()
    assert not np.array_equal(found, plain)
    assert np.corrcoef(found, plain)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("folder", "given", "prefill"),
    [(TWIN, False, "int8"), (TWIN, True, "int4"), (TINY, True, "int8"), (CONCAT, True, "int8")],
    ids=["no folder to unpack into", "not wanted", "a bundle without it", "a graph of another exporter"],
)
def test_otherwise_the_decoder_reads_prompts(folder: Path, given: bool, prefill: PrefillMode, state: Path) -> None:
    loader = loader_of(folder, state if given else None, prefill)
    _, rows = loader.first()
    loader.complete(rows)
    loader.close()
    assert not isinstance(rows, OnnxRows) or rows.prompt is None
    assert not (state / "cache" / "prefill").exists()


def test_rows_that_were_opened_again_get_them_again(state: Path) -> None:
    loader = loader_of(TWIN, state)
    loader.complete(opened(loader))
    attached = threading.Event()

    def between_steps(chore: Callable[[], None]) -> None:
        chore()
        attached.set()

    loader.improve(opened(loader), between_steps)
    assert attached.wait(60)
    attached.clear()
    again = loader.open(2)
    assert attached.wait(60)
    loader.close()
    assert isinstance(again, OnnxRows)
    assert again.prompt is not None


def test_rows_that_were_left_are_not_kept_in_memory(state: Path) -> None:
    loader = loader_of(TWIN, state)
    rows = opened(loader)
    loader.complete(rows)
    known = weakref.ref(rows)
    del rows
    gc.collect()
    assert known() is None
    loader.close()


def test_a_closed_loader_unpacks_nothing_more(state: Path) -> None:
    loader = loader_of(TWIN, state)
    loader.complete(opened(loader))
    loader.close()
    rows = loader.open(1)
    assert isinstance(rows, OnnxRows)
    assert rows.prompt is None


# --- guesses of another model -----------------------------------------------------------------


def tokens_of(pieces: Iterator[Piece]) -> tuple[list[int], Timings]:
    found = list(pieces)
    timings = found[-1].timings
    assert timings is not None
    return [token for piece in found for token in piece.tokens], timings


def test_a_draft_model_guesses_and_changes_nothing() -> None:
    generation = Generation(prompt=PROMPT[:8], sampling=ENDLESS, max_tokens=40)
    with Model.open(TINY, threads=1, engine=EngineSettings(guess=False)) as plain:
        expected, _ = tokens_of(iter(plain.submit(generation)))
    with Model.open(TINY, threads=1, engine=EngineSettings(draft=TINY)) as guessing:
        found, timings = tokens_of(iter(guessing.submit(generation)))
    assert found == expected
    assert timings.drafted >= timings.accepted


def test_a_draft_model_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    other = copy_to(tmp_path)
    tokenizer = json.loads((other / "tokenizer.json").read_bytes())
    vocab = tokenizer["model"]["vocab"]
    one, another = list(vocab)[100:102]
    vocab[one], vocab[another] = vocab[another], vocab[one]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    seal(other)
    with pytest.raises(UsageError, match="tokenizers"):
        Model.open(TINY, threads=1, engine=EngineSettings(draft=other))


# --- prompts read ahead -----------------------------------------------------------------------


def chat(model: Model) -> Timings:
    prompt = model.chat_prompt([Message(role="system", content=SYSTEM), Message(role="user", content="the")])
    return tokens_of(iter(model.submit(Generation(prompt=prompt, max_tokens=3))))[1]


def until_saved(state: Path) -> None:
    for thread in threading.enumerate():
        if thread.name == "read-ahead":
            thread.join()
    assert list((state / "cache" / "warm").glob("*.kv"))


def test_a_system_prompt_is_read_once_and_known_after_a_restart(state: Path) -> None:
    with Model.open(TINY, threads=1, state=state) as first:
        first.read_ahead(SYSTEM)
        until_saved(state)
        known = chat(first).cached_tokens
    assert known > 16
    with Model.open(TINY, threads=1, state=state) as second:
        second.read_ahead(SYSTEM)
        assert chat(second).cached_tokens == known
        assert second.state().read_tokens < known


def test_a_changed_bundle_reads_its_system_prompt_anew(state: Path, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    with Model.open(folder, threads=1, state=state) as first:
        first.read_ahead(SYSTEM)
        until_saved(state)
    edit(folder, lambda manifest: manifest.update(version="2"))
    with Model.open(folder, threads=1, state=state) as second:
        second.read_ahead(SYSTEM)
        until_saved(state)
        assert second.state().read_tokens > 0
    assert len(list((state / "cache" / "warm").glob("*.kv"))) == 2


def test_without_a_folder_a_system_prompt_is_read_and_not_saved() -> None:
    with Model.open(TINY, threads=1) as model:
        model.read_ahead(SYSTEM)
        for thread in threading.enumerate():
            if thread.name == "read-ahead":
                thread.join()
        assert chat(model).cached_tokens > 16


def test_a_template_that_writes_no_system_prompt_has_nothing_to_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_to(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
    seal(folder)
    with caplog.at_level(logging.WARNING), Model.open(folder, threads=1) as model:
        model.read_ahead(SYSTEM)
        assert model.state().read_tokens == 0
    assert "nothing to read ahead" in caplog.text
