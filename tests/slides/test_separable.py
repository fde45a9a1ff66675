"""The compiled loop of resampling: exact, the same from every thread, and there whatever becomes of its cache on disk."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.slides.resampling import area_weights, cubic_weights, resample, resample_row, shrink

RESAMPLED = """
import hashlib, json, sys
import numpy as np
from stpath_assets.slides.resampling import resample
before = "numba" in sys.modules
image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
out = resample(image, 1.3, 2.7, 40.1, 40.1, 64)
from stpath_assets.slides.separable import apply
hits = sum(apply.stats.cache_hits.values())
print(json.dumps([before, hits, apply.stats.cache_path, hashlib.sha256(out.tobytes()).hexdigest()]))
"""


def started(cache: Path, before: str = "", **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", before + RESAMPLED], env=environment, stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> tuple[bool, int, str | None, str]:
    """Whether numba was there before a pixel was resampled, hits and place of the cache, and a digest of the result."""
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    before, hits, place, digest = json.loads(out)
    return before, hits, place, digest


@pytest.mark.soak
def test_two_processes_that_compile_at_once_leave_a_cache_that_a_third_uses(tmp_path: Path) -> None:
    both = [started(tmp_path), started(tmp_path)]
    first, second = (said(process) for process in both)
    third = said(started(tmp_path))
    assert third[1] == 1
    assert first[3] == second[3] == third[3]
    assert not third[0]  # who resamples nothing does not wait for numba
    for file in tmp_path.rglob("*.nb?"):  # as a machine that loses its power leaves them
        file.write_bytes(b"")
    assert said(started(tmp_path))[3] == first[3]


def test_a_processor_without_vectors_and_fused_operations_gives_the_same(tmp_path: Path) -> None:
    plain = started(tmp_path / "plain", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert said(plain)[3] == said(started(tmp_path / "own"))[3]


def test_without_any_folder_for_the_cache_it_compiles_all_the_same(tmp_path: Path) -> None:
    nowhere = "import numba.core.caching as c; c.CompileResultCacheImpl._locator_classes = []\n"
    _, hits, place, _ = said(started(tmp_path, nowhere))
    assert (hits, place) == (0, None)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_images_smaller_than_four_taps(n: int) -> None:
    image = np.random.default_rng(n).integers(0, 256, (n, n, 3), np.uint8)
    np.testing.assert_array_equal(shrink(image, 0, 0, n, n, n, n), image)
    mean = shrink(image, 0, 0, n, n, 1, 1)[0, 0]
    assert np.abs(mean - image.mean((0, 1))).max() <= 0.51
    assert resample(np.full_like(image, 77), 0, 0, n, n, 9).tolist() == np.full((9, 9, 3), 77).tolist()


def test_values_are_rounded_once_and_held_between_black_and_white() -> None:
    """The kernel of an enlargement overshoots an edge; half a grey value goes to the even one."""
    edge = np.zeros((12, 12, 3), np.uint8)
    edge[:, 6:] = 255
    out = resample(edge, 0, 0, 12, 12, 40)
    assert (out[:, :15] == 0).all()
    assert (out[:, -15:] == 255).all()
    pair = np.array([[[0, 1, 2]] * 2, [[1, 2, 3]] * 2], np.uint8)
    assert shrink(pair, 0, 0, 2, 2, 1, 1).tolist() == [[[0, 2, 2]]]


def test_a_part_of_an_image_is_read_in_place() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    turned = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)
    whole = resample(image, 20.25, 30.5, 20, 20, 13)
    np.testing.assert_array_equal(resample(turned, 20.25, 30.5, 20, 20, 13), whole)
    np.testing.assert_array_equal(resample(image[::-1], 20.25, 60 - 50.5, 20, 20, 13)[::-1], whole)


@pytest.mark.parametrize("side", [40.7, 64.0, 151.3])
def test_boxes_of_a_row_are_what_each_is_alone(side: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 700, 3), np.uint8)
    xs = [0.0, 3.0, 17.37, 250.0, 700 - side]
    outs = list(np.zeros((len(xs), 64, 64, 3), np.uint8))
    resample_row(image, xs, 8.0, side, side, outs)
    for x, out in zip(xs, outs, strict=True):
        np.testing.assert_array_equal(out, resample(image, x, 8.0, side, side, 64))


def test_threads_give_what_one_gives() -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    boxes = [(3 + i * 0.37, 2 + i * 0.21, side, side, 64) for i in range(60) for side in (40.7, 151.3)]
    alone = [resample(image, *box) for box in boxes]
    area_weights.cache_clear()
    cubic_weights.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(lambda box: resample(image, *box), boxes), strict=True):
            np.testing.assert_array_equal(one, other)
