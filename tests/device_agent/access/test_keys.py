"""Keys as rules: what is kept of a secret, how it is found again, what a key may look like."""

import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.access.keys import MOST_KEYS, Key, KeyRing, KeyWish, Quotas, Scope, new_secret
from edgekit.errors import InvalidRequest

NOW = 1_800_000_000.0
WISH = KeyWish(name="Field app")


def one_key(wish: KeyWish = WISH) -> tuple[KeyRing, Key, str]:
    return KeyRing.empty().with_new(wish, now=NOW)


def test_a_key_is_found_by_its_secret_alone() -> None:
    ring, key, secret = one_key()
    assert ring.find(secret) == key
    for wrong in (secret[:-1], secret + "A", secret.lower(), secret[3:], "", key.id, key.digest, "ek-é\ud800"):
        assert ring.find(wrong) is None


def test_a_secret_has_256_random_bits_and_is_kept_nowhere() -> None:
    ring, _, secret = one_key()
    assert secret.startswith("ek-")
    assert len(secret) == 3 + 43
    assert secret not in ring.to_bytes().decode()
    assert len({new_secret() for _ in range(100)}) == 100


def test_the_same_secret_has_another_digest_under_another_salt() -> None:
    assert KeyRing.empty().digest_of("ek-x") != KeyRing.empty().digest_of("ek-x")


def test_every_digest_is_compared_in_constant_time_whether_one_fits_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, _, first = one_key()
    ring, _, _ = ring.with_new(WISH, now=NOW)
    ring, _, last = ring.with_new(WISH, now=NOW)
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def counted(left: str, right: str) -> bool:
        compared.append((left, right))
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for secret in (first, last, "ek-wrong"):
        compared.clear()
        ring.find(secret)
        assert [left for left, _ in compared] == [key.digest for key in ring.keys]


def test_a_ring_survives_its_file() -> None:
    wish = KeyWish(
        name="Ärzte 1",
        scopes=("admin", "infer"),
        quotas=Quotas(tokens_per_day=1, concurrent=0),
        expires_at=int(NOW) + 9,
    )
    ring, key, _ = one_key(wish)
    assert KeyRing.parse(ring.to_bytes()) == ring
    assert key.scopes == ("infer", "admin")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": "1"},
        {"salt": "00"},
        {"salt": "zz" * 16},
        {"salt": None},
        {"keys": [{}]},
        {"keys": {}},
        {"keys": [{"id": "a", "name": "a", "digest": "0", "scopes": [], "created": 1}]},
        {"keys": [{"id": "a", "name": "a", "digest": "g" * 64, "scopes": [], "created": 1}]},
        {"keys": [{"id": "a", "name": "a", "digest": "0" * 64, "scopes": ["root"], "created": 1}]},
    ],
)
def test_a_file_that_is_not_one_of_keys_is_refused(change: dict[str, Any]) -> None:
    found = json.loads(one_key()[0].to_bytes())
    with pytest.raises(ValueError, match=r"."):
        KeyRing.parse(json.dumps(found | change).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 20_000, b"\xff", b" " * (5 << 20)], ids=len)
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        KeyRing.parse(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        KeyRing.parse(data)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (KeyWish(name=""), "name"),
        (KeyWish(name="  "), "name"),
        (KeyWish(name="a\nb"), "name"),
        (KeyWish(name="\x1b[31m"), "name"),
        (KeyWish(name="a" * 65), "name"),
        (KeyWish(name="a", scopes=()), "scopes"),
        (KeyWish(name="a", quotas=Quotas(tokens_per_day=-1)), "tokens_per_day"),
        (KeyWish(name="a", quotas=Quotas(requests_per_minute=100_001)), "requests_per_minute"),
        (KeyWish(name="a", quotas=Quotas(concurrent=-1)), "concurrent"),
        (KeyWish(name="a", expires_at=int(NOW)), "expires_at"),
        (KeyWish(name="a", expires_at=1 << 60), "expires_at"),
    ],
)
def test_a_wish_that_makes_no_sense_names_the_parameter(wish: KeyWish, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        KeyRing.empty().with_new(wish, now=NOW)
    assert caught.value.param == param


def test_an_unknown_scope_is_refused() -> None:
    scopes: Any = ("infer", "root")
    with pytest.raises(InvalidRequest, match="infer, admin"):
        KeyRing.empty().with_new(KeyWish(name="a", scopes=scopes), now=NOW)


def test_a_key_expires_at_its_second_and_not_before() -> None:
    _, key, _ = one_key(KeyWish(name="a", expires_at=int(NOW) + 10))
    assert key.refusal(NOW + 9.9) is None
    assert "expired" in (key.refusal(NOW + 10) or "")


def test_a_revoked_key_stays_on_the_list_and_is_revoked_once() -> None:
    ring, key, secret = one_key()
    found = ring.without(key.id, now=NOW + 5)
    assert found is not None
    ring, key = found
    assert "revoked" in (key.refusal(NOW) or "")
    assert ring.find(secret) == key
    assert ring.without(key.id, now=NOW + 50) == (ring, key)
    assert ring.without("key_0", now=NOW) is None


def test_dead_keys_make_room_for_new_ones_and_live_ones_do_not() -> None:
    scopes: tuple[Scope, ...] = ("infer",)
    live = tuple(
        Key(id=f"key_{number}", name="a", digest="0" * 64, scopes=scopes, created=0) for number in range(MOST_KEYS)
    )
    with pytest.raises(InvalidRequest, match="1,000"):
        KeyRing(salt=b"0" * 16, keys=live).with_new(WISH, now=NOW)
    one_dead = (*live[:-1], replace(live[-1], revoked_at=1))
    ring, key, _ = KeyRing(salt=b"0" * 16, keys=one_dead).with_new(WISH, now=NOW)
    assert ring.keys == (*live[:-1], key)
