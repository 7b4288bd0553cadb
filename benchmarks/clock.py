"""Timing for comparisons: contenders in turn, best of many."""

import time


def best_times(contenders, seconds=1.0, least=0.002, settled=False):
    """Best time of one call of each contender, in seconds.

    They take turns until `seconds` are over for each. A sample begins with an untimed call, to warm caches that the
    other contenders have used, and repeats calls for `least` seconds, so that short calls are told from the clock.
    `settled` is for contenders with threads of their own: each turn waits for those of the one before, and then takes
    samples for as long as a few short ones take.
    """
    repeats = {}
    for name, call in contenders.items():
        if settled:
            settle()
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(least / max(time.perf_counter() - start, 1e-7)))
    best = dict.fromkeys(contenders, float("inf"))
    end = time.perf_counter() + seconds * len(contenders)
    turns = 0
    while turns < 5 or time.perf_counter() < end:
        for name, call in contenders.items():
            if settled:
                settle()
            turn_end = time.perf_counter() + (8 * least if settled else 0)
            while True:
                call()
                start = time.perf_counter()
                for _ in range(repeats[name]):
                    call()
                now = time.perf_counter()
                best[name] = min(best[name], (now - start) / repeats[name])
                if now >= turn_end:
                    break
        turns += 1
    return best


def settle():
    """Wait until none of the process's threads computes.

    After a call those of onnxruntime spin for 30 ms, of OpenBLAS for 100, and of OpenMP for 2 or 3.
    """
    while True:
        before = time.process_time()
        time.sleep(0.01)  # some systems add up threads' times as seldom as every 10 ms
        if time.process_time() - before < 0.001:
            return
