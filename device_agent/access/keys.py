"""Keys as records and rules: made, written down, found again. Pure, but for the random bits of a new key.

A secret is "ek-" and 256 random bits. Only its HMAC-SHA256 is kept, under a salt of the file's own. A slow hash
(bcrypt, Argon2) would make each guess of a *password* expensive; of 2^256 equally likely secrets nobody guesses one,
whatever a guess costs, and a slow hash before every request would be a way to keep the device busy. NIST SP 800-63B,
5.1.2.2, asks for one only below 112 random bits. The salt keeps digests of different devices apart.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from typing import Literal, Self

import msgspec

from edgekit.errors import InvalidRequest

Scope = Literal["infer", "admin"]
SCOPES: tuple[Scope, ...] = ("infer", "admin")

SECRET_PREFIX = "ek-"  # noqa: S105 - how secrets begin, and none of them
ADMIN_ID = "admin"
"""The id of the token that is made at first start."""

MOST_KEYS = 1_000
MOST_NAME_CHARS = 64
MOST_FILE_BYTES = 4 << 20
MOST_TOKENS_PER_DAY = 1 << 53
MOST_REQUESTS_PER_MINUTE = 100_000
MOST_CONCURRENT = 10_000
_FORMAT = 1
_SALT_BYTES = 16
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What a key may use; None is no limit. Tokens are those read and written of a UTC day, cached ones too."""

    tokens_per_day: int | None = None
    requests_per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Everything known of a key but its secret. Times are Unix seconds; `digest` is in hexadecimal."""

    id: str
    name: str
    digest: str
    scopes: tuple[Scope, ...]
    created: int
    quotas: Quotas = Quotas()
    expires_at: int | None = None
    revoked_at: int | None = None

    def refusal(self, now: float) -> str | None:
        """Why it opens nothing any more, or None."""
        if self.revoked_at is not None:
            return "This API key was revoked."
        if self.expires_at is not None and now >= self.expires_at:
            return "This API key has expired."
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWish:
    """What is asked for when a key is made."""

    name: str
    scopes: tuple[Scope, ...] = ("infer",)
    quotas: Quotas = Quotas()
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    format: int
    salt: str
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """All keys of an agent."""

    salt: bytes
    keys: tuple[Key, ...] = ()

    @classmethod
    def empty(cls) -> Self:
        """A new one, with a salt of its own."""
        return cls(salt=secrets.token_bytes(_SALT_BYTES))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """From `to_bytes`. Raises ValueError with the reason for anything else."""
        if len(data) > MOST_FILE_BYTES:
            raise ValueError(f"it is larger than {MOST_FILE_BYTES:,} bytes")
        try:
            found = msgspec.json.decode(data, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if found.format != _FORMAT:
            raise ValueError(f"its format is {found.format}, and this edgekit knows {_FORMAT}")
        digests_fit = all(len(key.digest) == 64 and _HEX.fullmatch(key.digest) for key in found.keys)
        if len(found.salt) != 2 * _SALT_BYTES or not _HEX.fullmatch(found.salt) or not digests_fit:
            raise ValueError("a salt or a digest has the wrong length")
        return cls(salt=bytes.fromhex(found.salt), keys=found.keys)

    def to_bytes(self) -> bytes:
        """As JSON for people too. No secret is in it."""
        return msgspec.json.format(msgspec.json.encode(_File(format=_FORMAT, salt=self.salt.hex(), keys=self.keys)))

    def digest_of(self, secret: str) -> str:
        """What is kept of a secret."""
        return hmac.new(self.salt, secret.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def find(self, secret: str, *, also: tuple[Key, ...] = ()) -> Key | None:
        """The key with this secret. Takes as long for one that nobody made: every digest is compared, to the end."""
        digest = self.digest_of(secret)
        found = None
        for key in (*self.keys, *also):
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def named(self, key_id: str) -> Key | None:
        """The key with this id."""
        return next((key for key in self.keys if key.id == key_id), None)

    def with_new(self, wish: KeyWish, *, now: float) -> tuple[Self, Key, str]:
        """The ring with one key more, the key, and its secret, which exists nowhere else.

        Raises InvalidRequest for a wish that makes no sense, or if there are too many keys.
        """
        check(wish, now=now)
        kept = self.keys
        if len(kept) >= MOST_KEYS:  # those that open nothing any more make room
            kept = tuple(key for key in kept if key.refusal(now) is None)
        if len(kept) >= MOST_KEYS:
            raise InvalidRequest(f"There are {MOST_KEYS:,} keys already; revoke some.")
        secret = new_secret()
        key = Key(
            id=f"key_{secrets.token_hex(6)}",
            name=wish.name,
            digest=self.digest_of(secret),
            scopes=tuple(scope for scope in SCOPES if scope in wish.scopes),
            quotas=wish.quotas,
            created=int(now),
            expires_at=wish.expires_at,
        )
        return replace(self, keys=(*kept, key)), key, secret

    def without(self, key_id: str, *, now: float) -> tuple[Self, Key] | None:
        """The ring with this key revoked, and the key; None if there is none. Revoking again changes nothing."""
        key = self.named(key_id)
        if key is None:
            return None
        if key.revoked_at is None:
            key = replace(key, revoked_at=int(now))
        return replace(self, keys=tuple(key if known.id == key_id else known for known in self.keys)), key


def new_secret() -> str:
    """A secret that nobody has had before."""
    return SECRET_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def check(wish: KeyWish, *, now: float) -> None:
    """Raises InvalidRequest, naming the parameter, for a key that should not be made."""
    name = wish.name
    if not name.strip() or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise InvalidRequest(f"A key's name has 1 to {MOST_NAME_CHARS} printable characters.", param="name")
    if not wish.scopes or set(wish.scopes) - set(SCOPES):
        raise InvalidRequest(f"A key has one or more of the scopes {', '.join(SCOPES)}.", param="scopes")
    quotas = wish.quotas
    for param, wanted, most in (
        ("tokens_per_day", quotas.tokens_per_day, MOST_TOKENS_PER_DAY),
        ("requests_per_minute", quotas.requests_per_minute, MOST_REQUESTS_PER_MINUTE),
        ("concurrent", quotas.concurrent, MOST_CONCURRENT),
    ):
        if wanted is not None and not 0 <= wanted <= most:
            raise InvalidRequest(f"{param} must be from 0 to {most:,}.", param=param)
    if wish.expires_at is not None and not now < wish.expires_at < 1 << 53:
        raise InvalidRequest("expires_at must be a time to come, in Unix seconds.", param="expires_at")
