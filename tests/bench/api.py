"""What HTTP adds to the engine: the same chats asked of the model itself and through the agent's API, in turn.

    python tests/bench/api.py BUNDLE [--rounds 20] [--tokens 50]

One process holds the agent, as `edgekit serve` does, and whoever asks; so the client's own work counts as the API's.
Answers have exactly --tokens tokens. Each round asks something new in every way, in changing order; what is printed are
medians, and the median of the rounds' differences as a share of the time that the engine decoded.
"""

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from device_agent.app import Agent
from device_agent.engine.records import Generation, ModelService, Sampling
from edgekit.chat import Message
from edgekit.settings import EngineOptions, ModelsSettings, ServerSettings, Settings

BAN = -100.0
Ask = Callable[[str], float]


@contextlib.contextmanager
def serving(bundle: Path, home: Path) -> Iterator[Agent]:
    """A running agent."""
    engine = EngineOptions(draft="off", prefill="int4")
    settings = Settings(server=ServerSettings(port=0), engine=engine, models=ModelsSettings(path=str(bundle)))
    agent = Agent(settings, home)
    ready = threading.Event()
    thread = threading.Thread(target=agent.run, args=(lambda *_: ready.set(),))
    thread.start()
    ready.wait()
    try:
        yield agent
    finally:
        agent.stop()
        thread.join()


def inside(model: ModelService, tokens: int, decoding: list[float]) -> Ask:
    """Seconds of a chat in this process; the engine's own decoding time goes into `decoding`."""
    endless = Sampling(temperature=0.0, logit_bias=dict.fromkeys(model.manifest.tokens.eos, BAN))

    def ask(text: str) -> float:
        began = time.perf_counter()
        prompt = model.chat_prompt([Message(role="user", content=text)])
        pieces = list(model.submit(Generation(prompt=prompt, sampling=endless, max_tokens=tokens)))
        took = time.perf_counter() - began
        timings = pieces[-1].timings
        assert timings is not None
        assert timings.generated_tokens == tokens
        decoding.append(timings.generate_s)
        return took

    return ask


def outside(url: str, model: ModelService, tokens: int, *, stream: bool) -> Ask:
    """Seconds of a chat through the API, on one connection that stays open."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    common: dict[str, Any] = {
        "model": model.manifest.name,
        "max_tokens": tokens,
        "temperature": 0,
        "logit_bias": {str(token): BAN for token in model.manifest.tokens.eos},
        "stream": stream,
    }

    def ask(text: str) -> float:
        body = json.dumps(common | {"messages": [{"role": "user", "content": text}]})
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        took = time.perf_counter() - began
        assert answer.status == 200, content
        return took

    return ask


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=50)
    options = parser.parse_args()
    decoding: list[float] = []
    with tempfile.TemporaryDirectory() as home, serving(options.bundle, Path(home)) as agent:
        lease = agent.shelf.lease("")
        model, url = lease.model, agent.server.url
        ways = {
            "in process": inside(model, options.tokens, decoding),
            "API, whole": outside(url, model, options.tokens, stream=False),
            "API, streamed": outside(url, model, options.tokens, stream=True),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for at in range(options.rounds + 2):
            order = list(ways.items())
            for name, ask in order[at % 3 :] + order[: at % 3]:
                seconds = ask(f"Tell me about the number {at * 7919}.")
                if at > 1:  # the first two warm up
                    took[name].append(seconds)
        lease.release()
    decode_s = median(decoding[2:])
    print(f"{options.tokens} tokens, decoded in {decode_s * 1e3:.0f} ms\n")
    print("| way | whole time | over the engine, of the decoding time |")
    print("|---|---|---|")
    for name, times in took.items():
        over = median(each - base for each, base in zip(times, took["in process"], strict=True))
        share = "" if name == "in process" else f"{over / decode_s:+.1%}"
        print(f"| {name} | {median(times) * 1e3:.0f} ms | {share} |")


if __name__ == "__main__":
    main()
