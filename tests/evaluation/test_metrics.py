import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.evaluation import metrics
from hashlgn.evaluation.metrics import METRICS, Evaluated

RATES = [name for name in METRICS if name != "answer_size"]


def ragged(rows):
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    return indptr, np.array([value for row in rows for value in row], np.int64)


def judge(answers, truths):
    return Evaluated.build(*ragged(answers), *ragged([sorted(truth) for truth in truths]))


def one(name, answer, truth, k):
    (value,) = METRICS[name](judge([answer], [truth]), k)
    return value


# One answer, two hits at places 2 and 4, three relevant items, cutoff at 4.
D2, D3, D4 = 1 / np.log2(3), 1 / np.log2(4), 1 / np.log2(5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("precision", 2 / 4),
        ("recall", 2 / 3),
        ("f1", 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)),
        ("ndcg", (D2 + D4) / (1 + D2 + D3)),
        ("ndcg_paper", (D2 + D4) / (1 + D2 + D3 + D4)),
        ("ndcg_bigear", (D2 + D4) / (1 + D2 + D3)),  # the third hit, at place 6, is in the longest list
        ("ndcg_hashgnn", (D2 + D4) / (1 + D2)),
        ("map", (1 / 2 + 2 / 4) / 3),
        ("mrr", 1 / 2),
        ("hit_rate", 1),
        ("answer_size", 4),
        ("empty", 0),
    ],
)
def test_worked_by_hand(name, expected):
    assert one(name, [9, 1, 8, 2, 7, 3], {1, 2, 3}, 4) == pytest.approx(expected, rel=1e-12)


def test_a_short_answer_still_pays_for_the_whole_cut():
    assert one("precision", [1], {1}, 10) == pytest.approx(0.1)
    assert one("f1", [1], {1}, 10) == pytest.approx(2 / 11)
    assert one("ndcg", [1], {1, 2}, 10) == pytest.approx(1 / (1 + D2))
    assert one("map", [1], {1, 2}, 10) == pytest.approx(1 / 2)


def test_a_whole_answer_is_cut_at_its_own_size():
    evaluated = judge([[5, 1], [], [4, 6, 2]], [{1, 3}, {1}, {2, 4}])
    np.testing.assert_allclose(METRICS["precision"](evaluated, None), [1 / 2, 0, 2 / 3])
    np.testing.assert_allclose(METRICS["recall"](evaluated, None), [1 / 2, 0, 1])
    np.testing.assert_allclose(METRICS["f1"](evaluated, None), [1 / 2, 0, 4 / 5])
    np.testing.assert_allclose(METRICS["answer_size"](evaluated, None), [2, 0, 3])
    np.testing.assert_allclose(METRICS["empty"](evaluated, None), [0, 1, 0])
    for name in METRICS.keys() - {"answer_size", "empty"}:
        assert METRICS[name](evaluated, None)[1] == 0


def test_bigear_depends_on_the_longest_list():
    long, short = judge([[9, 1, 8, 2]], [{1, 2}]), judge([[9, 1]], [{1, 2}])
    assert metrics.ndcg_bigear(short, 2)[0] == pytest.approx(D2)
    assert metrics.ndcg_bigear(long, 2)[0] == pytest.approx(D2 / (1 + D2))


def test_f1_of_means_is_not_the_mean_of_f1():
    evaluated = judge([[1, 2], [8, 9]], [{1, 2}, {3}])
    p, r = metrics.precision(evaluated, 2), metrics.recall(evaluated, 2)
    assert metrics.f1(evaluated, 2).mean() == pytest.approx(0.5)
    assert metrics.f1_of_means([1, 0.5], [0.5, 0]) == pytest.approx(2 * 0.75 * 0.25)
    assert metrics.f1_of_means(p * 0, r * 0) == 0


def test_coverage():
    assert metrics.coverage([3, 3, 0], 4) == 0.5
    assert metrics.coverage([], 4) == 0
    with pytest.raises(ArgumentError, match=r"items must hold item numbers in 0 … 3 \(got 4\)"):
        metrics.coverage([4], 4)


def test_gini() -> None:
    assert metrics.gini([0, 1, 2, 3], 4) == 0 and metrics.gini([], 4) == 0
    assert metrics.gini([2, 2, 2], 4) == pytest.approx(0.75)  # one of four items has everything
    counts = np.array([5, 1, 0, 2])
    plain = np.abs(counts[:, None] - counts).sum() / (2 * len(counts) * counts.sum())  # mean difference of all pairs
    assert metrics.gini(np.repeat(np.arange(4), counts), 4) == pytest.approx(plain)


@st.composite
def cases(draw):
    n_items = draw(st.integers(1, 12))
    items = st.permutations(range(n_items))
    users = draw(st.integers(1, 6))
    answers = [draw(items)[: draw(st.integers(0, n_items))] for _ in range(users)]
    truths = [set(draw(items)[: draw(st.integers(1, n_items))]) for _ in range(users)]
    return answers, truths


def slow(name, answer, truth, k):
    """One user, one loop, straight from the equations."""
    whole = answer
    cutoff = len(answer) if k is None else k
    answer = answer[:cutoff]
    flags = [item in truth for item in answer]
    hits = sum(flags)

    def ideal(n):
        return sum(1 / np.log2(j + 1) for j in range(1, n + 1))

    dcg = sum(flag / np.log2(j + 1) for j, flag in enumerate(flags, 1))
    depth = {
        "ndcg": min(cutoff, len(truth)),
        "ndcg_paper": cutoff,
        "ndcg_bigear": min(cutoff, len(truth & set(whole))),
        "ndcg_hashgnn": hits,
    }
    if name in depth:
        return dcg / ideal(depth[name]) if depth[name] else 0
    p, r = (hits / cutoff if cutoff else 0), hits / len(truth)
    return {
        "precision": p,
        "recall": r,
        "f1": 2 * p * r / (p + r) if hits else 0,
        "map": sum(sum(flags[: j + 1]) / (j + 1) for j, flag in enumerate(flags) if flag)
        / max(1, min(cutoff, len(truth))),
        "map_trec": sum(sum(flags[: j + 1]) / (j + 1) for j, flag in enumerate(flags) if flag) / len(truth),
        "r_precision": sum(flags[: len(truth)]) / len(truth),
        "mrr": 1 / (flags.index(True) + 1) if hits else 0,
        "hit_rate": float(hits > 0),
        "answer_size": len(answer),
        "empty": float(not answer),
    }[name]


@given(cases(), st.none() | st.integers(1, 15))
@settings(max_examples=150, deadline=None)
def test_equals_the_plain_loop(case, k):
    answers, truths = case
    evaluated = judge(answers, truths)
    for name, metric in METRICS.items():
        expected = [slow(name, answer, truth, k) for answer, truth in zip(answers, truths, strict=True)]
        np.testing.assert_allclose(metric(evaluated, k), expected, rtol=1e-12, atol=1e-12, err_msg=name)


@given(cases(), st.none() | st.integers(1, 15))
@settings(deadline=None)
def test_rates_lie_between_0_and_1(case, k):
    evaluated = judge(*case)
    for name in RATES:
        values = METRICS[name](evaluated, k)
        assert values.shape == (len(evaluated),) and values.dtype == np.float64
        assert (values >= 0).all() and (values <= 1 + 1e-12).all(), name


@given(cases(), st.integers(1, 15))
@settings(deadline=None)
def test_recall_and_hits_never_fall_with_k(case, k):
    evaluated = judge(*case)
    for name in ("recall", "hit_rate", "mrr", "answer_size"):
        assert (METRICS[name](evaluated, k + 1) >= METRICS[name](evaluated, k)).all(), name


@given(cases(), st.integers(1, 15))
@settings(deadline=None)
def test_a_perfect_ranking_scores_one(case, k):
    _, truths = case
    evaluated = judge([[*truth, 99, 98] for truth in truths], truths)
    for name in ("ndcg", "ndcg_bigear", "ndcg_hashgnn", "map", "mrr", "hit_rate"):
        np.testing.assert_allclose(METRICS[name](evaluated, k), 1, rtol=1e-12, err_msg=name)


@given(cases(), st.integers(1, 15), st.data())
@settings(deadline=None)
def test_batches_join_to_the_whole(case, k, data):
    answers, truths = case
    split = data.draw(st.integers(0, len(answers)))
    joined = Evaluated.concatenate([judge(answers[:split], truths[:split]), judge(answers[split:], truths[split:])])
    whole = judge(answers, truths)
    for name, metric in METRICS.items():
        np.testing.assert_array_equal(metric(joined, k), metric(whole, k), err_msg=name)


def test_agrees_with_ranx(monkeypatch):
    """The MAP of ranx divides by |T|, as ``map_trec``; its R-precision has no cutoff."""
    numba = pytest.importorskip("numba", reason="ranx, which needs it, comes with the dev extra")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)  # compiling takes half a minute; these are 30 users
    ranx = pytest.importorskip("ranx", reason="ranx comes with the dev extra")
    rng = np.random.default_rng(3)
    k, n_items = 5, 40
    answers = [rng.permutation(n_items)[:8].tolist() for _ in range(30)]
    truths = [set(rng.permutation(n_items)[: rng.integers(1, 12)].tolist()) for _ in range(30)]
    qrels = ranx.Qrels({str(u): {str(i): 1 for i in truth} for u, truth in enumerate(truths)})
    run = ranx.Run({str(u): {str(i): 1.0 - j / 100 for j, i in enumerate(row)} for u, row in enumerate(answers)})
    names = {"precision": "precision", "recall": "recall", "f1": "f1", "ndcg": "ndcg", "mrr": "mrr"}
    names |= {"hit_rate": "hit_rate", "map_trec": "map"}
    theirs = ranx.evaluate(qrels, run, [*(f"{name}@{k}" for name in names.values()), "r-precision"])
    evaluated = judge(answers, truths)
    for ours, name in names.items():
        assert METRICS[ours](evaluated, k).mean() == pytest.approx(theirs[f"{name}@{k}"], rel=1e-9), ours
    assert metrics.r_precision(evaluated).mean() == pytest.approx(theirs["r-precision"], rel=1e-9)


def test_bootstrap_covers_the_mean_at_about_its_level():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = metrics.bootstrap_interval(rng.normal(1.0, 2.0, 60), level=0.8, samples=200, seed=trial)
        covered += low <= 1.0 <= high
    assert 0.7 <= covered / 200 <= 0.88  # three standard errors around 0.8, and the small-sample shortfall


def test_bootstrap_width_follows_the_standard_error():
    values = np.random.default_rng(1).normal(size=400)
    low, high = metrics.bootstrap_interval(values, samples=4000)
    expected = 2 * 1.96 * values.std() / np.sqrt(len(values))
    assert high - low == pytest.approx(expected, rel=0.08)
    assert (low, high) == metrics.bootstrap_interval(values, samples=4000)
    assert (low, high) != metrics.bootstrap_interval(values, samples=4000, seed=1)


def test_bootstrap_of_a_constant_is_that_constant():
    assert metrics.bootstrap_interval([0.25] * 7) == (0.25, 0.25)


def test_bootstrap_draws_are_the_same_in_any_chunk(monkeypatch):
    values = np.random.default_rng(2).random(50)
    whole = metrics.bootstrap_interval(values, samples=100)
    monkeypatch.setattr(metrics.bootstrap, "_CHUNK", 170)
    assert metrics.bootstrap_interval(values, samples=100) == whole


def test_paired_bootstrap_sees_what_the_models_share():
    rng = np.random.default_rng(4)
    hardness = rng.random(500)
    difference, (low, high) = metrics.paired_bootstrap(hardness + 0.01 + rng.normal(0, 0.01, 500), hardness)
    assert difference == pytest.approx(0.01, abs=0.002)
    assert 0 < low < difference < high < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [1], [0, 0], []), "row 0 has none"),
        (([0, 1], [1], [0, 1, 2], [1, 1]), "truth_indptr must have 1 rows"),
        (([0, 2], [1], [0, 1], [1]), "indptr must ascend from 0 to the length of items"),
        (([1, 1], [1], [0, 1], [1]), "indptr must ascend"),
        (([], [], [0, 1], [1]), "indptr must ascend"),
        (([0, 1], [-1], [0, 1], [1]), "items must be a flat array of non-negative integers"),
        (([0, 1], [1.5], [0, 1], [1]), "items must be a flat array of non-negative integers"),
        (([0, 1], [1], [0, 2], [2, 1]), "strictly ascending"),
        (([0, 1], [1], [0, 2], [1, 1]), "strictly ascending"),
        (([0, 2], [1, 1], [0, 1], [1]), "at most once"),
        (([0, 1, 1], [2**62], [0, 1, 2], [1, 1]), "item numbers must be below"),
    ],
)
def test_malformed_answers_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Evaluated.build(*arguments)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_k_must_be_a_positive_integer(k):
    for metric in METRICS.values():
        if metric is not METRICS["empty"]:
            with pytest.raises(ArgumentError, match="k must be a positive integer"):
                metric(judge([[1]], [{1}]), k)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.bootstrap_interval([]), "values must be a flat array"),
        (lambda: metrics.bootstrap_interval([np.nan]), "values must be a flat array"),
        (lambda: metrics.bootstrap_interval([1.0], level=1), "level must lie between 0 and 1"),
        (lambda: metrics.bootstrap_interval([1.0], samples=0), "samples must be a positive integer"),
        (lambda: metrics.paired_bootstrap([1.0, 2.0], [1.0]), "a and b must hold the same users"),
        (lambda: metrics.f1_of_means([], []), "precisions must be a flat array"),
        (lambda: Evaluated.concatenate([]), "parts must hold at least one batch"),
        (lambda: metrics.coverage([0], 0), "n_items must be a positive integer"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_every_metric_states_its_definition():
    for metric in METRICS.values():
        assert inspect.getdoc(metric)
