from __future__ import annotations

import numpy as np
import pytest

from conftest import unit
from hashlgn.errors import ArgumentError
from hashlgn.experiments.baselines.quantizers import QUANTIZERS, quantize
from hashlgn.scoring.codes import unpack_signs

VECTORS = np.ascontiguousarray(unit(300, 16).numpy() * np.linspace(0.5, 2, 300)[:, None], np.float32)
SIGNS = [name for name in QUANTIZERS if name.startswith(("hyper", "itq"))]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_rank_as_the_vectors_do_and_more_bits_do_it_better(name: str) -> None:
    queries = unit(40, 16).numpy()
    exact = queries @ VECTORS.T

    def agreement(bits: int) -> float:
        found = quantize(VECTORS, name, bits)
        assert (len(found.items), found.items.bytes_per_item) == (300, bits / 8)
        scores = found.queries(queries) @ found.items.decode().T
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(exact, scores, strict=True)]))

    few, many = agreement(16), agreement(64)
    assert many > few and many > (0.7 if name in SIGNS else 0.9)


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if not name.endswith("-hamming")])
def test_a_scale_gives_back_the_lengths(name: str) -> None:
    items = quantize(VECTORS, name, 32, scale=True).items
    assert items.bytes_per_item == 32 / 8 + 2
    np.testing.assert_allclose(np.linalg.norm(items.decode(), axis=1), np.linalg.norm(VECTORS, axis=1), rtol=2e-3)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_seed_fixes_the_codes(name: str) -> None:
    one, two = (quantize(VECTORS, name, 16, seed=3).items for _ in range(2))
    np.testing.assert_array_equal(one.packed, two.packed)


def test_hamming_queries_are_signs_and_the_score_is_the_distance() -> None:
    found = quantize(VECTORS, "itq-hamming", 16)
    queries, codes = found.queries(VECTORS[:5]), unpack_signs(found.items.packed)
    np.testing.assert_array_equal(queries, codes[:5])
    differ = (codes[:5, None] != codes[None]).sum(axis=2)
    np.testing.assert_array_equal(queries @ found.items.decode().T, 16 - 2 * differ)


def test_a_product_code_of_few_vectors_is_exact() -> None:
    vectors = np.ascontiguousarray(np.tile(unit(16, 8).numpy(), (20, 1)), np.float32)
    np.testing.assert_allclose(quantize(vectors, "product", 8).items.decode(), vectors, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VECTORS, "zip", 16), "quantizer must be one of"),
        ((VECTORS, "itq", 12), "bits must be a positive multiple of 8"),
        ((VECTORS[:10], "itq", 16), "at least 16 items"),
    ],
)
def test_bad_arguments(arguments, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        quantize(*arguments)


def test_distances_have_no_scale() -> None:
    with pytest.raises(ArgumentError, match="scale must be False"):
        quantize(VECTORS, "itq-hamming", 16, scale=True)
