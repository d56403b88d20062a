import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_tasks.scoring.pareto import find_front, rank

# Few distinct values, so that ties are common.
point = st.tuples(st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.sampled_from([0.5, 1.0, 4.0, 9.0]))
anywhere = st.tuples(st.floats(0, 1), st.floats(0.01, 1e4))
clouds = st.lists(point, min_size=1, max_size=25) | st.lists(anywhere, min_size=1, max_size=25)


costs = st.sampled_from([1.0, 2.0, 3.0]) | st.floats(0.01, 1e4)


@st.composite
def clouds_with_costs(draw, most=3):
    """Return accuracy, latency and further costs of each point, which are often alike."""
    cloud, count = draw(clouds), draw(st.integers(0, most))
    further = st.lists(costs, min_size=count, max_size=count)
    return np.array([(*point, *draw(further)) for point in cloud])


def compare_all_pairs(points):
    """Return which points nobody beats, by looking at every pair of them."""
    losses = points * np.array([-1] + [1] * (points.shape[1] - 1))

    def beats(one, other):
        return all(one <= other) and any(one < other)

    return [not any(beats(other, one) for other in losses) for one in losses]


@given(clouds_with_costs())
@settings(deadline=None)
def test_the_front_is_what_comparing_all_pairs_gives(points):
    assert find_front(points).tolist() == compare_all_pairs(points)


@given(clouds_with_costs(), st.data())
@settings(deadline=None)
def test_a_further_cost_takes_nobody_off_the_front_who_is_like_no_other(points, data):
    further = data.draw(st.lists(costs, min_size=len(points), max_size=len(points)))
    _, group, sizes = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    alone = sizes[group.ravel()] == 1
    before, after = find_front(points), find_front(np.column_stack([points, further]))
    assert after[before & alone].all()


def test_among_points_that_are_alike_a_further_cost_decides():
    points = np.array([[0.9, 2.0, 50.0], [0.9, 2.0, 40.0], [0.9, 2.0, 40.0]])
    assert find_front(points[:, :2]).tolist() == [True, True, True]
    assert find_front(points).tolist() == [False, True, True]


def test_a_point_behind_in_two_figures_may_be_on_the_front_for_its_size():
    points = np.array([[0.9, 2.0, 400.0], [0.8, 3.0, 5.0], [0.8, 3.0, 500.0]])
    assert find_front(points[:, :2]).tolist() == [True, False, False]
    assert find_front(points).tolist() == [True, True, False]


@given(clouds_with_costs(), st.data())
@settings(deadline=None)
def test_a_cost_that_is_the_same_for_all_or_told_twice_changes_nothing(points, data):
    column = data.draw(st.integers(1, points.shape[1] - 1))
    for further in (np.full(len(points), 7.0), points[:, column]):
        wider = np.column_stack([points, further])
        np.testing.assert_array_equal(find_front(wider), find_front(points))


@given(clouds_with_costs(), st.randoms())
@settings(deadline=None)
def test_the_order_of_points_and_of_costs_does_not_matter(points, random):
    rows, columns = list(range(len(points))), list(range(1, points.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = points[rows][:, [0, *columns]]
    np.testing.assert_array_equal(find_front(shuffled), find_front(points)[rows])


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


@pytest.mark.parametrize("choice", ["most_accurate", "fastest", "knee"])
@given(clouds_with_costs())
@settings(deadline=None)
def test_the_choice_is_by_accuracy_and_latency_alone(choice, points):
    assert rank(points, choice) == rank(points[:, :2], choice)
    assert sorted(rank(points, choice)) == list(range(len(points)))
