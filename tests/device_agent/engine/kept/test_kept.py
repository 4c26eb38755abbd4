"""What was read once is not read again, whoever asks, and what is kept for that stays within its bounds."""

import numpy as np
import pytest

from device_agent.engine.rows import Snapshot
from device_agent.engine.scheduling.turns import Pace
from tests.device_agent.engine.batches import alone, asked, batch_over, finish, ids_of, joined, last_of, text
from tests.device_agent.engine.scripted import FakeRows, hashed


def test_the_next_turn_of_a_chat_reads_only_what_is_new_and_copies_nothing() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows)
    known, chat = asked(batch, text(1, 200))
    assert known == 0
    for turn in range(3):
        before = len(chat)
        known, chat = asked(batch, [*chat, *text(turn, 20)])
        assert known == before - 1, "the last token of an answer was never read"
    assert rows.copies == 0
    assert [row for row in range(4) if rows.length(row)] == [0]


def test_the_same_prompt_again_reads_its_last_token_only() -> None:
    batch = batch_over(FakeRows(hashed))
    asked(batch, text(1, 100))
    assert asked(batch, text(1, 100))[0] == 99


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_chats_that_take_turns_are_all_still_known(slots: int) -> None:
    rows = FakeRows(hashed, most_rows=slots)
    batch = batch_over(rows, slots=slots)
    chats = {n: asked(batch, text(n, 100))[1] for n in range(6)}
    for n, chat in chats.items():
        assert asked(batch, [*chat, *text(50 + n, 10)])[0] == len(chat) - 1


def test_a_shared_beginning_is_copied_and_the_text_that_had_it_stays() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows)
    system = text(0, 100)
    _, first = asked(batch, [*system, 1, *text(1, 60)])
    assert asked(batch, [*system, 2, *text(2, 60)])[0] == 100
    assert asked(batch, [*first, 7])[0] == len(first) - 1


def test_a_short_shared_beginning_is_not_worth_a_copy() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows)
    asked(batch, [*text(0, 20), 1, *text(1, 60)])
    assert asked(batch, [*text(0, 20), 2, *text(2, 60)])[0] == 0
    assert rows.copies == 0


def test_a_running_request_lends_what_it_has_read() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows)
    system = text(0, 100)
    (first,) = joined(batch, [*system, 1], max_tokens=50)
    for _ in range(5):
        batch.step()
    (second,) = joined(batch, [*system, 2, 3])
    finish(batch)
    assert (ids_of(first), ids_of(second)) == (alone(first), alone(second))
    assert batch.counters.cached == 100


def test_a_beginning_that_several_want_at_once_is_read_once() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows, pace=Pace(chunk_tokens=16))
    system = text(0, 200)
    jobs = joined(batch, *([*system, n, *text(n, 9)] for n in range(1, 5)))
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert batch.counters.read <= 200 + 4 * 10
    assert batch.counters.cached == 3 * 200


def test_whoever_waits_for_a_beginning_goes_on_when_its_reader_is_cancelled() -> None:
    batch = batch_over(FakeRows(hashed), pace=Pace(chunk_tokens=16))
    system = text(0, 200)
    first, second, third = joined(batch, *([*system, n, *text(n, 10)] for n in range(3)))
    batch.step()
    batch.step()
    first.cancelled.set()
    finish(batch)
    assert last_of(first).finish == "cancelled"
    assert (ids_of(second), ids_of(third)) == (alone(second), alone(third))


def test_what_a_cancelled_request_has_read_is_known_afterwards() -> None:
    batch = batch_over(FakeRows(hashed), pace=Pace(chunk_tokens=50))
    (job,) = joined(batch, text(1, 500))
    batch.step()
    batch.step()
    job.cancelled.set()
    finish(batch)
    assert asked(batch, text(1, 500))[0] == 100


def test_with_no_bytes_to_keep_nothing_is_known_of_anybody() -> None:
    batch = batch_over(FakeRows(hashed), prefix_bytes=0)
    _, chat = asked(batch, text(1, 100))
    assert batch.kept == (0, 0)
    jobs = joined(batch, chat, chat)
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert batch.counters.cached == 0


def test_kept_texts_stay_within_their_bytes_and_the_newest_is_always_known() -> None:
    batch = batch_over(FakeRows(hashed), prefix_bytes=8 * 250)
    for n in range(6):
        _, chat = asked(batch, text(n, 100))
        assert asked(batch, [*chat, 1])[0] == len(chat) - 1
        assert batch.kept[1] <= 8 * (250 + 110)
    assert asked(batch, text(4, 100))[0] == 99
    assert asked(batch, text(0, 100))[0] == 0


def test_texts_go_on_in_their_own_rows_however_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = FakeRows(hashed, most_rows=8)
    batch = batch_over(rows, slots=8)
    chats = [asked(batch, text(n, 60))[1] for n in range(8)]

    def refused(*_: int) -> Snapshot:
        raise AssertionError("nothing is to be copied")

    monkeypatch.setattr(rows, "snapshot", refused)
    jobs = joined(batch, [*chats[6], 1], [*chats[1], 1], [*chats[3], 1], max_tokens=20)
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert batch.counters.cached == sum(len(chats[n]) for n in (6, 1, 3)) - 3


@pytest.mark.parametrize("broken", ["snapshot", "restore"])
def test_a_copy_that_cannot_be_made_costs_time_and_nothing_else(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = FakeRows(hashed, most_rows=1)
    batch = batch_over(rows, slots=1)
    chats = [asked(batch, text(n, 100))[1] for n in range(3)]

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(rows, broken, fail)
    for chat in chats:
        asked(batch, [*chat, 1])
    assert "no room" in caplog.text


def test_a_prepared_beginning_is_known_to_every_request_and_never_leaves() -> None:
    source = FakeRows(hashed)
    source.read(0, text(0, 100))
    batch = batch_over(FakeRows(hashed), prefix_bytes=8 * 220)
    batch.pin(text(0, 100), source.snapshot(0, 100))
    for n in range(1, 8):
        assert asked(batch, [*text(0, 100), n, *text(n, 50)])[0] == 100
    assert batch.kept[0] > 1


def test_a_snapshot_of_another_model_is_not_used() -> None:
    batch = batch_over(FakeRows(hashed))
    batch.pin(text(0, 100), Snapshot(100, (np.zeros((2, 100, 3)),)))
    assert asked(batch, [*text(0, 100), 1])[0] == 0
