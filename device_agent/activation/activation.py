"""Activation: drives a release through the rules, and writes down each step before it is taken."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

from device_agent.activation import rules
from device_agent.activation.records import Probe, Switch, Verdict
from device_agent.releases.records import Installed, Line, Ref, State, not_pinned
from device_agent.releases.scrub import Damage, damaged
from device_agent.releases.store import Store
from device_agent.sync.records import Clock, Progress, Tell
from edgekit.errors import BundleError, EdgekitError, FailedTrial, Refused

log = logging.getLogger(__name__)

_MOST_TRIALS = 8
"""Figures are kept of so many: there are reports between them."""

Repair = Callable[[Installed], None]
"""Makes a release whole again from its repository. Raises EdgekitError or OSError if it cannot."""


class Activation:
    """What happens between "whole on disk" and "active".

    `clock` says when a release was refused (Unix seconds); `ticks` measures the soak and only goes forward.
    """

    def __init__(
        self,
        store: Store,
        *,
        probe: Probe,
        switch: Switch,
        clock: Clock,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._probe = probe
        self._switch = switch
        self._clock = clock
        self._ticks = ticks
        self._turn = threading.Lock()  # guards what follows, and the switch
        self._served: tuple[Ref, ...] | None = None
        self._since: dict[tuple[str, Ref], float] = {}
        self._is_resumed = False
        self._seen: tuple[int, frozenset[Ref]] | None = None
        self._figures: Mapping[str, Mapping[str, float]] = {}

    @property
    def figures(self) -> Mapping[str, Mapping[str, float]]:
        """What the last trials of this process measured, by release."""
        return self._figures

    # --- forward ----------------------------------------------------------------------------------

    def try_release(self, channel: str, ref: Ref, *, tell: Tell) -> None:
        """Start a release that is whole on disk, look at it, and let it serve; `soaked` then watches it.

        Each start is counted on disk before it happens, over restarts and power cuts. Raises FailedTrial: what was
        active is so still. Raises Refused if it cannot be tried now; it stays on disk for another time.
        """
        state = self._store.change(lambda before: rules.begun(before, channel, ref))
        line = state.line(channel)
        if line.trial is not None and not line.soaking:
            tell(Progress(phase="trial", channel=channel, release=ref.id))
            self._health_check(channel, ref)
            self._store.change(lambda before: rules.passed(before, channel, ref, serving=self._switch.serving))
            log.info("%s has passed its trial on %s", ref.id, channel)
        self._serve_or_fail(channel, ref)
        if self._store.state().line(channel).trial == ref:
            tell(Progress(phase="soaking", channel=channel, release=ref.id))
            self._watch(self._store.state().line(channel), may_wait=not self._switch.serving)

    def _health_check(self, channel: str, ref: Ref) -> None:
        """Raises FailedTrial once it is clear that the release does not work here."""
        installed = self._store.find(ref)
        if installed is None:
            self._store.change(lambda before: rules.lost(before, ref, gone=True))
            raise Refused(f"{ref.id} is not whole on disk any more")
        verdict = Verdict(ok=False, reason="each of its starts ended this program, or the machine")
        while self._store.state().line(channel).tries_left:
            self._store.change(lambda before: rules.started(before, channel, ref))
            try:
                verdict = self._looked_at(installed)
            except BaseException:  # not its fault, or somebody ended this program in order
                self._store.change(lambda before: rules.postponed(before, channel, ref))
                raise
            self._figures = dict([*self._figures.items(), (ref.id, verdict.figures)][-_MOST_TRIALS:])
            if verdict.ok:
                return
            log.warning("%s failed a trial: %s", ref.id, verdict.reason)
            if verdict.final:
                break
        self._fail(channel, ref, verdict.reason)

    def _looked_at(self, installed: Installed) -> Verdict:
        with self._store.lease(installed.ref):
            return self._probe(installed, installed.release.health)

    def _serve_or_fail(self, channel: str, ref: Ref) -> None:
        try:
            self._serve()
        except BundleError as problem:
            self._fail(channel, ref, f"it cannot be served: {problem}")

    def _fail(self, channel: str, ref: Ref, reason: str) -> None:
        """Back to what is active, for good. Raises FailedTrial."""
        now = self._clock()
        self._store.change(lambda before: rules.failed(before, channel, ref, reason=reason, at=now))
        log.error("%s is refused on %s: %s", ref.id, channel, reason)
        self._serve_quietly()
        raise FailedTrial(f"{ref.id}: {reason}")

    # --- watching ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on where a crash, a power cut or a restart left off. Before the first request, and before each update.

        What serves on trial was serving when the process before this one ended: that was a start, and if it was the
        last one the release is refused. A trial that had not passed goes on when its channel is looked at next, with
        the tries that are left.
        """
        if not self._store.folder.is_dir():
            return
        self._store.empty_trash()
        self._store.remove_stale_leases()
        self._let_go_of_what_is_gone()
        if self._is_resumed or not self._switch.serving:
            return
        self._is_resumed = True
        for line in self._store.state().lines:
            if line.soaking and line.trial is not None:
                self._again(line.channel, line.trial, line.tries_left)

    def _again(self, channel: str, ref: Ref, tries_left: int) -> None:
        if tries_left:
            self._store.change(lambda before: rules.started(before, channel, ref))
            return
        with contextlib.suppress(FailedTrial):  # the log has it
            self._fail(channel, ref, "the agent ended each time while it served")

    def _let_go_of_what_is_gone(self) -> None:
        here = {one.ref for one in self._store.installed()}
        for ref in self._store.state().kept() - here:
            log.error("%s is not whole on disk any more", ref.id)
            self._store.change(lambda before, ref=ref: rules.lost(before, ref, gone=True))  # type: ignore[misc]

    def soaked(self) -> None:
        """To be called every second or so by who serves.

        Takes over what another process has recorded, lets the one before serve where a release turned out damaged,
        commits what has served for long enough without a fault, and goes back from what has one.
        """
        if not self._switch.serving:
            return
        state, seq = self._store.seen()
        seen = (seq, self._store.doubts)
        soaking = [line for line in state.lines if line.soaking]
        if seen != self._seen:
            try:
                self._serve()
            except BundleError as problem:
                log.error("what is recorded cannot be served: %s", problem)  # noqa: TRY400 - the sentence is for people
                for line in soaking:
                    self._go_back(line, f"it cannot be served: {problem}")
                return
            self._seen = seen
        for line in soaking:
            self._watch(line)

    def _watch(self, line: Line, *, may_wait: bool = False) -> None:
        """`may_wait`: nothing serves here, so that only a release that needs no soak is done."""
        ref = line.trial
        installed = None if ref is None else self._store.find(ref)
        if ref is None or installed is None:
            return
        if fault := self._switch.faults(ref):
            self._go_back(line, fault)
            return
        if ref in self._store.doubts:  # it does not serve: whoever looks at it will say whether it ever does
            return
        now = self._ticks()
        with self._turn:
            since = self._since.setdefault((line.channel, ref), now)
        soak_s = installed.release.health.soak_s
        if now - since >= soak_s and not (may_wait and soak_s):
            self._store.change(lambda before: rules.soaked(before, line.channel, ref))
            log.info("%s is active on %s", ref.id, line.channel)

    def _go_back(self, line: Line, reason: str) -> None:
        if line.trial is not None:
            with contextlib.suppress(FailedTrial):  # the log has it
                self._fail(line.channel, line.trial, reason)

    def close(self) -> None:
        """The agent ends in order: what soaks is not to blame."""
        if self._switch.serving and any(line.soaking for line in self._store.state().lines):
            self._store.change(rules.rested)

    # --- by hand ----------------------------------------------------------------------------------

    def rollback(self, channel: str, *, floors: Mapping[str, int] | None = None) -> Ref:
        """Serve the release before, from the disk alone. `floors` are the lowest sequences that may run, by model.

        Raises Refused, and leaves everything as it is, if there is none, or it is damaged, below the floor, or cannot
        be loaded.
        """
        line = self._store.state().line(channel)
        if line.trial is None and line.pin is None and line.previous is not None:
            self._must_be_whole(line.previous, floors or {})
        now = self._clock()
        after = self._changed(channel, lambda before: rules.gone_back(before, channel, at=now))
        if after.active is None:
            raise Refused(f"{channel} has no release to go back to")
        log.warning("%s went back to %s", channel, after.active.id)
        return after.active

    def pin(self, channel: str, release_id: str | None) -> Ref:
        """Stay on a release (None: the active one), whatever the channel says. Raises Refused, as `rollback` does."""
        line = self._store.state().line(channel)
        known = [ref for ref in (line.active, line.previous) if ref is not None]
        if not known:
            raise Refused(not_pinned(line))
        wanted = next((ref for ref in known if release_id in (None, ref.id)), None)
        if wanted is None:
            there = ", ".join(ref.id for ref in known)
            raise Refused(f"{release_id} cannot be pinned on {channel}, which has: {there}")
        if wanted != line.active:
            self._must_be_whole(wanted, {})
        self._changed(channel, lambda before: rules.pinned(before, channel, wanted))
        return wanted

    def unpin(self, channel: str) -> None:
        """Follow the channel again."""
        self._store.change(lambda before: rules.unpinned(before, channel))

    def _must_be_whole(self, ref: Ref, floors: Mapping[str, int]) -> None:
        installed = self._store.find(ref)
        if installed is None:
            raise Refused(f"{ref.id} is not whole on disk any more")
        if ref.sequence < floors.get(installed.release.name, 0):
            raise Refused(f"{ref.id} is below the lowest number that its owner still allows")
        if found := damaged(installed):
            raise Refused(f"{ref.id} is damaged: {', '.join(found.paths)}")

    def _changed(self, channel: str, event: Callable[[State], State]) -> Line:
        """The line after an event, if what it says can be served. Raises Refused, and takes the event back, if not."""
        before: list[State] = []

        def noting(state: State) -> State:
            before.append(state)
            return event(state)

        after = self._store.change(noting)
        try:
            self._serve()
        except EdgekitError as problem:
            self._store.change(lambda now: rules.restored(now, before[0], channel))
            self._serve_quietly()
            raise Refused(f"it cannot be served: {problem}") from problem
        return after.line(channel)

    # --- damage -----------------------------------------------------------------------------------

    def mend(self, damage: Damage, repair: Repair) -> bool:
        """Have a damaged release repaired; if that cannot be, the one before it takes over. Whether it is whole now.

        Whoever calls holds the link's lock. One that nobody needs any more is left as it is.
        """
        installed, ref = damage.installed, damage.installed.ref
        if ref not in self._store.state().kept():
            return damaged(installed) is None
        log.error("%s is damaged: %s", ref.id, ", ".join(damage.paths))
        try:
            with self._store.repairing(installed):
                repair(installed)
        except (EdgekitError, OSError) as problem:
            log.error("%s cannot be repaired: %s", ref.id, problem)  # noqa: TRY400 - the sentence is for people
        if damaged(installed) is None:
            log.warning("%s was repaired", ref.id)
            self._store.believe(ref)
            self._serve_quietly()
            return True
        before = self._store.state()
        after = self._store.change(lambda state: rules.lost(state, ref, gone=False))
        for line in before.lines:
            now = after.line(line.channel).active
            if line.active == ref and now is not None and now != ref:
                log.error("%s takes over from %s, which is damaged", now.id, ref.id)
        self._serve_quietly()
        return False

    # --- who serves -------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Have what the record says served, unless it is. Raises EdgekitError."""
        with self._turn:
            wanted = tuple(one.ref for one in self._store.serving())
            if wanted == self._served:
                return
            self._served = None
            self._switch.serve()
            self._served = wanted
            self._since = {key: since for key, since in self._since.items() if key[1] in wanted}

    def _serve_quietly(self) -> None:
        """On the way back from an error, which is the one to be told."""
        try:
            self._serve()
        except EdgekitError as problem:
            log.error("what is recorded cannot be served: %s", problem)  # noqa: TRY400 - the sentence is for people
