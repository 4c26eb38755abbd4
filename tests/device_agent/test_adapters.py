"""Adapters of an open model: chosen by request, added and removed while it runs, and read as if by an enemy."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_agent import Model
from device_agent.adapters import Adapters, read
from device_agent.engine.records import EngineSettings, Generation, Sampling
from edgekit import contract
from edgekit.adapter import open_adapter
from edgekit.bundle import open_bundle
from edgekit.errors import CorruptBundle, EdgekitError, InvalidRequest, WrongBase
from tests.device_agent.bundles import ADAPTABLE, COLD, NO_END, TINY, WARM
from tests.device_agent.hostile_adapters import copy_of, rewrite, seal, tensors_of, write_tensors

BASE = open_bundle(ADAPTABLE)
NAMES = (None, "warm", "cold")
PROMPT = tuple(range(3, 120))
PLAIN = EngineSettings(threads=1, slots=1, prefix_bytes=0, guess=False)


def generation(adapter: str | None, prompt: tuple[int, ...] = PROMPT) -> Generation:
    sampling = Sampling(temperature=0.0, logit_bias=NO_END)
    return Generation(prompt=prompt, max_tokens=24, sampling=sampling, adapter=adapter)


def ids_of(model: Model, *adapters: str | None) -> list[list[int]]:
    """Answers to the same prompt, asked for at once."""
    answers = [model.submit(generation(adapter)) for adapter in adapters]
    return [[token for piece in answer for token in piece.tokens] for answer in answers]


@pytest.fixture(scope="module")
def expected() -> dict[str | None, list[int]]:
    """Each answer as a model gives it that has nothing else to do, and of which no text is kept."""
    with Model.open(ADAPTABLE, engine=PLAIN, adapters=(WARM, COLD)) as model:
        found = {name: ids_of(model, name)[0] for name in NAMES}
    with Model.open(ADAPTABLE, engine=PLAIN) as model:
        assert ids_of(model, None) == [found[None]]
    assert len({tuple(ids) for ids in found.values()}) == 3
    return found


@pytest.fixture
def model() -> Iterator[Model]:
    with Model.open(ADAPTABLE, adapters=(WARM, COLD), engine=EngineSettings(threads=1, slots=4)) as opened:
        yield opened


def test_requests_at_once_get_what_each_gets_alone(model: Model, expected: dict[str | None, list[int]]) -> None:
    assert ids_of(model, *NAMES, *NAMES) == [expected[name] for name in (*NAMES, *NAMES)]


def test_what_one_adapter_has_read_is_never_another_s(model: Model, expected: dict[str | None, list[int]]) -> None:
    for name in (*NAMES, *reversed(NAMES), *NAMES):
        assert ids_of(model, name) == [expected[name]]
    assert model.state().cached_tokens >= 5 * (len(PROMPT) - 1), "and each finds its own again"


def test_one_thread_or_two_and_a_model_that_was_left(model: Model, expected: dict[str | None, list[int]]) -> None:
    ids_of(model, "warm")
    model.engine.set_threads(2)
    assert ids_of(model, *NAMES) == [expected[name] for name in NAMES]


def test_adapters_come_and_go_while_the_model_runs(expected: dict[str | None, list[int]]) -> None:
    with Model.open(ADAPTABLE, engine=PLAIN) as model:
        assert model.adapters == []
        with pytest.raises(InvalidRequest, match="no adapter 'warm'") as caught:
            model.submit(generation("warm"))
        assert caught.value.param == "model"
        assert ids_of(model, None) == [expected[None]]
        running = model.submit(generation(None))
        added = model.add_adapter(WARM)
        assert (added.name, model.adapters) == ("warm", ["warm"])
        assert [manifest.base.name for manifest in model.adapter_manifests()] == ["tiny-llama"]
        assert ids_of(model, "warm", None) == [expected["warm"], expected[None]]
        assert [token for piece in running for token in piece.tokens] == expected[None]
        ends = model.submit(generation("warm"))
        model.remove_adapter("warm")
        assert [token for piece in ends for token in piece.tokens] == expected["warm"], "who had it keeps it"
        assert model.adapters == []
        for refused in (lambda: model.submit(generation("warm")), lambda: model.remove_adapter("warm")):
            with pytest.raises(InvalidRequest, match="no adapter"):
                refused()
        assert ids_of(model, None) == [expected[None]]


def test_an_adapter_of_the_same_name_takes_the_place(
    model: Model, expected: dict[str | None, list[int]], tmp_path: Path
) -> None:
    assert ids_of(model, "warm") == [expected["warm"]]
    other = copy_of(COLD, tmp_path)
    rewrite(other, lambda manifest: manifest.update(name="warm", version="2"))
    assert model.add_adapter(other).version == "2"
    assert model.adapters == ["cold", "warm"]
    assert ids_of(model, "warm") == [expected["cold"]]


def test_an_adapter_that_cannot_be_read_leaves_no_model_open(tmp_path: Path) -> None:
    folder = copy_of(WARM, tmp_path)
    (folder / contract.ADAPTER_WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(CorruptBundle):
        Model.open(ADAPTABLE, adapters=(COLD, folder))


def test_a_model_that_takes_none_says_so() -> None:
    with Model.open(TINY, threads=1) as model, pytest.raises(WrongBase, match="takes no adapters"):
        model.add_adapter(WARM)


def test_there_is_an_end_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.adapters.MOST_ADAPTERS", 1)
    adapters = Adapters(BASE)
    adapters.add(WARM)
    adapters.add(WARM)
    with pytest.raises(InvalidRequest, match="already"):
        adapters.add(COLD)


# --- files made by an enemy -----------------------------------------------------------------

Tensors = dict[str, NDArray[Any]]
A, B = contract.lora_names("layers.0.qkv")


def with_value(value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[A][3, 1] = value

    return change


def turned(tensors: Tensors) -> None:
    tensors[A] = tensors[A].T


def renamed(tensors: Tensors) -> None:
    tensors["input_ids"] = tensors.pop(A)


def halves(tensors: Tensors) -> None:
    tensors[A] = np.concatenate([tensors[A].astype(np.float16)] * 2).reshape(*tensors[A].shape, 2)


def integers(tensors: Tensors) -> None:
    tensors[A] = tensors[A].astype(np.int32)


def wider(tensors: Tensors) -> None:
    tensors[A], tensors[B] = np.zeros((64, 9), np.float32), np.zeros((7, 128), np.float32)


HOSTILE: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "not a number": (with_value(np.nan), "no numbers"),
    "infinite": (with_value(np.inf), "no numbers"),
    "turned": (turned, "not float32"),
    "another input of the graph": (renamed, "does not hold the tensors"),
    "halves": (halves, "not float32"),
    "integers": (integers, "not float32"),
    "another rank": (wider, "not float32"),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_tensors_are_held_against_the_manifest(change: Callable[[Tensors], None], words: str, tmp_path: Path) -> None:
    folder = copy_of(COLD, tmp_path)
    tensors = tensors_of(folder)
    change(tensors)
    write_tensors(folder, tensors)
    with pytest.raises(CorruptBundle, match=words):
        read(open_adapter(folder), BASE)


def test_a_tensor_may_not_be_larger_than_its_bytes(tmp_path: Path) -> None:
    folder = copy_of(COLD, tmp_path)
    path = folder / contract.ADAPTER_WEIGHTS_FILE
    raw = path.read_bytes()
    shape = struct.pack("<qq", *tensors_of(folder)[A].shape)
    assert shape in raw
    path.write_bytes(raw.replace(shape, struct.pack("<qq", 1 << 40, 8)))
    seal(folder)
    with pytest.raises(CorruptBundle, match="cannot read"):
        read(open_adapter(folder), BASE)


RAW = (COLD / contract.ADAPTER_WEIGHTS_FILE).read_bytes()


@given(damage=st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_tables_are_errors_and_nothing_worse(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    folder = copy_of(COLD, tmp_path_factory.mktemp("damaged"))
    raw = bytearray(RAW)
    for at, byte in damage:
        raw[at] = byte
    (folder / contract.ADAPTER_WEIGHTS_FILE).write_bytes(raw)
    seal(folder)
    try:
        lora = read(open_adapter(folder), BASE)
    except EdgekitError:
        return
    assert all(np.isfinite(array).all() for array in lora.tensors.values())
