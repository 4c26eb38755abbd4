"""Signing keys: made, locked, found again."""

from pathlib import Path

import msgspec
import pytest
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, SecretsHandler, Signature, Signer

from edgekit.errors import KeyUnavailable
from export.publish.keys import FORMAT, KeyFile, Keyring, generate
from tests.export.publish.publishers import nobody


def test_a_key_is_readable_to_its_owner_only_and_signs(tmp_path: Path) -> None:
    key = generate(tmp_path / "keys", "releases", None)
    assert {path.suffix: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {
        ".json": 0o644,
        ".pem": 0o600,
    }
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    ring = Keyring.open([tmp_path / "keys"], nobody)
    assert [one.keyid for one in ring.keys("releases")] == [key.keyid]
    assert ring.keys("root") == ()
    key.verify_signature(ring.signer(key).sign(b"words"), b"words")


def test_a_passphrase_locks_the_file(tmp_path: Path) -> None:
    key = generate(tmp_path, "root", "open sesame")
    pem = next(tmp_path.glob("*.pem"))
    assert b"ENCRYPTED" in pem.read_bytes()
    with pytest.raises(KeyUnavailable, match="no passphrase that opens it"):
        Keyring.open([tmp_path], nobody).signer(key)
    with pytest.raises(KeyUnavailable, match="no passphrase that opens it"):
        Keyring.open([tmp_path], lambda _what: "open barley").signer(key)
    asked: list[str] = []

    def person(what: str) -> str:
        asked.append(what)
        return "open sesame"

    Keyring.open([tmp_path], person).signer(key)
    assert asked == [f"passphrase of {pem}"]


def test_a_person_is_asked_once_for_keys_that_share_a_passphrase(tmp_path: Path) -> None:
    keys = [generate(tmp_path, "root", "same") for _ in range(3)]
    answers = iter(["same"])
    ring = Keyring.open([tmp_path], lambda _what: next(answers))
    for key in keys:
        ring.signer(key)
    ring = Keyring.open([tmp_path], nobody, ["other", "same"])
    assert ring.signer(keys[2]).public_key.keyid == keys[2].keyid


def test_a_stick_that_is_not_plugged_in_has_no_keys(tmp_path: Path) -> None:
    key = generate(tmp_path / "here", "root", None)
    ring = Keyring.open([tmp_path / "stick", tmp_path / "here"], nobody)
    assert ring.has(key.keyid)
    assert ring.where(key.keyid) == str(next((tmp_path / "here").glob("*.pem")))
    stranger = generate(tmp_path / "elsewhere", "root", None)
    assert ring.where(stranger.keyid) is None
    with pytest.raises(KeyUnavailable, match="not in any folder"):
        ring.signer(stranger)


@pytest.mark.parametrize(
    ("name", "raw", "problem"),
    [
        ("root-1.json", b"{", "is no key"),
        ("root-1.json", b'{"format": 1, "holder": "king"}', "is no key"),
        ("root-1.json", b" " * (65 << 10), "too large"),
        ("root-1.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is no private key"),
    ],
)
def test_what_looks_like_a_key_and_is_none_is_said(tmp_path: Path, name: str, raw: bytes, problem: str) -> None:
    key = generate(tmp_path, "root", None)
    path = next(tmp_path.glob(f"*{Path(name).suffix}"))
    path.write_bytes(raw)
    with pytest.raises(KeyUnavailable, match=problem):
        Keyring.open([tmp_path], nobody).signer(key)


def test_a_private_part_of_another_key_is_noticed(tmp_path: Path) -> None:
    one, _ = generate(tmp_path / "a", "root", None), generate(tmp_path / "b", "root", None)
    next((tmp_path / "a").glob("*.pem")).write_bytes(next((tmp_path / "b").glob("*.pem")).read_bytes())
    with pytest.raises(KeyUnavailable, match="does not belong to"):
        Keyring.open([tmp_path / "a"], nobody).signer(one)


class Safe(Signer):
    """A security module, as far as we are concerned: it wants a PIN and never gives the key out."""

    secret = CryptoSigner.generate_ed25519()

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "Safe":
        assert public_key.keyid == cls.secret.public_key.keyid
        if secrets_handler is None or secrets_handler("PIN") != "0000":
            raise ValueError(f"{priv_key_uri} stays shut")
        return cls()

    @property
    def public_key(self) -> Key:
        return self.secret.public_key

    def sign(self, payload: bytes) -> Signature:
        return self.secret.sign(payload)


def test_a_key_may_be_in_a_device_that_never_gives_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "safe", Safe)
    public = Safe.secret.public_key
    file = KeyFile(
        format=FORMAT,
        holder="releases",
        keyid=public.keyid,
        keytype=public.keytype,
        scheme=public.scheme,
        public=public.keyval["public"],
        uri="safe:1",
    )
    (tmp_path / "releases.json").write_bytes(file.to_bytes())
    ring = Keyring.open([tmp_path], {"PIN": "0000"}.get)
    public.verify_signature(ring.signer(public).sign(b"words"), b"words")
    assert ring.where(public.keyid) == "safe:1"
    with pytest.raises(KeyUnavailable, match="safe:1 stays shut"):
        Keyring.open([tmp_path], nobody).signer(public)


def test_a_key_of_a_later_format_is_refused(tmp_path: Path) -> None:
    generate(tmp_path, "root", None)
    path = next(tmp_path.glob("*.json"))
    raw = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(raw | {"format": 2}))
    with pytest.raises(KeyUnavailable, match="format 2"):
        Keyring.open([tmp_path], nobody)
