"""What a tick decides: only files that stand still, none twice, none forgotten."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.ingestion import (
    MAX_TRIES,
    Arrival,
    Entry,
    Memory,
    Seen,
    choose_arrivals,
    choose_turns,
    is_time,
    note_asked,
)


def arrival(name: str, size: int) -> Arrival:
    return Arrival(Entry(f"/inbox/{name}.svs"), Seen(size, 0))


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, int]]:
    """What each of some ticks sees: sizes by name. Files come, grow, stay and go."""
    names = st.sampled_from("abcdefgh")
    return draw(st.lists(st.dictionaries(names, st.integers(1, 3), max_size=8), min_size=1, max_size=8))


@given(histories(), st.integers(1, 4))
def test_a_file_is_taken_only_if_two_ticks_in_a_row_see_it_the_same(history: list[dict[str, int]], most: int) -> None:
    memory, before = Memory(), dict[str, int]()
    for seen in history:
        chosen, memory = choose_arrivals([arrival(*item) for item in seen.items()], {}, memory, most)
        still = [name for name, size in seen.items() if before.get(name) == size]
        assert [a.entry.scan for a in chosen] == [f"/inbox/{name}.svs" for name in still[:most]]
        before = seen


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 9), max_size=30),
    st.integers(1, 5),
    st.data(),
)
def test_every_file_that_stands_still_is_registered_once_also_if_runs_or_the_daemon_are_killed(
    files: Mapping[str, int], most: int, data: st.DataObject
) -> None:
    arrivals = [arrival(*item) for item in files.items()]
    done, memory, registered = dict[str, str](), Memory(), list[str]()
    ticks = 0
    while len(done) < len(files):
        if ticks < 40 and data.draw(st.integers(0, 9)) == 0:
            memory = Memory.load(None)  # the cursor of this tick was lost
        chosen, memory = choose_arrivals(arrivals, done, Memory.load(memory.dump()), most)
        finished = (
            data.draw(st.integers(0, len(chosen))) if ticks < 40 else len(chosen)
        )  # the run may be killed after some
        for a in chosen[:finished]:
            registered.append(a.entry.scan)
            done[a.entry.scan] = a.digest
        ticks += 1
        assert ticks < 200
    assert sorted(registered) == sorted(a.entry.scan for a in arrivals)
    assert choose_arrivals(arrivals, done, memory, most) == ([], Memory())


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_file_that_was_overwritten_is_taken_again(first: int, then: int) -> None:
    done = {"/inbox/a.svs": arrival("a", first).digest}
    _, memory = choose_arrivals([arrival("a", then)], done, Memory(), 9)
    chosen, _ = choose_arrivals([arrival("a", then)], done, memory, 9)
    assert bool(chosen) == (first != then)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.floats(0, 100)), min_size=1, max_size=30),
    st.integers(1, 16),
    st.floats(0, 300),
)
def test_slides_wait_for_others_but_not_for_ever(ticks: list[tuple[int, float]], enough: int, wait_s: float) -> None:
    now, since, memory = 1000.0, None, Memory()
    for waiting, step in ticks:
        now += step
        go, memory = is_time(waiting, enough, wait_s, now, memory)
        if waiting == 0:
            since = None
            assert not go
            continue
        since = now if since is None else since
        assert go == (waiting >= enough or now - since >= wait_s)
        since = None if go else since


def test_a_clock_that_was_set_back_does_not_stop_the_inbox() -> None:
    go, memory = is_time(1, 16, 60, 1000.0, Memory(waiting_since=99_999.0))
    assert not go
    assert is_time(1, 16, 60, 1060.0, memory)[0]


def test_a_cursor_of_another_version_is_an_empty_memory() -> None:
    for cursor in (None, "", "null", "[]", "{}", '{"seen": 3, "waiting_since": null}', "no json"):
        assert Memory.load(cursor) == Memory()
    memory = Memory({"/inbox/a.svs": "abc"}, 12.5, {"a": ("digest", 2)})
    assert Memory.load(memory.dump()) == memory


@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=4), min_size=1, max_size=12),
    st.data(),
)
def test_a_slide_is_asked_for_three_times_at_most_for_the_same_thing(
    history: list[dict[str, str]], data: st.DataObject
) -> None:
    memory, asked, before = Memory(), dict[tuple[str, str], int](), dict[str, str]()
    for wanted in history:
        asked = {key: n for key, n in asked.items() if wanted.get(key[0]) == key[1] == before.get(key[0])}
        turns = choose_turns(wanted, memory)
        assert sorted([*turns.together, *turns.alone, *turns.given_up]) == sorted(wanted)
        for slide, what in wanted.items():
            often = asked.get((slide, what), 0)
            assert (slide in turns.together, slide in turns.alone, slide in turns.given_up) == (
                often == 0, 0 < often < MAX_TRIES, often >= MAX_TRIES,
            )  # fmt: skip
        may = [*turns.together, *turns.alone]
        chosen = data.draw(st.lists(st.sampled_from(may), unique=True)) if may else []
        for slide in chosen:
            asked[slide, wanted[slide]] = asked.get((slide, wanted[slide]), 0) + 1
        memory, before = Memory.load(note_asked(wanted, chosen, memory).dump()), wanted
