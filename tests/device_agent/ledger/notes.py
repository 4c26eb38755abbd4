"""What was served, made up."""

from dataclasses import replace

from device_agent.http.services import Caller, Served

MIDNIGHT = 1_800_057_600.0
"""The beginning of 2027-01-16 UTC."""

SERVED = Served(
    at=MIDNIGHT + 60,
    caller=Caller(key="key_a", name="app"),
    dialect="chat",
    model="tiny",
    adapter=None,
    sha256="5" * 64,
    input_tokens=10,
    cached_tokens=4,
    output_tokens=3,
    first_token_s=0.1,
    total_s=0.5,
    finish="stop",
)


def served(
    key: str = "key_a", *, at: float = SERVED.at, model: str = "tiny", adapter: str | None = None, output: int = 3
) -> Served:
    """A request of 10 tokens, 4 of them cached."""
    return replace(SERVED, caller=Caller(key=key), at=at, model=model, adapter=adapter, output_tokens=output)
