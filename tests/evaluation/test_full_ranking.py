from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import hashlgn
from conftest import clusters
from hashlgn.data import Ids, Interactions, global_time, random_ratio
from hashlgn.errors import ArgumentError, ArtifactError, DataError
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.items import FloatItems


def by_hand() -> Recommender:
    """Users 7 and 9 rank 10, 11, 12, 13, user 8 the other way round; 7 has seen 10, 8 has seen 12, 9 nothing."""
    return Recommender(
        ServedModel(
            kind="float",
            config={},
            user_ids=Ids([7, 8, 9]),
            item_ids=Ids([10, 11, 12, 13]),
            users=np.array([[1.0], [-1.0], [1.0]], np.float32),
            items=FloatItems(np.array([[4.0], [3.0], [2.0], [1.0]], np.float32)),
            stored=Stored.of(np.array([0, 1, 2, 2]), np.array([0, 2], np.int32)),
        )
    )


def test_worked_by_hand() -> None:
    # 7 gets 11, 12 and is tested on 12: rank 2. 8 gets 13, 11 and is tested on 13 and 10: rank 1, and one missed.
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 8, 8], [12, 13, 10]), k=2)
    cutoff = result.at(2)
    assert cutoff.per_user["recall"].tolist() == [1.0, 0.5]
    assert cutoff.per_user["precision"].tolist() == [0.5, 0.5]
    assert cutoff.per_user["mrr"].tolist() == [0.5, 1.0]
    second = 1 / np.log2(3)
    np.testing.assert_allclose(cutoff.per_user["ndcg"], [second, 1 / (1 + second)])
    assert cutoff.coverage == 0.75
    assert cutoff.gini == pytest.approx(0.375)  # 11 twice, 12 and 13 once, 10 never
    assert result.users.tolist() == [7, 8]


def test_thresholds_report_size_and_emptiness() -> None:
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 8], [12, 13]), k=(), threshold=[1.5, 0.0])
    high, zero = result.cutoffs
    assert high.per_user["answer_size"].tolist() == [2, 0]  # 7 has seen 10, which scores 4
    assert high.per_user["empty"].tolist() == [0, 1]
    assert high.per_user["recall"].tolist() == [1, 0]
    assert zero.per_user["answer_size"].tolist() == [3, 0]
    assert high.coverage == 0.5


def test_what_cannot_be_answered_is_left_out_and_counted() -> None:
    test = Interactions.from_pairs([7, 7, 7, 19], [10, 12, 99, 11])  # 10 is seen, 99 and user 19 are unknown
    result = hashlgn.evaluate(by_hand(), test, k=2)
    assert (result.interactions, result.seen, result.dropped.interactions) == (1, 1, 2)
    assert result.at(2).per_user["recall"].tolist() == [1.0]
    with pytest.raises(DataError, match="test must hold"):
        hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 9], [10, 11]), k=2)


def test_users_without_training_interactions_are_left_out_though_the_catalogue_knows_them() -> None:
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 9, 9, 19], [12, 10, 11, 11]), k=2)
    assert result.users.tolist() == [7]
    assert (result.dropped.users, result.dropped.items, result.dropped.interactions) == (2, 0, 3)
    data = clusters()
    data = dataclasses.replace(data, times=np.arange(len(data)))  # the last users are new in the test
    train, test = global_time(data, 0.3)  # the parts of a split share one catalogue
    model = hashlgn.LightGCN(config={"model.dim": 8, "train.pretrain_epochs": 2}).fit(train)
    cold = np.flatnonzero((np.diff(test.indptr) > 0) & (np.diff(train.indptr) == 0))
    warm = np.flatnonzero((np.diff(test.indptr) > 0) & (np.diff(train.indptr) > 0))
    both = test.select(np.isin(test.rows, warm) | np.isin(test.rows, cold))
    result = hashlgn.evaluate(model, both, k=5)
    assert len(cold) and len(warm) and result.dropped.users == len(cold)
    assert result.users.tolist() == test.user_ids.decode(warm).tolist()


ANSWERS = {"user": [8, 7, 8, 7], "item": [11, 12, 13, 11], "score": [-3.0, 2.0, -1.0, 3.0], "rank": [2, 2, 1, 1]}
TEST = ([7, 8, 8], [12, 13, 10])


def forms(tmp_path: Path) -> dict[str, object]:
    """The answers of ``by_hand`` at 2, as they may come from elsewhere."""
    table = pa.table(ANSWERS)
    pq.write_table(table, tmp_path / "a.parquet")
    pacsv.write_csv(table, tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    renamed = table.drop_columns(["rank"]).rename_columns(["userId", "movieId", "score"])
    ordered = table.sort_by([("user", "ascending"), ("rank", "ascending")]).select(["item", "user"])
    return {
        "table": by_hand().recommend([7, 8], 2),
        "arrow": table,
        "pandas": table.to_pandas(),
        "polars": pytest.importorskip("polars").from_arrow(table),
        "mapping": ANSWERS,
        "by score, other names": renamed,
        "by order": ordered,
        **{suffix: tmp_path / f"a.{suffix}" for suffix in ("parquet", "csv", "jsonl")},
        "path as text": str(tmp_path / "a.csv"),
    }


def test_answers_from_elsewhere_are_worth_what_the_model_is(tmp_path: Path) -> None:
    test, train = Interactions.from_pairs(*TEST), Interactions.from_pairs([7, 8, 9], [10, 12, 11])
    train = Interactions.from_codes(Ids([7, 8, 9]), Ids([10, 11, 12, 13]), np.array([0, 1]), np.array([0, 2]))
    want = hashlgn.evaluate(by_hand(), test, k=2).at(2)
    for name, answers in forms(tmp_path).items():
        for known in (None, train):
            cutoff = hashlgn.evaluate(answers, test, k=2, train=known).at(2)
            for metric, values in want.per_user.items():
                np.testing.assert_array_equal(cutoff.per_user[metric], values, err_msg=f"{name} {metric}")
            assert (cutoff.coverage, cutoff.gini) == ((None, None) if known is None else (want.coverage, want.gini))
    over = hashlgn.evaluate(ANSWERS, test, k=(), threshold=-2.0).cutoffs[0]
    assert over.per_user["answer_size"].tolist() == [2, 1]
    left = hashlgn.evaluate(ANSWERS, Interactions.from_pairs([7, 7, 9], [10, 12, 11]), k=2, train=train)
    assert (left.users.tolist(), left.seen, left.dropped.users) == ([7], 1, 1)


def test_quotes_in_a_file_of_answers_swallow_no_rows(tmp_path: Path) -> None:
    test = Interactions.from_pairs([1, 2, 3], [2, 4, 6])

    def recall(name: str, text: str) -> list[float]:
        (tmp_path / name).write_text(text)
        return hashlgn.evaluate(tmp_path / name, test, k=1).at(1).per_user["recall"].tolist()

    assert recall("a.tsv", 'user\titem\ttitle\n1\t2\t"weird al\n2\t4\tabba\n3\t6\tqueen\n') == [1, 1, 1]
    assert recall("a.csv", 'user;item;title\n1;2;"weird; al"\n2;4;abba\n3;6;queen\n') == [1, 1, 1]
    for stray in ('user,item\n1,2\n2,"4\n3,6\n', 'user,item,title\n1,2,"weird al\n2,4,abba\n3,6,queen"\n'):
        with pytest.raises(DataError, match="quote"):
            recall("a.csv", stray)


def test_an_object_with_recommend_is_asked_for_the_users_of_the_test() -> None:
    asked = []

    class Popular:
        def recommend(self, users: object, k: int) -> dict[str, object]:
            asked.append((list(users), k))
            return {"user": np.repeat(users, 2), "item": [12, 99] * len(users)}

    result = hashlgn.evaluate(Popular(), Interactions.from_pairs(*TEST), k=(1, 2))
    assert asked == [([7, 8], 2)]
    assert result.at(1).per_user["recall"].tolist() == [1, 0]
    missing = hashlgn.evaluate({"user": [7], "item": [12]}, Interactions.from_pairs(*TEST), k=1)
    assert missing.at(1).per_user["recall"].tolist() == [1, 0]  # nobody told 8 anything

    class Other:
        def recommend(self, userid: int, user_items: object, n: int) -> None: ...

    with pytest.raises(ArgumentError, match=r"model\.recommend must take users= and k="):
        hashlgn.evaluate(Other(), Interactions.from_pairs(*TEST), k=1)


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        (7, ArgumentError, "model must be a model, an object with recommend, a table"),
        ([1, 2], ArgumentError, "model must be a model"),
        ({"who": [7], "item": [12]}, DataError, "no column for the user"),
        ({"user": [7, 7], "item": [12, 12]}, DataError, "each item at most once"),
        ({"user": [7], "item": [12], "rank": ["first"]}, DataError, "'rank' must hold numbers"),
        ({"user": [7], "item": [12], "score": [float("nan")]}, DataError, "'score' must hold numbers"),
        ({"user": [7], "item": [1.5]}, DataError, "item must"),
        ({"user": [7, 8], "item": [12]}, DataError, "cannot be read as a table"),
        ("{tmp}/none.csv", DataError, "cannot be read as answers: no such file"),
        ("{tmp}/" + "x" * 5000 + ".csv", DataError, "cannot be read as answers"),
        ("{tmp}/empty.csv", DataError, "the file is empty"),
        ("{tmp}/broken.parquet", DataError, "cannot be read as answers"),
        ("{tmp}/nothing", ArtifactError, "nothing"),
    ],
)
def test_what_is_no_answer_is_named(answers: object, error: type[Exception], message: str, tmp_path: Path) -> None:
    for name in ("empty.csv", "broken.parquet"):
        (tmp_path / name).write_bytes(b"")
    if isinstance(answers, str):
        answers = answers.replace("{tmp}", str(tmp_path))
    with pytest.raises(error, match=message) as caught:
        hashlgn.evaluate(answers, Interactions.from_pairs(*TEST), k=1)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be a positive integer"),
        ({"k": ()}, "k must hold at least one cutoff"),
        ({"k": "20"}, "k must be a positive integer"),
        ({"k": [[3]]}, "k must be a positive integer"),
        ({"threshold": float("nan")}, "threshold must be a number"),
        ({"threshold": "0.5"}, "threshold must be a number"),
        ({"metrics": ["recal"]}, "metric must be one of"),
        ({"metrics": [[]]}, "metric must be one of"),
        ({"metrics": None}, "metric must be one of"),
        ({"metrics": 5}, "metric must be one of"),
        ({"train": Interactions.from_pairs([7], [12])}, "train must be left out"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hashlgn.evaluate(by_hand(), Interactions.from_pairs([7], [12]), **arguments)


def test_harmless_cuts_are_taken_and_a_result_prints_short() -> None:
    test = Interactions.from_pairs(*TEST)
    for k in (np.int64(2), np.array([2]), np.array(2), iter([2]), {2}):
        assert hashlgn.evaluate(by_hand(), test, k).at(2).mean("recall") == 0.75
    result = hashlgn.evaluate(by_hand(), test, (1, 2), threshold=-5, metrics="recall")
    assert len(repr(result)) < 600 and "@2" in repr(result) and "> -5" in repr(result) and "2 users" in str(result)
    shown, more = result._repr_html_().split("<details>")
    assert "&gt; -5" in shown and shown.count("<tr>") == 4 and "users, few" in more
    assert repr(result.at(2)) == "Cutoff(@2: recall 0.7500)"
    with pytest.raises(ArgumentError, match="metric must be one of 'recall'"):
        result.at(2).mean("ndcg")


def test_k_beyond_the_catalogue_and_a_cut_not_asked_for() -> None:
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 8], [12, 10]), k=1000)
    assert result.at(1000).per_user["recall"].tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="k must be one that was evaluated"):
        result.at(20)


def test_results_are_json_with_intervals_around_the_means() -> None:
    train, test = random_ratio(clusters(), seed=1)
    model = hashlgn.LightGCN(config={"model.dim": 8, "train.pretrain_epochs": 2, "train.joint_epochs": 1}).fit(train)
    result = hashlgn.evaluate(model, test, k=(1, 5), threshold=0.5)
    held = json.loads(json.dumps(result.to_dict()))
    assert [cutoff.get("k", cutoff.get("threshold")) for cutoff in held["cutoffs"]] == [1, 5, 0.5]
    for cutoff in held["cutoffs"]:
        low, high = cutoff["metrics"]["recall"]["interval_95"]
        assert low <= cutoff["metrics"]["recall"]["mean"] <= high
    assert "recall" in str(result)
