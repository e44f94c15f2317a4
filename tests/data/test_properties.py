"""What must hold for all data: identities, involutions, sets, splits, bytes."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.data import Message, Pair, Sample
from rm_gallery.core.data.hashing import HashSet, RatioSplit, fingerprint, prompt_hash

from . import helpers

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), min_size=1, max_size=4
).map(tuple)
names = st.sampled_from(["helpfulness", "correctness", "coherence"])
metadata = st.dictionaries(st.sampled_from(["split", "group", "order", "prefers"]), texts)
samples = st.builds(
    Sample,
    input=messages,
    response=texts,
    labels=st.dictionaries(names, st.integers(0, 4), min_size=1),
    unique_id=st.text("0123456789abcdef"),
    metadata=metadata,
)


@st.composite
def make_pair(draw: st.DrawFn) -> Pair:
    strength = draw(st.integers(-3, 3))
    return Pair(
        input=draw(messages),
        response_a=draw(texts),
        response_b=draw(texts),
        preferred="B" if strength > 0 else "A" if strength < 0 else "tie",
        strength=strength,
        unique_id=draw(st.text("0123456789abcdef")),
        metadata=draw(metadata),
    )


pairs = make_pair()


@given(samples)
def test_a_sample_survives_its_row(sample):
    assert Sample.from_row(sample.to_row()) == sample


@given(pairs)
def test_a_pair_survives_its_row(pair):
    assert Pair.from_row(pair.to_row()) == pair


@given(pairs)
def test_swap_is_an_involution_that_turns_the_judgment(pair):
    swapped = pair.swap()
    assert swapped.swap() == pair
    assert (swapped.response_a, swapped.response_b) == (pair.response_b, pair.response_a)
    assert swapped.strength == -pair.strength


@given(pairs)
def test_a_pair_and_its_swap_are_one_judgment(pair):
    assert fingerprint(pair) == fingerprint(pair.swap())


@given(st.lists(st.one_of(samples, pairs), max_size=8))
def test_a_fingerprint_is_of_the_content_alone(judgments):
    def content(judgment):
        if isinstance(judgment, Sample):
            return (judgment.input, judgment.response, tuple(sorted(judgment.labels.items())))
        shown = (judgment.response_a, judgment.response_b, judgment.strength)
        swapped = (judgment.response_b, judgment.response_a, -judgment.strength)
        return (judgment.input, *min(shown, swapped))

    assert len({fingerprint(j).row for j in judgments}) == len({content(j) for j in judgments})


@given(st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=12))
def test_hash_set_is_a_set(batches):
    compact, plain = HashSet(), set()
    for batch in batches:
        expected = []
        for number in batch:
            expected.append(number not in plain)
            plain.add(number)
        assert compact.add([number.to_bytes(8, "big") for number in batch]) == expected
        assert len(compact) == len(plain)


@given(st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)))
def test_hash_sets_share_what_sets_share(one, other):
    built = []
    for numbers in (one, other):
        compact = HashSet()
        for number in numbers:
            compact.add([number.to_bytes(8, "big")])
        built.append(compact)
    assert built[0].shared(built[1]) == len(one & other)


def test_duplicates_cost_at_most_64_bytes_a_row():
    rows, compact = 200_000, HashSet()
    tracemalloc.start()
    for start in range(0, rows, 2048):
        numbers = range(start, min(rows, start + 2048))
        compact.add([prompt_hash([Message("user", str(number))]) for number in numbers])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(compact) == rows
    assert peak / rows < 64


@given(messages, st.integers())
def test_a_split_depends_on_seed_and_prompt_alone(prompt, seed):
    ratio = {"train": 0.5, "val": 0.3, "test": 0.2}
    digest = prompt_hash(prompt)
    assert RatioSplit(ratio, seed)(digest) == RatioSplit(ratio, seed)(prompt_hash(list(prompt)))


def test_a_split_keeps_its_ratio():
    split = RatioSplit({"train": 0.7, "val": 0.2, "test": 0.1}, 3)
    drawn = [split(prompt_hash([Message("user", str(number))])) for number in range(4000)]
    assert [drawn.count(name) / 4000 for name in split.names] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)


@settings(max_examples=8)
@given(st.integers(20, 60), st.integers(1, 40), st.integers(0, 5))
def test_no_prompt_changes_sides_when_rows_are_added(before, added, seed):
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for count in (before, before + added):
            path = helpers.write_lines(Path(folder) / "rows.jsonl", helpers.ratings(count))
            ratio = {"train": 0.5, "test": 0.5}
            helpers.convert(path, Path(folder), export={"seed": seed, "split_ratio": ratio})
            sides.append({r["unique_id"]: s for s in ratio for r in helpers.exported(Path(folder), s)})
        assert sides[0].items() <= sides[1].items()


@pytest.mark.parametrize("source", ["helpsteer2_pointwise", "helpsteer2_pairwise"])
def test_the_same_run_gives_the_same_bytes(tmp_path, source):
    rows = [
        {**row, "response_1": "a", "response_2": "b", "preference_strength": row["helpfulness"] - 2}
        for row in helpers.ratings(300)
    ]
    path = helpers.write_lines(tmp_path / "rows.jsonl", rows)
    formats = ["parquet", "jsonl", "json"]
    files = [
        helpers.convert(path, tmp_path / name, source, export={"formats": formats}).files
        for name in ("one", "two")
    ]
    assert len(files[0]) == 6
    for one, two in zip(*files, strict=True):
        assert Path(one).read_bytes() == Path(two).read_bytes()
