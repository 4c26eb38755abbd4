"""Updates for Prometheus: read when somebody asks, from what the upkeep knows."""

import typing
from collections.abc import Iterable

from prometheus_client.metrics_core import InfoMetricFamily, Metric, StateSetMetricFamily

from device_agent.http.replies.sync import SyncReply
from device_agent.operations.metrics import by_label, gauge
from device_agent.sync.records import Ending, Phase
from device_agent.sync.tally import Tally

PHASES: tuple[Phase, ...] = typing.get_args(Phase)
ENDINGS: tuple[Ending, ...] = typing.get_args(Ending)


def readings(found: SyncReply, tally: Tally) -> Iterable[Metric]:
    """Of this device; nothing of one that was never enrolled."""
    if not found.enrolled:
        return
    counted = tally.outcomes()
    endings = [(ending, float(counted.get(ending, 0))) for ending in ENDINGS]
    yield by_label("edgekit_sync_outcomes", "What became of channels.", "ending", endings, counts=True)
    told = "Bytes of releases that were fetched, and that were on this device already."
    yield by_label("edgekit_sync_bytes", told, "from", tally.bytes().items(), counts=True)
    yield from gauge("edgekit_sync_last_check_timestamp_seconds", "When a repository was last asked.", found.checked_at)
    yield from gauge(
        "edgekit_sync_last_success_timestamp_seconds", "When every channel was last found in order.", found.succeeded_at
    )
    if found.trust is not None:
        fresh = float(found.trust.fresh)
        yield from gauge("edgekit_sync_trust_fresh", "Whether what is trusted is not out of date.", fresh)
        yield from gauge("edgekit_sync_trust_expires_timestamp_seconds", "When it will be.", found.trust.expires)
    phase = StateSetMetricFamily("edgekit_sync_phase", "What the link does.", labels=())
    phase.add_metric((), {name: name == found.state.phase for name in PHASES})
    yield phase
    yield from gauge("edgekit_sync_done_bytes", "Of the download that is under way.", found.state.done_bytes)
    yield from gauge("edgekit_sync_total_bytes", "Of the same.", found.state.total_bytes)
    releases = InfoMetricFamily("edgekit_sync_release", "Releases, by their part.", labels=("channel", "role"))
    for line in found.lines:
        parts = (("active", line.active), ("previous", line.previous), ("trial", line.trial), ("pin", line.pin))
        for role, release in parts:
            if release is not None:
                releases.add_metric((line.channel, role), {"release": release})
    yield releases
