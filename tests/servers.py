"""Real web servers in front of a folder, for as long as a test wants them."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import programs

NGINX_CONF = """
{user}
pid {work}/nginx.pid;
error_log {work}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  server_tokens off;
  default_type application/octet-stream;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  proxy_cache_path {work}/cache keys_zone=cache:1m;
  server {{
    listen 127.0.0.1:{port}{tls};
    root {folder};
    {more}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, work: Path, *, more: str = "", cert: Path | None = None) -> Iterator[str]:
    """Address of an nginx that serves `folder`. `more` goes into its `server`, `cert` has a certificate and its key."""
    program = programs.find(programs.NGINX)
    assert program, "these tests need nginx: apt-get install nginx-light"
    work.mkdir()
    if cert is not None:
        more += f"\nssl_certificate {cert}; ssl_certificate_key {cert};"
    user = "user root root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    command = [program, "-e", f"{work}/error.log", "-p", str(work), "-c", str(work / "nginx.conf")]
    port = 0
    for _ in range(20):  # a port that was free a moment ago may be taken
        port = _free_port()
        text = NGINX_CONF.format(
            user=user, work=work, folder=folder, port=port, more=more, tls=" ssl" if cert is not None else ""
        )
        (work / "nginx.conf").write_text(text, encoding="utf-8")
        # It goes into the background once it listens.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            break
        assert "Address already in use" in done.stderr, done.stderr
    try:
        yield f"{'http' if cert is None else 'https'}://127.0.0.1:{port}"
    finally:
        subprocess.run([*command, "-s", "stop"], capture_output=True, check=True, timeout=60)


REGISTRY_CONF = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {work}/storage}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


@contextlib.contextmanager
def registry(work: Path, *, more: str = "") -> Iterator[str]:
    """`host:port` of an OCI registry that keeps everything in `work`/storage. `more` goes into its configuration."""
    program = programs.find(programs.REGISTRY)
    assert program, "these tests need an OCI registry: apt-get install docker-registry"
    work.mkdir(exist_ok=True)
    conf = work / "registry.yml"
    for _ in range(20):
        port = _free_port()
        conf.write_text(REGISTRY_CONF.format(work=work, port=port, more=more), encoding="utf-8")
        log = work / "registry.log"
        with (
            log.open("wb") as said,
            subprocess.Popen([program, "serve", str(conf)], stdout=said, stderr=said) as process,
        ):
            try:
                if _listens(port, process):
                    yield f"127.0.0.1:{port}"
                    return
            finally:
                process.kill()
        assert "address already in use" in log.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")
    raise AssertionError("no port is free")


@contextlib.contextmanager
def python_http_server(folder: Path) -> Iterator[str]:
    """Address of `python -m http.server`, which knows no ranges."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()  # Serving HTTP on 127.0.0.1 port 1234 (http://127.0.0.1:1234/) ...
            yield said[said.index("(") + 1 : said.index("/)")]
        finally:
            process.kill()


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a server takes connections; False if it ended instead."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    return False


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
