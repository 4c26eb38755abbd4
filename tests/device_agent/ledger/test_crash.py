"""A writer that is killed at any moment leaves a database that opens, with whole requests in it and none that it said
it had written missing."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from device_agent.ledger.database import FILE
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.settings import LedgerSettings
from tests.imports import ROOT

ROUNDS = 6

WRITER = """
import sys
from pathlib import Path
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.settings import LedgerSettings
from tests.device_agent.ledger.notes import served

book = Ledger.open(Path(sys.argv[1]), LedgerSettings(keep_texts=True, retention_days=36_500))
book.start()
while True:
    for _ in range(7):
        book.note(served())
    if not book.settle(60):
        sys.exit("not written")
    print(7, flush=True)
"""


def written_before_the_kill(home: Path, after: int) -> int:
    """Requests that a writer says are written, killed when it has said so `after` times."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = sum(int(writer.stdout.readline()) for _ in range(after))
        writer.kill()
        said += sum(int(line) for line in writer.stdout if line.endswith("\n"))
    assert writer.returncode == -signal.SIGKILL
    return said


def test_a_killed_writer_leaves_whole_requests(tmp_path: Path) -> None:
    said = 0
    for after in range(1, ROUNDS + 1):
        said += written_before_the_kill(tmp_path, after)
        connection = sqlite3.connect(tmp_path / FILE)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (rows,) = connection.execute("SELECT count(*) FROM request").fetchone()
        (sums,) = connection.execute("SELECT sum(requests) FROM daily").fetchone()
        connection.close()
        assert rows == sums  # a request and its part of the day's sums are one transaction
        assert said <= rows <= said + 7 * after
        said = rows
    book = Ledger.open(tmp_path, LedgerSettings(retention_days=36_500))
    book.start()
    assert (book.dropped, book.trouble) == (0, None)
    book.close()
    assert not (tmp_path / "usage.damaged.sqlite3").exists()
