import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_tasks.pareto import find_front, rank

# Few distinct values, so that ties are common.
point = st.tuples(st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.sampled_from([0.5, 1.0, 4.0, 9.0]))
anywhere = st.tuples(st.floats(0, 1), st.floats(0.01, 1e4))
clouds = st.lists(point, min_size=1, max_size=25) | st.lists(anywhere, min_size=1, max_size=25)


def compare_all_pairs(points):
    accuracy, latency = points[:, 0], points[:, 1]
    no_worse = (accuracy[:, None] >= accuracy) & (latency[:, None] <= latency)
    better = (accuracy[:, None] > accuracy) | (latency[:, None] < latency)
    return ~(no_worse & better).any(axis=0)


@given(clouds)
@settings(deadline=None)
def test_the_front_is_what_comparing_all_pairs_gives(cloud):
    points = np.array(cloud)
    np.testing.assert_array_equal(find_front(points), compare_all_pairs(points))


def test_equal_points_are_all_on_the_front():
    points = np.array([[0.9, 2.0], [0.9, 2.0], [0.9, 3.0], [0.8, 2.0]])
    assert find_front(points).tolist() == [True, True, False, False]


@given(clouds)
@settings(deadline=None)
def test_the_choice_is_on_the_front_and_the_ends_are_the_ends(cloud):
    points = np.array(cloud)
    front = points[find_front(points)]
    assert front[rank(front, "most_accurate")[0]][0] == points[:, 0].max()
    assert front[rank(front, "fastest")[0]][1] == points[:, 1].min()
    assert 0 <= rank(front, "knee")[0] < len(front)


@given(clouds)
@settings(deadline=None)
def test_every_choice_from_all_points_lies_on_the_front(cloud):
    points = np.array(cloud)
    for choice in ("most_accurate", "fastest"):
        assert find_front(points)[rank(points, choice)[0]]


def test_a_tie_is_broken_by_the_other_figure():
    points = np.array([[0.9, 3.0], [0.9, 2.0], [0.8, 1.0], [0.7, 1.0]])
    assert rank(points, "most_accurate")[0] == 1
    assert rank(points, "fastest")[0] == 2


def test_the_knee_is_where_more_latency_stops_paying():
    points = np.array([[0.70, 1.0], [0.94, 2.0], [0.95, 8.0], [0.96, 32.0]])
    assert rank(points, "knee")[0] == 1


def test_the_knee_sees_latency_in_ratios():
    # Counted in doublings, the second point pays .4 for 2 of 8 and the third .7 for 5 of 8;
    # counted in milliseconds, the third would be the knee.
    points = np.array([[0.0, 1.0], [0.4, 4.0], [0.7, 32.0], [1.0, 256.0]])
    assert rank(points, "knee")[0] == 1
    assert rank(points * [1, 1000], "knee")[0] == 1


@pytest.mark.parametrize("points", [[[0.9, 2.0]], [[0.9, 2.0], [0.9, 2.0]]])
def test_one_point_is_its_own_knee(points):
    assert rank(np.array(points), "knee")[0] == 0
