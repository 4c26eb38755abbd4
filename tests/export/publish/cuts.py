"""Cutting a program off at one of its file operations, as a kill does: nothing that comes after it happens."""

import builtins
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OPERATIONS = ("open", "fsync", "link", "replace", "rename", "unlink", "mkdir", "rmdir", "chmod")


class Killed(BaseException):
    """The process is gone."""


class Cut:
    """Counts operations, and is over at the `at`-th one."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.count = 0

    def wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count >= self._at:
                raise Killed
            return operation(*arguments, **options)

        return wrapped


@contextmanager
def cut_at(at: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cut]:
    """Inside, the `at`-th file operation and all after it do not happen."""
    cut = Cut(at)
    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, cut.wrap(getattr(os, name)))
        patch.setattr(builtins, "open", cut.wrap(builtins.open))
        yield cut


def every_cut(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[int]:
    """Do `act`, cut off at its first operation, then its second ..., until it gets through. After each cut."""
    for at in range(1, 10_000):
        with cut_at(at, monkeypatch):
            try:
                act()
            except Killed:
                pass
            else:
                return
        yield at
