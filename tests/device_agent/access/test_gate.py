"""The gate: who is let in from where, and quotas over time. All clocks are the test's."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from device_agent.access.gate import Gate
from device_agent.access.keyfile import KeyFile, admin_token
from device_agent.access.keys import ADMIN_ID, KeyWish, Quotas
from device_agent.access.settings import AccessSettings, Auth, check_exposure
from device_agent.http.services import Caller
from device_agent.ledger.days import day_of
from edgekit.errors import QuotaExceeded, Unauthorised, UsageError

MIDNIGHT = 1_800_057_600.0
"""The beginning of a UTC day."""


@dataclass
class Meter:
    """Stands for the ledger: tokens by day and key."""

    tokens: dict[tuple[str, str], int] = field(default_factory=dict)
    uses: list[tuple[str, float]] = field(default_factory=list)

    def tokens_today(self, key: str, now: float) -> int:
        return self.tokens.get((day_of(now), key), 0)

    def seen(self, key: str, at: float) -> None:
        self.uses.append((key, at))


class World:
    """A gate, its clocks, and its keys."""

    def __init__(self, home: Path, auth: Auth = "local") -> None:
        self.now = MIDNIGHT - 100
        self.ticks = 5_000.0
        self.meter = Meter()
        self.keys = KeyFile.open(home, clock=lambda: self.now)
        self.gate = Gate(
            self.keys, AccessSettings(auth=auth), self.meter, clock=lambda: self.now, ticks=lambda: self.ticks
        )

    def caller(self, quotas: Quotas = Quotas()) -> Caller:  # noqa: B008 - a frozen record
        _, secret = self.keys.add(KeyWish(name="app", quotas=quotas))
        return self.gate.identify(secret, local=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- who ------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", [None, "x", "sk-dummy", "ek-" + "A" * 43])
def test_a_local_program_needs_no_key_and_may_send_any(world: World, credential: str | None) -> None:
    caller = world.gate.identify(credential, local=True)
    assert (caller.key, set(caller.scopes)) == ("", {"infer"})


@pytest.mark.parametrize("credential", [None, "x", "ek-" + "A" * 43])
@pytest.mark.parametrize(("auth", "local"), [("local", False), ("required", True), ("required", False)])
def test_everybody_else_needs_one(tmp_path: Path, auth: Auth, local: bool, credential: str | None) -> None:
    with pytest.raises(Unauthorised):
        World(tmp_path, auth).gate.identify(credential, local=local)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("auth", ["local", "required"])
def test_a_key_is_known_from_everywhere(tmp_path: Path, auth: Auth, local: bool) -> None:
    world = World(tmp_path, auth)
    key, secret = world.keys.add(KeyWish(name="app", scopes=("infer",)))
    assert world.gate.identify(secret, local=local) == Caller(key=key.id, name="app", scopes=frozenset({"infer"}))


def test_the_admin_token_may_do_everything(world: World, tmp_path: Path) -> None:
    caller = world.gate.identify(admin_token(tmp_path), local=False)
    assert (caller.key, set(caller.scopes)) == (ADMIN_ID, {"infer", "admin"})
    world.gate.admit(caller).close()


@pytest.mark.parametrize("local", [True, False])
def test_a_revoked_key_is_refused_even_where_none_is_needed(world: World, local: bool) -> None:
    key, secret = world.keys.add(KeyWish(name="app"))
    world.keys.revoke(key.id)
    with pytest.raises(Unauthorised, match="revoked"):
        world.gate.identify(secret, local=local)


@pytest.mark.parametrize("local", [True, False])
def test_an_expired_key_is_refused_even_where_none_is_needed(world: World, local: bool) -> None:
    _, secret = world.keys.add(KeyWish(name="app", expires_at=int(world.now) + 10))
    world.gate.identify(secret, local=local)
    world.now += 10
    with pytest.raises(Unauthorised, match="expired"):
        world.gate.identify(secret, local=local)


def test_a_refusal_never_repeats_the_key(world: World) -> None:
    key, secret = world.keys.add(KeyWish(name="app"))
    world.keys.revoke(key.id)
    for credential in (secret, "ek-wrong"):
        with pytest.raises(Unauthorised) as caught:
            world.gate.identify(credential, local=False)
        assert credential not in str(caught.value)


def test_the_ledger_hears_of_a_keys_use_once_an_hour(world: World) -> None:
    key, secret = world.keys.add(KeyWish(name="app"))
    for _ in range(3):
        world.gate.identify(secret, local=True)
    world.now += 3_600
    world.gate.identify(secret, local=True)
    assert [name for name, _ in world.meter.uses] == [key.id, key.id]
    assert all(at % 3_600 == 0 for _, at in world.meter.uses)


# --- how much -------------------------------------------------------------------------------


def refused(world: World, caller: Caller) -> int:
    """Seconds to wait, as a refused request is told."""
    with pytest.raises(QuotaExceeded) as caught:
        world.gate.admit(caller)
    return caught.value.retry_after_s


def test_without_quotas_nothing_is_counted_against_anybody(world: World) -> None:
    for caller in (Caller(), world.caller()):
        for _ in range(500):
            world.gate.admit(caller)


def test_in_any_minute_there_are_no_more_requests_than_allowed(world: World) -> None:
    caller = world.caller(Quotas(requests_per_minute=3))
    for at in (0.0, 20.0, 40.5):
        world.ticks = at
        world.gate.admit(caller).close()
    world.ticks = 59.0
    assert refused(world, caller) == 1
    world.ticks = 45.2
    assert refused(world, caller) == 15
    world.ticks = 60.0
    world.gate.admit(caller).close()
    assert refused(world, caller) == 20


def test_a_refused_request_is_not_counted(world: World) -> None:
    caller = world.caller(Quotas(requests_per_minute=1))
    world.gate.admit(caller).close()
    for _ in range(10):
        refused(world, caller)
    world.ticks += 60
    world.gate.admit(caller)


def test_requests_at_a_time_are_counted_until_they_end(world: World) -> None:
    caller = world.caller(Quotas(concurrent=2))
    first, _ = world.gate.admit(caller), world.gate.admit(caller)
    assert refused(world, caller) == 1
    first.close()
    first.close()  # again is harmless, and frees no second place
    world.gate.admit(caller)
    assert refused(world, caller) == 1


def test_one_keys_requests_leave_anothers_alone(world: World) -> None:
    first, second = world.caller(Quotas(concurrent=1)), world.caller(Quotas(concurrent=1))
    world.gate.admit(first)
    world.gate.admit(second)


def test_a_days_tokens_are_given_back_at_midnight_utc(world: World) -> None:
    caller = world.caller(Quotas(tokens_per_day=100))
    today = day_of(world.now)
    world.meter.tokens[today, caller.key] = 99
    world.gate.admit(caller).close()  # nobody knows what a request will need
    world.meter.tokens[today, caller.key] = 130
    assert refused(world, caller) == 100
    world.now = MIDNIGHT - 0.5
    assert refused(world, caller) == 1
    world.now = MIDNIGHT
    world.gate.admit(caller)


def test_a_quota_of_zero_lets_nothing_through(world: World) -> None:
    for quotas in (Quotas(tokens_per_day=0), Quotas(requests_per_minute=0), Quotas(concurrent=0)):
        assert refused(world, world.caller(quotas)) >= 1


def test_a_key_that_was_removed_between_two_steps_is_refused(world: World) -> None:
    with pytest.raises(Unauthorised):
        world.gate.admit(Caller(key="key_gone"))


def test_what_is_left_is_told(world: World) -> None:
    caller = world.caller(Quotas(requests_per_minute=3, tokens_per_day=100))
    world.meter.tokens[day_of(world.now), caller.key] = 130
    standing = world.gate.standing(caller)
    assert (standing.requests, standing.requests_left, standing.requests_reset_s) == (3, 3, 0.0)
    assert (standing.tokens, standing.tokens_left, standing.tokens_reset_s) == (100, 0, 100)
    assert world.gate.standing(Caller()).requests is None


# --- where it listens -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_on_loopback_keys_are_a_choice(host: str) -> None:
    check_exposure(host, AccessSettings(auth="local"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "my-laptop", "localhost.evil.example"])
def test_other_machines_find_no_door_without_a_lock(host: str) -> None:
    check_exposure(host, AccessSettings(auth="required"))
    with pytest.raises(UsageError, match="edgekit keys add"):
        check_exposure(host, AccessSettings(auth="local"))
