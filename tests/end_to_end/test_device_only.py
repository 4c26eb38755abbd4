"""What an agent loads into its process while it serves: nothing of the build side."""

import json
import subprocess
import sys
from pathlib import Path

from tests.device_agent.bundles import TINY
from tests.imports import ROOT

NEVER_ON_A_DEVICE = {"torch", "transformers", "optimum", "onnx", "safetensors", "gguf", "export"}
PROGRAM = """
import json, os, signal, sys, threading, urllib.request
from pathlib import Path
from device_agent.app import serve
from edgekit.settings import EngineOptions, ModelsSettings, ServerSettings, Settings

answers = []

def ask(url):
    try:
        chat = {"model": "tiny-llama", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
        body = json.dumps({**chat, "temperature": 0.7, "top_k": 40, "seed": 1, "stop": ["never said"]}).encode()
        request = urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answers.append(json.load(urllib.request.urlopen(request)))
        answers.append(urllib.request.urlopen(url + "/").status)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

def ready(url, model):
    threading.Thread(target=ask, args=[url]).start()

server, engine = ServerSettings(port=0), EngineOptions(threads=1)
serve(Settings(server=server, engine=engine, models=ModelsSettings(path=sys.argv[1])), Path(sys.argv[2]), ready)
print(json.dumps({"answers": answers, "modules": sorted(sys.modules)}))
"""


def test_a_served_request_needs_nothing_of_the_build_side(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, str(TINY), str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    chat, page = told["answers"]
    assert chat["usage"]["completion_tokens"] >= 1
    assert page == 200
    assert not {name.split(".")[0] for name in told["modules"]} & NEVER_ON_A_DEVICE
