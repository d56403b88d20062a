"""With real processes and a real kill -9."""

import os
import signal
import subprocess
import sys
import time

import pytest
from processes import is_there, wait_until

from distill_tasks.core.orphans import Watch

SLEEPS = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
PARENT = """
import subprocess, sys, threading, time
from distill_tasks.core.orphans import Watch
def start():  # in a thread that ends at once
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
    print(child.pid, Watch(child).watching.pid, flush=True)
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(60)
"""


def start():
    return subprocess.Popen([sys.executable, "-c", SLEEPS])


@pytest.mark.slow
@pytest.mark.parametrize("program", [SLEEPS, STUBBORN])
def test_a_watched_process_and_its_watch_end_with_a_parent_that_is_killed(program):
    command = [sys.executable, "-c", PARENT, program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child, watch = map(int, parent.stdout.readline().split())
        time.sleep(2)
        assert is_there(child)
        assert is_there(watch)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not is_there(child) and not is_there(watch), 20)


def test_a_watched_process_ends_with_the_block_whatever_ends_that():
    with pytest.raises(KeyboardInterrupt), start() as process, Watch(process) as watch:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL
    assert watch.watching.returncode == -signal.SIGKILL


def test_a_process_that_is_left_goes_on():
    with start() as process:
        watch = Watch(process)
        watch.leave()
        assert (process.poll(), watch.watching.returncode) == (None, -signal.SIGKILL)
        process.kill()


def test_a_process_that_ended_by_itself_keeps_its_exit_code():
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with process, Watch(process):
        process.wait()
    assert process.returncode == 3


def test_a_watch_hears_no_interrupt_of_the_terminal():
    with start() as process, Watch(process) as watch:
        assert os.getsid(watch.watching.pid) != os.getsid(0)
