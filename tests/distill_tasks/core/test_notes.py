from distill_tasks.core.notes import Note, Rank, sort_notes


def test_notes_are_sorted_by_rank_and_keep_their_order_within_one():
    fine, first, second, act = (
        Note(Rank.FINE, "d"),
        Note(Rank.KNOW, "z"),
        Note(Rank.KNOW, "a"),
        Note(Rank.ACT, "m"),
    )
    assert sort_notes([fine, first, second, act]) == [act, first, second, fine]


def test_a_note_says_how_urgent_it_is():
    assert str(Note(Rank.ACT, "it rains")) == "must be acted on: it rains"
