"""Threads ahead of a loop: the order of map, a bounded number of results, a clean end however it ends."""

import gc
import subprocess
import sys
import threading
import time

import pytest
import torch

from graphdyn.prefetch import Prefetch


def alive():
    return [t.name for t in threading.enumerate() if t.name.startswith("graphdyn-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert alive() == []


def slow_start(i):
    time.sleep(0.02 if i % 4 == 0 else 0.0)  # later items are done before earlier ones
    return i * i


@pytest.mark.parametrize("depth", [1, 3, 8])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_the_order_of_the_items(workers, depth):
    squares = Prefetch(slow_start, range(13), workers=workers, depth=depth)
    assert list(squares) == [i * i for i in range(13)]
    assert list(squares) == []
    assert alive() == []


def test_nothing_to_do_ends_at_once():
    assert list(Prefetch(slow_start, [], workers=3, depth=2)) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_more_than_depth_items_are_taken_ahead(workers):
    begun = []
    source = Prefetch(lambda i: begun.append(i) or i, range(100), workers=workers, depth=3)
    for read in range(1, 6):
        assert next(source) == read - 1
        deadline = time.monotonic() + 5
        while len(begun) < read + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # were there no bound, threads would run on now
        assert len(begun) == read + 3
        assert sorted(source.waiting()) == [read, read + 1, read + 2]
    source.close()
    assert source.waiting() == []
    with pytest.raises(StopIteration):
        next(source)
    source.close()


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_exception_keeps_place_type_and_traceback(workers):
    class Odd(Exception):
        pass

    def work_that_fails(i):
        if i == 5:
            raise Odd("five")
        return i

    source = Prefetch(work_that_fails, range(10), workers=workers, depth=4)
    assert [next(source) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(Odd, match="five") as caught:
        next(source)
    assert "work_that_fails" in [entry.name for entry in caught.traceback]
    assert list(source) == []
    assert alive() == []


def test_after_an_exception_nothing_new_is_begun():
    begun = []

    def work(i):
        begun.append(i)
        raise ValueError(i)

    source = Prefetch(work, range(100), workers=1, depth=8)
    time.sleep(0.05)
    with pytest.raises(ValueError, match="0"):
        next(source)
    assert begun == [0]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_of_the_items_is_raised_too(workers):
    def items():
        yield 1
        raise OSError("no more")

    source = Prefetch(lambda i: i, items(), workers=workers, depth=2)
    assert next(source) == 1
    with pytest.raises(OSError, match="no more"):
        next(source)


def test_threads_end_when_the_reader_forgets_them():
    source = Prefetch(slow_start, range(1000), workers=3, depth=2)
    assert next(source) == 0
    assert len(alive()) == 2  # more threads than results may wait would never run
    del source
    gc.collect()
    assert alive() == []


def test_the_reader_keeps_its_threads_and_so_do_threads_to_come():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:

        def ask(i):
            time.sleep(0.02)  # the reader has said again by now what it has
            return torch.get_num_threads()

        inside = list(Prefetch(ask, range(4), workers=2, depth=2))
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert inside == [1, 1, 1, 1]
        assert later == [3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_process_ends_while_threads_wait():
    source = (
        "from graphdyn.prefetch import Prefetch\n"
        "kept = Prefetch(lambda i: i, range(10 ** 9), workers=2, depth=2)\n"
        "next(kept)\n"
    )
    subprocess.run([sys.executable, "-c", source], timeout=60, check=True)


def test_ctrl_c_while_waiting_ends_the_threads():
    source = """if True:
        import signal, threading, time
        from graphdyn.prefetch import Prefetch
        def work(i):
            time.sleep(0.3 * min(i, 1))
            if i == 1:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                time.sleep(0.3)
            return i
        source = Prefetch(work, range(100), workers=2, depth=2)
        try:
            for _ in source: pass
        except KeyboardInterrupt:
            print("stopped", threading.active_count())
    """
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "stopped 1"
