"""Signing keys: a folder of them beside the repository, on a stick, or in a device that never gives them out.

    NAME.json   holder, keyid, keytype, scheme, public: what the repository's metadata names; and `uri`, if the private
                part is not the file below but in a security module or a cloud's key service, as securesystemslib
                names it ("hsm:...", "gcpkms:...", "awskms:...")
    NAME.pem    the private part: PKCS#8, encrypted with a passphrase unless nobody gave one; readable to its owner only

There is one holder of keys for each thing that can go wrong by itself. `root` says which keys count and lies in a
drawer. `releases` says what may ever run, and is fetched for a publish. `rollout` (who gets what now) and `timestamp`
(what is current) work every day, unattended; who steals both can choose among releases that were signed, no more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from edgekit.errors import KeyUnavailable
from edgekit.files import create_durably, fsync_folder

Holder = Literal["root", "releases", "rollout", "timestamp"]
HOLDERS: tuple[Holder, ...] = get_args(Holder)

SIGNS: Mapping[Holder, tuple[str, ...]] = {
    "root": ("root",),
    "releases": ("targets", "releases"),
    "rollout": ("rollout",),
    "timestamp": ("snapshot", "timestamp"),
}
"""TUF roles that each holder's keys sign."""

FORMAT = 1
MAX_KEY_BYTES = 64 << 10
_SHOWN = 12
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=16 << 10)]

Ask = Callable[[str], str | None]
"""Asks for a secret, given what it is for; None if there is nobody to ask."""


class KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The public half of a key, as a file; see the module's text."""

    format: int
    holder: Holder
    keyid: Annotated[str, msgspec.Meta(min_length=8, max_length=200, pattern=r"^[0-9A-Za-z]+\Z")]
    keytype: _Text
    scheme: _Text
    public: _Text
    uri: _Text | None = None

    def key(self) -> Key:
        """As TUF's metadata has it."""
        return SSlibKey(self.keyid, self.keytype, self.scheme, {"public": self.public})

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def shown(keyid: str) -> str:
    """How a key is called in sentences: the beginning of its id."""
    return keyid[:_SHOWN]


def generate(folder: Path, holder: Holder, passphrase: str | None) -> Key:
    """Make an Ed25519 key in `folder`, which is made too. Without a passphrase the file's permissions must do.

    Raises KeyUnavailable if the folder cannot be written.
    """
    signer = CryptoSigner.generate_ed25519()
    public = signer.public_key
    file = KeyFile(
        format=FORMAT,
        holder=holder,
        keyid=public.keyid,
        keytype=public.keytype,
        scheme=public.scheme,
        public=public.keyval["public"],
    )
    name = f"{holder}-{shown(public.keyid)}"
    try:
        _make_durably(folder.absolute())
        create_durably(folder / f"{name}.pem", _locked(signer.private_bytes, passphrase), mode=0o600)
        create_durably(folder / f"{name}.json", file.to_bytes())
    except OSError as error:
        raise KeyUnavailable(f"{folder} cannot be written: {error.strerror or error}") from error
    return file.key()


def _make_durably(folder: Path) -> None:
    """Make a folder for its owner, and those that it is in; whoever made it before may have been cut off."""
    if not folder.parent.is_dir():
        _make_durably(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    fsync_folder(folder.parent)


def _locked(pem: bytes, passphrase: str | None) -> bytes:
    if not passphrase:
        return pem
    return serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )


class Keyring:
    """The keys at hand, of one folder or several. Private parts are read when they sign, and not before."""

    def __init__(self, found: Mapping[str, tuple[Path, KeyFile]], ask: Ask, known: Sequence[str] = ()) -> None:
        self._found = found
        self._ask = ask
        self._signers: dict[str, Signer] = {}
        self._passphrases = list(known)

    @classmethod
    def open(cls, folders: Sequence[Path], ask: Ask, known: Sequence[str] = ()) -> "Keyring":
        """Find the keys of `folders`; a folder that is not there (a stick that is not plugged in) has none.

        Passphrases that are `known` are tried before anybody is asked. Raises KeyUnavailable for a file that looks like
        a key and is none.
        """
        return cls({file.keyid: (path, file) for folder in folders for path, file in _key_files(folder)}, ask, known)

    def keys(self, holder: Holder) -> tuple[Key, ...]:
        """Public halves of a holder's keys."""
        return tuple(file.key() for _, file in self._found.values() if file.holder == holder)

    def has(self, keyid: str) -> bool:
        """Whether a key is at hand."""
        return keyid in self._found

    def where(self, keyid: str) -> str | None:
        """Where a key's private part is, for people."""
        if keyid not in self._found:
            return None
        path, file = self._found[keyid]
        return file.uri or str(path.with_suffix(".pem"))

    def signer(self, key: Key) -> Signer:
        """What signs with a key, as the metadata names it. Raises KeyUnavailable."""
        if key.keyid not in self._signers:
            if key.keyid not in self._found:
                raise KeyUnavailable(f"{shown(key.keyid)} is not in any folder that was named")
            path, file = self._found[key.keyid]
            self._signers[key.keyid] = self._remote(file, key) if file.uri else self._local(path, key)
        return self._signers[key.keyid]

    def _remote(self, file: KeyFile, key: Key) -> Signer:
        try:
            return Signer.from_priv_key_uri(str(file.uri), key, lambda what: self._ask(what) or "")
        except Exception as error:  # each kind of signer has errors of its own, and says so
            raise KeyUnavailable(f"{file.uri}: {error}") from error

    def _local(self, path: Path, key: Key) -> Signer:
        file = path.with_suffix(".pem")
        try:
            pem = file.read_bytes()
        except OSError as error:
            raise KeyUnavailable(f"{file}: {error.strerror or error}") from error
        for passphrase in self._tried(file):
            signer = _unlocked(file, pem, passphrase, key)
            if signer is not None:
                if passphrase and passphrase not in self._passphrases:
                    self._passphrases.append(passphrase)
                return signer
        raise KeyUnavailable(f"{file} is encrypted, and there was no passphrase that opens it")

    def _tried(self, file: Path) -> Iterator[str | None]:
        """None first, for a file that is not encrypted; then what opened another one; then what a person says."""
        yield None
        yield from tuple(self._passphrases)
        yield self._ask(f"passphrase of {file}") or None


def _unlocked(file: Path, pem: bytes, passphrase: str | None, key: Key) -> Signer | None:
    """None if the passphrase is not the one."""
    try:
        private = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except TypeError:  # encrypted, and no passphrase; or the other way round
        return None
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase:
            return None
        raise KeyUnavailable(f"{file} is no private key") from error
    if not isinstance(key, SSlibKey):
        raise KeyUnavailable(f"{file} is for a kind of key that files do not hold")
    try:
        return CryptoSigner(private, key)
    except Exception as error:  # a mismatch, a scheme that it does not know: several unrelated classes
        raise KeyUnavailable(f"{file} does not belong to {shown(key.keyid)}") from error


def _key_files(folder: Path) -> Iterator[tuple[Path, KeyFile]]:
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size > MAX_KEY_BYTES:
            raise KeyUnavailable(f"{path} is no key: it is too large")
        try:
            file = msgspec.json.decode(path.read_bytes(), type=KeyFile)
        except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            raise KeyUnavailable(f"{path} is no key: {error}") from error
        if file.format != FORMAT:
            raise KeyUnavailable(f"{path} has format {file.format}, and this version reads {FORMAT}")
        yield path, file
