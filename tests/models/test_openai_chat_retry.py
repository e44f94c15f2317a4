"""When a request is made again: waits within their bounds, and `Retry-After` as RFC 9110 has it."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_gallery.core.models.retry import Backoff, retry_after

seconds = st.floats(0, 1e6)
backoffs = st.builds(Backoff, first=seconds, longest=seconds, longest_asked=seconds)


@given(backoffs, st.integers(0, 10_000), st.none() | seconds, st.randoms(use_true_random=False))
def test_a_wait_is_bounded_and_no_shorter_than_what_was_asked(backoff, retry, asked, random):
    granted = min(asked or 0, backoff.longest_asked)
    wait = backoff.delay(retry, asked, random.uniform)
    assert granted <= wait <= granted + min(backoff.longest, backoff.first * 2.0 ** min(retry, 64))
    assert wait <= backoff.longest + backoff.longest_asked


@given(backoffs, st.integers(0, 100))
def test_the_ceiling_doubles_until_the_longest(backoff, retry):
    assert backoff.ceiling(retry) <= backoff.ceiling(retry + 1) <= backoff.longest
    if backoff.ceiling(retry + 1) < backoff.longest and retry < 60:
        assert backoff.ceiling(retry + 1) == pytest.approx(2 * backoff.ceiling(retry))


def test_the_jitter_is_full():
    """Even over the whole range: waits that start alike do not end alike."""
    uniform = random.Random(0).uniform
    draws = sorted(Backoff(first=1, longest=8).delay(3, None, uniform) for _ in range(2000))
    for rank, draw in enumerate(draws):
        assert draw == pytest.approx(8 * rank / 2000, abs=0.4)


@given(st.integers(0, 10**6))
def test_a_number_of_seconds_is_read_as_it_is_printed(asked):
    assert retry_after({"retry-after": str(asked)}) == asked


@given(st.integers(-(10**6), 10**6))
def test_a_date_counts_from_the_servers_own_clock(ahead):
    now = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    later = format_datetime(now + timedelta(seconds=ahead), usegmt=True)
    assert retry_after({"retry-after": later, "date": format_datetime(now, usegmt=True)}) == max(0, ahead)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),  # no number of seconds
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, 0),  # a clock that runs backwards asks for nothing
        ({"retry-after": " 0.25 "}, 0.25),  # not in the RFC, and sent all the same
        ({"retry-after": "Fri, 31 Feb 2031 00:00:00 GMT"}, None),  # no such day
        ({"retry-after": "Tue, 01 Jan 2019 00:00:00 GMT"}, 0),  # past, by our own clock
    ],
)
def test_retry_after(headers, expected):
    assert retry_after(headers) == expected
