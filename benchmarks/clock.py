"""Timing for comparisons: contenders in turn, best of many."""

import time


def best_times(contenders, seconds=1.0, least=0.002):
    """Best time of one call of each contender, in seconds.

    They take turns until `seconds` are over for each. A sample begins with an untimed call, to warm caches that the
    other contenders have used, and repeats calls for `least` seconds, so that short calls are told from the clock.
    """
    repeats = {}
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(least / max(time.perf_counter() - start, 1e-7)))
    best = dict.fromkeys(contenders, float("inf"))
    end = time.perf_counter() + seconds * len(contenders)
    turns = 0
    while turns < 5 or time.perf_counter() < end:
        for name, call in contenders.items():
            call()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
        turns += 1
    return best
