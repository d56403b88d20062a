"""The command line, run in the process of a test."""

from __future__ import annotations

import sys

import pytest

from flows import cli


def potstill(capsys, *arguments):
    """Run the command line in this process and return its exit code and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["potstill", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    printed = capsys.readouterr()
    return code, printed.out + printed.err
