"""Integer null vectors of noisy matrices whose null space is known by construction."""

import numpy as np
import pytest

from graphdyn.nullspace import null_generators

# Columns a, b, c, ... in this order; the first rows are expected as they stand.
SPACES = {
    "one alone, two jointly": [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]],
    "a chain": [[1, -1, 0, 0, 0, 0], [0, 1, -1, 0, 0, 0], [0, 0, 0, 1, 1, -1]],
    "a factor two": [[2, 1, 0, 0], [0, 0, 2, -3]],
    "a set and what may grow against a part of it": [[1, 1, 0, 0, 0], [0, 1, -1, -1, 0]],
    "a stream": [[1, 1, 1, 1, -1, 0], [0, 0, 0, 0, 0, 1]],
    "nothing": [],
}


def measured(space, columns, noise, seed=0, spread=4.0):
    """(rows, scale): random rows orthogonal to the space, columns of very different size, noise on top."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-spread / 2, spread / 2, columns)
    rows = rng.standard_normal((4 * columns, columns))
    if space:
        q, _ = np.linalg.qr(np.array(space, float).T)
        rows = rows - rows @ q @ q.T
    return (rows + noise * rng.standard_normal(rows.shape)), scale


def span(vectors, columns):
    """The projector on the space."""
    if not len(vectors):
        return np.zeros((columns, columns))
    q, _ = np.linalg.qr(np.array(vectors, float).T)
    return q @ q.T


@pytest.mark.parametrize("noise", [0.0, 1e-10, 1e-5])
@pytest.mark.parametrize("name", SPACES)
def test_the_space_is_found_in_integers(name, noise):
    space = SPACES[name]
    columns = len(space[0]) if space else 5
    rows, _ = measured(space, columns, noise)
    found = null_generators(rows, np.ones(columns))
    assert len(found) == len(space)
    assert all(v.dtype.kind == "i" for v in found)
    np.testing.assert_allclose(span(found, columns), span(space, columns), atol=1e-12)


def test_columns_of_very_different_size():
    space = SPACES["a set and what may grow against a part of it"]
    rows, scale = measured([], 5, 0.0)
    rows = rows * scale
    q, _ = np.linalg.qr((np.array(space, float)).T)
    rows = rows - rows @ q @ q.T  # orthogonal to the generators, in these units
    scale = np.sqrt(np.square(rows).mean(0))
    found = null_generators(rows, scale)
    np.testing.assert_allclose(span(found, 5), span(space, 5), atol=1e-12)


def test_invariant_sets_come_first_and_share_no_column():
    rows, _ = measured([[0, 1, -1, -1, 0], [1, 1, 0, 0, 0]], 5, 1e-11)
    found = null_generators(rows, np.ones(5))
    assert found[0].tolist() == [1, 1, 0, 0, 0]
    positive = [v for v in found if (v >= 0).all()]
    assert len(positive) == 1 or (sum(v > 0 for v in positive) <= 1).all()
    assert np.count_nonzero(found[1]) == 3  # the sparsest of those that complete the basis


def test_a_direction_that_is_only_nearly_null_is_not_taken():
    rows, _ = measured([[1, 1, 0, 0]], 4, 0.0)
    rows[:, 2] *= 1e-4  # below the first threshold, and no integer relation with anything
    rows[:, 3] += 0.377 * rows[:, 2]
    found = null_generators(rows, np.ones(4))
    assert [v.tolist() for v in found if v[0]] == [[1, 1, 0, 0]]


def test_a_nearly_null_direction_does_not_spoil_its_neighbours():
    """Together they have no rational reduced form; a lower threshold tells them apart."""
    rows, _ = measured([[1, 1, 0, 0], [1, 0, 0.3, 0.377]], 4, 0.0)
    near = np.array(
        [1, -1, 0.6, 0.754]
    )  # what the second leaves beside the first, up to its length
    rows += 1e-4 * np.random.default_rng(1).standard_normal((len(rows), 1)) * near
    assert [v.tolist() for v in null_generators(rows, np.ones(4))] == [[1, 1, 0, 0]]
