"""Codecs: against the definitions, the bounds of theory, and Python's own integers."""

import numpy as np
import pytest
from contexts import in_round

from gossiplib.protocols.codecs import (
    Parts,
    Qsgd,
    RandomK,
    TopK,
    pack_bits,
    unpack_bits,
)

CODECS = [TopK(0.1), RandomK(0.1), RandomK(0.1, unbiased=True), Qsgd(1), Qsgd(256)]
CODECS += [Qsgd(7, unbiased=True), Parts(7)]
NAMES = [str(codec) for codec in CODECS]


def through(codec, x, server_round=1):
    """Return Q(x) for each row."""
    message = codec.encode(x, in_round(np.arange(len(x)), server_round))
    return codec.decode(message, x.shape[-1])


def many(x, copies=4000):
    """Return the same vector for many clients."""
    return np.broadcast_to(x, (copies, len(x)))


def vector(size, seed=0):
    return np.random.default_rng(seed).normal(size=size)


def within(found, expected, copies_axis=0, errors=5.0):
    """Tell whether a mean over independent copies is what is expected."""
    error = found.std(axis=copies_axis) / found.shape[copies_axis] ** 0.5
    return (np.abs(found.mean(axis=copies_axis) - expected) <= errors * error).all()


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("size", [1, 7, 64, 101])
def test_symbols_are_packed_one_after_the_other(bits, size):
    rng = np.random.default_rng(bits)
    symbols = rng.integers(2**bits, size=(3, size))
    packed = pack_bits(symbols, bits)
    for row, said in zip(packed, symbols, strict=True):
        text = "".join(f"{symbol:0{bits}b}" for symbol in said)
        text += "0" * (-len(text) % 8)
        assert bytes(row) == int(text, 2).to_bytes(len(text) // 8, "big")
    assert np.array_equal(unpack_bits(packed, bits, size), symbols)
    assert np.array_equal(unpack_bits(packed[0], bits, size), symbols[0])


@pytest.mark.parametrize(
    ("levels", "bits"), [(1, 2), (3, 3), (7, 4), (127, 8), (128, 9), (256, 10)]
)
def test_qsgd_takes_the_bits_that_its_symbols_need(levels, bits):
    norm, packed = Qsgd(levels).encode(np.float32(vector(1000)), in_round(0))
    assert norm.nbytes == 4 and packed.nbytes == 1000 * bits / 8


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, "u1"), (257, "u2"), (65_536, "u2"), (70_000, "u4")]
)
@pytest.mark.parametrize("codec", [TopK(0.01), RandomK(0.01)])
def test_places_take_few_bytes(codec, size, dtype):
    places, values = codec.encode(np.float32(vector(size)), in_round(0))
    assert places.dtype == dtype and values.dtype == np.float32
    assert places.shape == values.shape == (round(0.01 * size),)
    assert (np.diff(places.astype(int)) > 0).all()


def test_top_k_says_the_largest():
    x = vector(50)
    order = sorted(range(50), key=lambda i: -abs(x[i]))
    expected = [x[i] if i in order[:5] else 0 for i in range(50)]
    assert through(TopK(0.1), x[None])[0].tolist() == expected


def test_top_k_errs_no_more_than_random_k_on_average():
    x = vector(50)
    error = ((through(TopK(0.1), x[None]) - x) ** 2).sum()
    assert error < (1 - 0.1) * (x**2).sum()
    ones = np.ones((1, 50))  # there is equality where all are alike
    assert ((through(TopK(0.1), ones) - ones) ** 2).sum() == pytest.approx(45)


def test_random_k_errs_by_1_minus_omega():
    x = vector(50)
    q = through(RandomK(0.2), many(x))
    assert ((q != 0).sum(axis=1) == 10).all()
    assert within(((q - x) ** 2).sum(axis=1), 0.8 * (x**2).sum())
    assert within(q != 0, 0.2)  # each place alike
    assert within(((q != 0)[:, 0] & (q != 0)[:, 1]).astype(float), 10 * 9 / (50 * 49))


def test_unbiased_random_k_is_unbiased():
    x = vector(50)
    q = through(RandomK(0.2, unbiased=True), many(x))
    assert within(q, x)
    assert within(((q - x) ** 2).sum(axis=1), (5 - 1) * (x**2).sum())


@pytest.mark.parametrize("levels", [1, 2, 4, 16, 256])
@pytest.mark.parametrize("unbiased", [False, True])
def test_qsgd_errs_as_theory_says(levels, unbiased):
    x, size = vector(50), 50
    codec = Qsgd(levels, unbiased=unbiased)
    q = through(codec, many(x))
    norm2 = (x**2).sum()
    bound = min(size / levels**2, size**0.5 / levels)
    tau = 1 if unbiased else 1 + bound
    assert within(q, x / tau)
    errors = ((q - x) ** 2).sum(axis=1)
    assert errors.mean() <= (bound if unbiased else 1 - 1 / tau) * norm2
    # A number that lies at the share p between two levels is rounded up with chance p.
    p = np.abs(x) * levels / norm2**0.5 % 1
    variance = (p * (1 - p)).sum() * norm2 / levels**2
    assert within(errors, variance / tau**2 + (1 - 1 / tau) ** 2 * norm2)
    steps = q * tau * levels / norm2**0.5
    assert np.allclose(steps, np.rint(steps)) and np.abs(steps).max() < levels + 0.5


def test_qsgd_s_bits_say_what_the_formula_says():
    x, s, size = vector(30), 4, 30
    where = in_round(np.arange(5), 3)
    message = Qsgd(s, seed=2).encode(np.broadcast_to(x, (5, size)), where)
    xi = np.random.Generator(np.random.PCG64([2, 3, *b"turn"])).random((5, size))
    norm, tau = np.linalg.norm(x), 1 + min(size / s**2, size**0.5 / s)
    expected = np.sign(x) * norm / (s * tau) * np.floor(s * np.abs(x) / norm + xi)
    assert np.allclose(Qsgd(s).decode(message, size), expected)


def test_parts_say_all_after_as_many_rounds():
    x, said = vector(23)[None], np.zeros(23)
    for t in range(1, 8):
        q = through(Parts(7), x, t)[0]
        assert np.array_equal(np.flatnonzero(q), np.arange(t % 7, 23, 7))
        said += q
    assert np.array_equal(said, x[0])


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_one_client_says_the_same_as_among_many(codec, dtype):
    x = np.random.default_rng(1).normal(size=(9, 333)).astype(dtype)
    together = codec.encode(x, in_round(np.arange(9), 4))
    for i in (0, 4, 8):
        alone = codec.encode(x[i], in_round(i, 4))
        assert [a.dtype for a in alone] == [a.dtype for a in together]
        assert all(
            np.array_equal(a, b[i]) for a, b in zip(alone, together, strict=True)
        )
        assert np.array_equal(codec.decode(alone, 333), codec.decode(together, 333)[i])
        assert codec.decode(alone, 333).dtype == dtype


@pytest.mark.parametrize("codec", [RandomK(0.1), Qsgd(1)], ids=str)
def test_draws_depend_on_seed_client_and_round(codec):
    x = many(vector(100), 2)
    first, second = through(codec, x)
    other = through(type(codec)(*list(vars(codec).values())[:1], seed=1), x)[0]
    later = through(codec, x, 2)[0]
    assert not any(np.array_equal(first, q) for q in (second, other, later))
    assert np.array_equal(first, through(codec, x)[0])


@pytest.mark.parametrize("codec", [TopK(0.3), RandomK(0.3), Parts(4)], ids=str)
def test_what_is_missing_may_be_told(codec):
    x, other = vector(20)[None], vector(20, 1)[None]
    message = codec.encode(x, in_round(np.arange(1)))
    said = codec.decode(message, 20) != 0
    filled = codec.decode(message, 20, missing=other)
    assert np.array_equal(filled, np.where(said, x, other))


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
def test_zeros_stay_zeros(codec):
    assert np.array_equal(through(codec, np.zeros((2, 20))), np.zeros((2, 20)))


@pytest.mark.parametrize("codec", [TopK(0.1), RandomK(1), Parts(1)], ids=str)
def test_one_number_is_said(codec):
    assert through(codec, np.array([[-2.5]])).tolist() == [[-2.5]]


def test_one_number_is_on_qsgd_s_highest_level():
    assert through(Qsgd(5, unbiased=True), np.array([[-2.5]])).tolist() == [[-2.5]]


def test_large_and_small_numbers_are_not_lost():
    for scale in (1e30, 1e-30):
        x = np.float32(scale * vector(50))[None]
        q = through(Qsgd(256, unbiased=True), x)
        assert q.dtype == np.float32 and np.allclose(q, x, atol=scale / 20)


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(codec, value):
    x = vector(20)
    x[3] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        codec.encode(x, in_round(0))


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
def test_nothing_cannot_be_said(codec):
    with pytest.raises(ValueError, match="nothing to send"):
        codec.encode(np.empty(0), in_round(0))


@pytest.mark.parametrize("share", [0, -0.1, 1.5, np.nan])
@pytest.mark.parametrize("kind", [TopK, RandomK])
def test_wrong_shares_are_refused(kind, share):
    with pytest.raises(ValueError, match="share must be above 0 and at most 1; got"):
        kind(share)


@pytest.mark.parametrize("levels", [0, -1, 2.5, 32_768])
def test_wrong_levels_are_refused(levels):
    with pytest.raises(
        ValueError, match="levels must be a whole number, 1 to 32767; got"
    ):
        Qsgd(levels)


def test_wrong_numbers_of_parts_are_refused():
    with pytest.raises(
        ValueError, match="count must be a whole number, 1 to 65536; got 0"
    ):
        Parts(0)
    with pytest.raises(ValueError, match="3 numbers do not make 4 parts"):
        Parts(4).encode(vector(3), in_round(0))


@pytest.mark.parametrize(
    ("codec", "message", "says"),
    [
        (
            TopK(0.1),
            [np.array([20]), np.array([1.0])],
            "places 20 to 20, but there are 20",
        ),
        (TopK(0.1), [np.array([-1]), np.array([1.0])], "places -1 to -1"),
        (TopK(0.1), [np.array([1.0])], "1 arrays instead of 2"),
        (Qsgd(1), [np.ones(1), np.ones(4, "u1")], "20 numbers of 2 bits do not make 4"),
        (Parts(4), [np.array([1]), np.ones(3)], "not part 1 of 20 numbers"),
        (Parts(4), [np.array([1, 2]), np.ones(5)], "not part 1"),
    ],
)
def test_wrong_messages_are_refused(codec, message, says):
    with pytest.raises(ValueError, match=says):
        codec.decode(message, 20)
