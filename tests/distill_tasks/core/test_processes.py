import os
import subprocess
import sys

from distill_tasks.core.processes import ProcessName


def test_a_process_is_gone_once_it_has_ended_and_not_before():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        name = ProcessName(ProcessName.here().host, other.pid)
        assert not name.is_gone
        other.stdin.close()
        other.wait()
        assert name.is_gone


def test_of_another_host_or_another_space_of_numbers_nobody_here_knows():
    here, gone = ProcessName.here(), 2**22 + 1
    assert ProcessName(here.host, gone).is_gone
    assert not ProcessName("elsewhere/1", gone).is_gone
    assert not ProcessName(f"{here.host}1", gone).is_gone


def test_a_name_is_read_as_it_was_written():
    here = ProcessName.here()
    assert ProcessName.parse(str(here)) == here
    assert here.number == os.getpid()
    assert here.words.startswith(f"process {os.getpid()} on ")
    for other in ("", "host", ":7", "host:", "host:seven"):
        assert ProcessName.parse(other) is None
