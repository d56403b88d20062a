"""A server of Prefect that is away for long is said in few lines."""

import logging

import pytest
from builders import clock_of
from prefect._internal.concurrency import services

from flows import prefect_lines
from flows.prefect_lines import SENDER, LostEvents


@pytest.fixture
def lines(caplog):
    """What the sender of events logs while the filter is on it."""
    sender, lost = logging.getLogger(SENDER), LostEvents()
    sender.addFilter(lost)
    with caplog.at_level(logging.INFO, SENDER):
        yield caplog
    sender.removeFilter(lost)


def test_lost_events_are_counted_once_in_a_minute(lines):
    assert services.logger.name == SENDER, "Prefect logs this elsewhere now"
    with clock_of(prefect_lines, now=100.0) as clock:
        for _ in range(20):
            services.logger.error("Service %r failed to process item %r", "Events", "x" * 2000)
            clock.now += 7
    told = [line for line in lines.messages if "could not be told" in line]
    assert [line.split(" told of ")[1].split(" ")[0] for line in told] == ["1", "10", "19"]
    assert max(map(len, lines.messages)) < 100


def test_other_lines_of_it_stay(lines):
    services.logger.error("Service %r ended", "Events")
    assert lines.messages == ["Service 'Events' ended"]
