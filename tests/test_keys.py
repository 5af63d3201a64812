"""Keys: the same integers in Python, NumPy and torch; uniform, unbiased, independent."""

import math

import numpy as np
import pytest
import torch

from graphdyn.keys import GOLDEN, Key, hash_numpy, hash_torch, mix

WORD = 1 << 64
KEYS = [Key(0), Key(-1), Key(2**63), Key(7, 3, 11, ("dropout", 0)), Key(1).fold("a")]


def mixed(z: int) -> int:
    """SplitMix64's finaliser on Python integers, written from the paper."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


def hashed(identity: int, bits: int) -> int:
    inner = mixed((identity + GOLDEN) % WORD) ^ bits
    return mixed((inner + GOLDEN) % WORD)


def chi_square(counts: np.ndarray) -> float:
    """Standardised distance from uniform counts: about standard normal for many cells."""
    expected = counts.sum() / counts.size
    free = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / math.sqrt(2 * free)


def test_the_mixer_gives_the_published_stream_of_splitmix64():
    # First outputs of the reference implementation seeded with 0.
    stream = [mix(GOLDEN * i % WORD) for i in (1, 2, 3)]
    assert stream == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_python_numpy_and_torch_hash_alike(key):
    ids = [0, 1, 2, 63, 2**31 - 1, 2**31, 2**40, 2**63 - 1]
    expected = [hashed(i, key.bits) for i in ids]
    assert hash_numpy(np.array(ids), key.bits).tolist() == expected
    got = hash_torch(torch.tensor(ids), key.bits)
    assert [value % WORD for value in got.tolist()] == expected
    assert torch.equal(got, key.hash(torch.tensor(ids)))


def test_ids_hash_alike_whatever_their_width_and_shape():
    key = Key(3)
    wide = key.hash(torch.arange(12))
    assert torch.equal(wide, key.hash(torch.arange(12, dtype=torch.int32)))
    assert torch.equal(wide.view(3, 4), key.hash(torch.arange(12).view(3, 4)))
    numpy = [hash_numpy(np.arange(12, dtype=t), key.bits) for t in (np.int32, np.int64, np.uint64)]
    assert all((one == numpy[0]).all() for one in numpy)


def test_one_id_has_one_draw_in_whatever_company():
    key, ids = Key(5), torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    for draw in (key.hash, key.uniform, lambda i: key.integers(i, 77)):
        assert torch.equal(draw(torch.arange(1000))[ids], draw(ids))
        assert torch.equal(draw(ids[:10]), draw(ids)[:10])


def test_bounds_may_differ_by_id():
    key, ids = Key(5), torch.arange(500)
    bound = 1 + ids % 13
    mixed_bounds = key.integers(ids, bound)
    assert bool((mixed_bounds < bound).all())
    assert torch.equal(mixed_bounds[bound == 7], key.integers(ids[bound == 7], 7))


@pytest.mark.parametrize(
    "other",
    [
        Key(8, 1, 2, ("a", 0)),
        Key(7, 2, 2, ("a", 0)),
        Key(7, 1, 3, ("a", 0)),
        Key(7, 2, 1, ("a", 0)),
        Key(7, 1, 2, ("b", 0)),
        Key(7, 1, 2, ("a", 1)),
        Key(7, 1, 2, (0, "a")),
        Key(7, 1, 2, ("a",)),
        Key(7, 1, 2, ("a", 0, 0)),
        Key(7, 1, 2, ("a0",)),
    ],
    ids=str,
)
def test_every_part_of_a_key_counts_and_so_does_its_place(other):
    key = Key(7, 1, 2, ("a", 0))
    assert key.bits != other.bits
    # Half of the bits differ, and draws are uncorrelated: neighbours in the path are strangers.
    assert abs((key.bits ^ other.bits).bit_count() - 32) < 5 * 4
    ids = torch.arange(20_000)
    product = (key.uniform(ids) - 0.5) * (other.uniform(ids) - 0.5) * 12
    assert abs(float(product.mean())) < 5 / math.sqrt(len(ids))


def test_fold_and_at_build_the_same_key_as_the_constructor():
    assert Key(7).at(epoch=2, step=5).fold("x", 1).fold(2) == Key(7, 2, 5, ("x", 1, 2))
    assert Key(7, 1, 2).at(step=9) == Key(7, 1, 9)
    assert hash(Key(7).fold("x")) == hash(Key(7, path=("x",)))


def test_no_two_of_many_keys_share_their_bits():
    bits = {Key(s, e, t).bits for s in range(20) for e in range(20) for t in range(50)}
    assert len(bits) == 20_000


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_uniform_numbers_fill_the_unit_interval_evenly(key):
    u = key.uniform(torch.arange(100_000))
    assert u.dtype == torch.float64
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(chi_square(np.histogram(u.numpy(), 64, (0, 1))[0])) < 5
    assert abs(float((u[1:] - 0.5) @ (u[:-1] - 0.5)) * 12 / math.sqrt(len(u))) < 5


def test_flipping_one_bit_of_the_id_flips_half_of_the_hash():
    key, ids = Key(11), torch.arange(4000)
    for bit in range(0, 62, 7):
        changed = (key.hash(ids) ^ key.hash(ids ^ (1 << bit))).numpy().view(np.uint64)
        flips = np.unpackbits(changed.view(np.uint8)).reshape(4000, 64).mean(0)
        assert np.abs(flips - 0.5).max() < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 1000])
def test_integers_are_uniform(bound):
    draws = Key(1).integers(torch.arange(200_000), bound)
    counts = np.bincount(draws.numpy(), minlength=bound)
    assert counts.size == bound
    assert bound == 1 or abs(chi_square(counts)) < 5


@pytest.mark.parametrize("bound", [3 << 30, (1 << 32) - 1, (1 << 31) + 1])
def test_large_bounds_are_unbiased(bound):
    draws = Key(2).integers(torch.arange(200_000), bound)
    assert int(draws.min()) >= 0
    assert int(draws.max()) < bound
    # Multiply-high without rejection gives some residues modulo 3 twice as often at 3 * 2^30.
    counts = np.bincount((draws % 3).numpy(), minlength=3)
    assert abs(chi_square(counts)) < 5
    assert abs(chi_square(np.histogram(draws.numpy(), 50, (0, bound))[0])) < 5


def test_permutations_of_four_are_equally_likely():
    counts: dict[tuple, int] = {}
    for seed in range(6000):
        order = tuple(Key(seed).permutation(4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert abs(chi_square(np.array(list(counts.values())))) < 5


def test_a_long_permutation_holds_everything_once():
    assert Key(0).permutation(10_000).sort().values.tolist() == list(range(10_000))
    assert Key(0).permutation(0).numel() == 0


def test_generators_of_its_own_depend_on_the_key_alone():
    torch.manual_seed(0)
    one = torch.rand(5, generator=Key(3).generator()), Key(3).numpy().random(5)
    torch.manual_seed(1)
    two = torch.rand(5, generator=Key(3).generator()), Key(3).numpy().random(5)
    assert torch.equal(one[0], two[0])
    assert (one[1] == two[1]).all()
    assert not torch.equal(one[0], torch.rand(5, generator=Key(4).generator()))
    assert (one[1] != Key(4).numpy().random(5)).all()


def test_nothing_global_is_read_or_moved():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    key = Key(9)
    key.uniform(torch.arange(9)), key.integers(torch.arange(9), 4), key.permutation(9)
    key.generator(), key.numpy().normal(size=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.gpu
def test_cuda_draws_the_same_numbers():
    ids = torch.arange(10_000)
    for key in KEYS:
        assert torch.equal(key.hash(ids), key.hash(ids.cuda()).cpu())
        assert torch.equal(key.integers(ids, 1000), key.integers(ids.cuda(), 1000).cpu())
