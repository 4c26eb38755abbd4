"""Metrics as a monitor reads them, and the report of this machine."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from device_agent import sensors
from device_agent.http.services import Caller, Served
from device_agent.operations import Watch
from device_agent.sensors import Battery, Disk, Memory, Readings
from device_agent.shelf import Found, Shelf
from tests.device_agent.shelf.shelves import Loader, entry

SERVED = Served(
    at=0.0,
    caller=Caller(),
    dialect="chat",
    model="a",
    adapter=None,
    sha256="x",
    input_tokens=100,
    cached_tokens=40,
    output_tokens=11,
    first_token_s=0.3,
    total_s=1.3,
    finish="stop",
)
READINGS = Readings(
    memory=Memory(total_bytes=8, available_bytes=4, rss_bytes=2),
    disk=Disk(total_bytes=100, free_bytes=50),
    temperature_c=61.5,
    throttled=True,
    battery=Battery(percent=80.0, plugged=False),
)


@dataclass
class FakeLedger:
    trouble: str | None = None
    dropped: int = 0


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf(Found(entries=(entry("a"), entry("e", embeds=True))), Loader(), available=lambda: 1 << 30)
    shelf.start()
    yield shelf
    shelf.close()


def watch(shelf: Shelf, *, readings: Readings = READINGS, ledger: FakeLedger | None = None) -> Watch:
    return Watch(shelf, Path("/"), ledger=ledger, read_sensors=lambda _: readings)


def values(watch: Watch) -> dict[str, float]:
    """Samples by name and labels, as a monitor reads them."""
    body, media_type = watch.exposition("text/plain")
    assert media_type.startswith("text/plain; version=")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_requests_are_counted_by_model(shelf: Shelf) -> None:
    room = watch(shelf)
    room.note(SERVED)
    room.note(replace(SERVED, input_tokens=10, cached_tokens=0, output_tokens=1, total_s=0.3))
    room.note(replace(SERVED, first_token_s=None, output_tokens=0, cached_tokens=0, finish="cancelled"))
    found = values(room)
    assert found["edgekit_requests_total{finish=stop,model=a}"] == 2
    assert found["edgekit_requests_total{finish=cancelled,model=a}"] == 1
    assert found["edgekit_prompt_tokens_total{model=a}"] == 60 + 10 + 100
    assert found["edgekit_cached_tokens_total{model=a}"] == 40
    assert found["edgekit_generated_tokens_total{model=a}"] == 12
    assert found["edgekit_prompt_seconds_total{model=a}"] == pytest.approx(0.6)
    assert found["edgekit_generated_seconds_total{model=a}"] == pytest.approx(1.0)
    assert found["edgekit_tokens_max{model=a}"] == 111
    assert found["edgekit_time_to_first_token_seconds_count{model=a}"] == 2
    assert found["edgekit_time_per_output_token_seconds_count{model=a}"] == 1
    assert found["edgekit_time_per_output_token_seconds_sum{model=a}"] == pytest.approx(0.1)
    assert found["edgekit_request_duration_seconds_count{model=a}"] == 3
    assert found["edgekit_time_to_first_token_seconds_bucket{le=0.25,model=a}"] == 0
    assert found["edgekit_time_to_first_token_seconds_bucket{le=0.5,model=a}"] == 2
    assert not [name for name in found if "_created" in name]


def test_models_and_engines_are_gauges_and_what_they_did_is_counted_over_their_lives(shelf: Shelf) -> None:
    room = watch(shelf)
    shelf.lease("a").release()
    found = values(room)
    told = "kind=generate,model=a,quantisation=int4,sha256=1,version=1"
    assert found[f"edgekit_model_info{{{told}}}"] == 1
    assert found["edgekit_model_loaded{model=a}"] == 1
    assert found["edgekit_model_loaded{model=e}"] == 0
    assert found["edgekit_model_active{model=a}"] == 1
    assert found["edgekit_requests_processing{model=a}"] == 0
    assert found["edgekit_slots{model=a}"] == 4
    assert found["edgekit_drafted_tokens_total{model=a}"] == 2
    shelf.unload("a")
    after = values(room)
    assert "edgekit_slots{model=a}" not in after
    assert after["edgekit_drafted_tokens_total{model=a}"] == 2


def test_the_machine_is_told_and_what_is_not_known_is_left_out(shelf: Shelf) -> None:
    found = values(watch(shelf))
    assert found["edgekit_cpu_temperature_celsius"] == 61.5
    assert found["edgekit_cpu_throttled"] == 1
    assert found["edgekit_battery_ratio"] == 0.8
    assert found["edgekit_battery_plugged"] == 0
    assert found["edgekit_disk_free_bytes"] == 50
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert found["process_start_time_seconds"] > 1_000_000_000
    bare = replace(READINGS, disk=None, temperature_c=None, throttled=None, battery=None)
    left = values(watch(shelf, readings=bare))
    assert set(found) - set(left) == {
        "edgekit_cpu_temperature_celsius",
        "edgekit_cpu_throttled",
        "edgekit_battery_ratio",
        "edgekit_battery_plugged",
        "edgekit_disk_free_bytes",
    }


def test_health_and_the_ledgers_losses_are_metrics_too(shelf: Shelf) -> None:
    ledger = FakeLedger()
    room = watch(shelf, ledger=ledger)
    assert values(room)["edgekit_ledger_dropped_notes_total"] == 0
    assert values(room)["edgekit_ready"] == 1
    ledger.trouble, ledger.dropped = "disk full", 7
    assert room.health().reasons == ("the ledger of tokens cannot be written",)
    found = values(room)
    assert found["edgekit_ledger_dropped_notes_total"] == 7
    assert (found["edgekit_ready"], found["edgekit_healthy"]) == (1, 0)
    room.stop()
    assert values(room)["edgekit_ready"] == 0


def test_responses_are_counted_by_route(shelf: Shelf) -> None:
    room = watch(shelf)
    room.answered(route="/v1/models", method="GET", status=200, seconds=0.01)
    room.answered(route="/v1/models", method="GET", status=200, seconds=0.01)
    found = values(room)
    assert found["edgekit_http_responses_total{method=GET,route=/v1/models,status=200}"] == 2
    assert found["edgekit_http_response_duration_seconds_count{route=/v1/models}"] == 2


def test_a_monitor_may_ask_for_openmetrics(shelf: Shelf) -> None:
    room = watch(shelf)
    room.note(SERVED)
    body, media_type = room.exposition("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert "edgekit_prompt_tokens" in {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]


def test_the_report_has_what_the_page_shows(shelf: Shelf) -> None:
    room = watch(shelf)
    shelf.lease("a").release()
    said = msgspec.json.decode(msgspec.json.encode(room.device()))
    assert set(said) == {
        *("versions", "uptime_s", "machine", "memory", "disk", "temperature_c", "throttled", "battery", "rates"),
        *("running", "waiting", "models", "clock"),
    }
    assert said["memory"] == {"total_bytes": 8, "available_bytes": 4, "rss_bytes": 2}
    assert said["disk"] == {"free_bytes": 50, "total_bytes": 100}
    assert said["battery"] == {"percent": 80.0, "plugged": False}
    assert said["rates"] == {"prompt_tokens_per_s": 0.0, "decode_tokens_per_s": 0.0}
    assert [model["id"] for model in said["models"]] == ["a"]
    assert said["models"][0]["engine"]["slots"] == 4
    assert said["machine"]["cores"] >= 1


def test_sensors_can_be_read_here(tmp_path: Path) -> None:
    found = sensors.read(tmp_path / "not" / "there" / "yet")
    assert found.memory.total_bytes >= found.memory.available_bytes > 0
    assert found.memory.rss_bytes > 0
    assert found.disk is not None
    assert found.disk.total_bytes >= found.disk.free_bytes
