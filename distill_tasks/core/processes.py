"""A process by name, so that another one, later or elsewhere, can tell whether it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class ProcessName:
    """The host of a process, and its number there."""

    host: str
    number: int

    @classmethod
    def here(cls) -> Self:
        """Return the name of this process."""
        return cls(_name_host(), os.getpid())

    @classmethod
    def parse(cls, written: str) -> Self | None:
        """Return the name that was written, or None if it is none."""
        host, _, number = written.rpartition(":")
        return cls(host, int(number)) if host and number.isdecimal() else None

    @property
    def is_gone(self) -> bool:
        """Whether it surely ended: it ran on this host, where no process has its number now."""
        return self.host == _name_host() and not lives(self.number)

    @property
    def words(self) -> str:
        """Return the name for people."""
        return f"process {self.number} on {self.host.partition('/')[0]}"

    def __str__(self) -> str:
        return f"{self.host}:{self.number}"


def _name_host() -> str:
    """Return the name of this host and of the space in which its numbers of processes count.

    Two containers may have one host name, and each of them a process of the same number.
    """
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{space.stat().st_ino if space.exists() else 0}"


def lives(number: int) -> bool:
    """Return whether a process of this number runs on this host."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
