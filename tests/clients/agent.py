"""The agent that the tests of this folder talk to."""

import urllib.request
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Agent:
    """A running agent: `url` without a slash at its end, the ids of its two models, and its own folder."""

    url: str
    model: str
    encoder: str
    home: Path
    pid: int

    @property
    def v1(self) -> str:
        """What SDKs call the base URL."""
        return f"{self.url}/v1"

    @property
    def bundle(self) -> Path:
        """The chat model's bundle."""
        return self.home / "models" / "chat"

    @property
    def admin_token(self) -> str:
        """Made at the agent's first start."""
        return (self.home / "admin-token").read_text(encoding="ascii").strip()

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            body: bytes = answer.read()
        return body


FORCED = "Paris is the capital of France."
"""What the answer must be, where its words are compared: no rounding can change it."""
FORCING = {"grammar": {"type": "regex", "value": FORCED.replace(".", r"\.")}}
"""The extension field that asks for it."""
