from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.errors import ArgumentError, DataError, NotFittedError, UnknownIdError
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.tables import Table
from hashlgn.search import Exact

CONFIG = {"model.encoder": "lightgcn", "model.dim": 16, "train.pretrain_epochs": 4, "train.joint_epochs": 2}
CONFIG |= {"train.validation_users": 20}
STUDENT = {"model.dim": 16, "student.epochs": 12, "student.distillation_epochs": 6, "student.batch_users": 16}


@pytest.fixture(scope="module")
def train() -> hashlgn.Interactions:
    return clusters()


@pytest.fixture(scope="module", params=["student", "floats", "encoder", "paper", "lightgcn"])
def model(request: pytest.FixtureRequest, train: hashlgn.Interactions) -> Recommender:
    if request.param == "lightgcn":
        return hashlgn.LightGCN(config=CONFIG).fit(train)
    if request.param in ("student", "floats"):
        forms = {"model.answers": "floats", "model.histories": "floats"} if request.param == "floats" else {}
        return hashlgn.HashLGN(bits=32, history_bits=32, config=STUDENT | forms).fit(train)
    how = {"model.hash": "mlp3", "model.decoder": "reweight"} if request.param == "paper" else {}
    return hashlgn.HashLGN(bits=32, config=CONFIG | how).fit(train)


def rows(table: Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.tolist() for column in table.values()), strict=True))


def test_answers_are_the_best_unseen_items_of_the_users_own_group(model: Recommender, train) -> None:
    table = model.recommend([1000, 1001], k=3)
    assert table["user"].tolist() == [1000] * 3 + [1001] * 3
    assert table["rank"].tolist() == [1, 2, 3] * 2
    for user, group in ((1000, 0), (1001, 1)):
        seen = set((train.row(int(train.user_ids.encode([user])[0])) + 1).tolist())
        items = table["item"][table["user"] == user]
        assert not seen & set(items.tolist())
        assert all((item - 1) % 4 == group for item in items.tolist())
    scores = table["score"]
    assert (np.diff(scores[:3]) <= 0).all()


def test_answers_equal_the_scores_of_all_items_sorted(model: Recommender, train) -> None:
    served = model.model
    vectors = served.queries_of(np.arange(len(served.user_ids))).astype(np.float64)
    scores = vectors @ served.items.decode().astype(np.float64).T
    table = model.recommend(k=5)
    for code in range(len(served.user_ids)):
        want = scores[code].copy()
        want[train.row(code)] = -np.inf
        got = table["score"][table["user"] == served.user_ids.values[code]]
        np.testing.assert_allclose(got, np.sort(want)[::-1][: len(got)], rtol=1e-4, atol=1e-5)


def test_all_users_one_user_and_the_order_asked(model: Recommender) -> None:
    assert len(np.unique(model.recommend(k=1)["user"])) == 60
    assert rows(model.recommend(1003, k=2)) == rows(model.recommend([1003], k=2))
    assert model.recommend([1005, 1002], k=1)["user"].tolist() == [1005, 1002]


def test_seen_allow_and_deny(model: Recommender) -> None:
    everything = model.recommend([1000], k=100, filter_seen=False)
    assert len(everything) == 40
    assert set(model.recommend([1000], k=100, allow=[1, 2, 3], filter_seen=False)["item"].tolist()) == {1, 2, 3}
    assert not {5, 9} & set(model.recommend([1000], k=100, deny=[5, 9], filter_seen=False)["item"].tolist())
    assert len(model.recommend([1000], allow=[])) == 0
    assert len(model.recommend([1000], deny=list(range(1, 41)))) == 0


def test_threshold_gives_everything_above_and_nothing_else(model: Recommender) -> None:
    whole = model.recommend([1000, 1001], k=100)
    cut = float(np.median(whole["score"]))
    over = model.recommend([1000, 1001], threshold=cut)
    want = [row for row in rows(whole) if row[2] > cut]  # type: ignore[operator]
    assert [row[:3] for row in rows(over)] == [row[:3] for row in want]
    assert len(model.recommend(threshold=float("inf"))) == 0


def test_history_of_a_training_user_gives_their_group(model: Recommender) -> None:
    table = model.recommend(history=[1, 5, 9], k=3)
    assert list(table) == ["item", "score", "rank", "source"]  # nobody is invented
    assert all((item - 1) % 4 == 0 for item in table["item"].tolist())
    assert not {1, 5, 9} & set(table["item"].tolist())
    for names in ([("a", 1)], [1, "1"], [True], [2**70]):
        with pytest.raises(ArgumentError, match="names in history"):
            model.recommend(history={name: [1] for name in names})
    named = model.recommend(history={"ann": [1, 5, 9], "bob": [2, 6]}, k=3)
    assert named["user"].tolist() == ["ann"] * 3 + ["bob"] * 3
    assert named["item"][:3].tolist() == table["item"].tolist()
    assert all((item - 1) % 4 == 1 for item in named["item"][3:].tolist())


def test_unknown_ids_are_refused_or_skipped(model: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="users"):
        model.recommend([1000, 7])
    with pytest.raises(UnknownIdError):
        model.recommend(["x1000"])
    assert set(model.recommend([1000, 7], k=1, on_unknown="skip")["user"].tolist()) == {1000}
    assert len(model.recommend([7], on_unknown="skip")) == 0
    with pytest.raises(UnknownIdError, match="users"):
        model.recommend(1000.5)
    with pytest.raises(UnknownIdError, match="deny"):
        model.recommend([1000], deny=[999])
    with pytest.raises(UnknownIdError, match="history"):
        model.recommend(history=[1, 999])
    assert len(model.recommend(history=[1, 999], k=2, on_unknown="skip")) == 2
    part = model.recommend(history={"a": [999], "b": [1]}, k=2, on_unknown="skip", on_empty="skip")
    assert part["user"].tolist() == ["b", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be a positive integer"),
        ({"k": -1}, "k must be a positive integer"),
        ({"k": 2.5}, "k must be a positive integer"),
        ({"threshold": float("nan")}, "threshold must be a number"),
        ({"threshold": "high"}, "threshold must be a number"),
        ({"on_unknown": "guess"}, "on_unknown must be one of"),
        ({"history": [], "on_empty": "raise"}, "history must hold at least one known item"),
        ({"on_empty": "guess"}, "on_empty must be one of"),
        ({"calibrated": 1}, "calibrated must be True or False"),
        ({"users": [1000], "history": [1]}, "users or history must be given, not both"),
        ({"k": 3, "threshold": 0.5}, "k and threshold must not both be given"),
        ({"k": np.array([3])}, "k must be a positive integer"),
        ({"k": True}, "k must be a positive integer"),
        ({"k": np.True_}, "k must be a positive integer"),
        ({"k": "3"}, "k must be a positive integer"),
        ({"threshold": "0.5"}, "threshold must be a number"),
        ({"threshold": np.True_}, "threshold must be a number"),
        ({"threshold": np.array([0.5])}, "threshold must be a number"),
        ({"filter_seen": "no"}, "filter_seen must be True or False"),
        ({"titles": 2}, "titles must be True or False"),
        ({"on_unknown": []}, "on_unknown must be one of"),
        ({"users": np.ma.masked_array([1000, 1001], [0, 1])}, "users must have no masked entries"),
        ({"users": {1000: [1]}}, "users must be a list of ids"),
        ({"users": [1000, 1001], "allow": {1000: [1]}}, "allow must have a list for everybody"),
        ({"users": [1000, 1001], "deny": [[1]]}, "deny must have 2 lists"),
        ({"history": [1], "deny": {"ann": [2]}}, "deny must be one list where the history has no name"),
        (
            {"history": {"ann": [1], "bob": []}, "on_empty": "raise"},
            "history must hold at least one known item for every user .*'bob'",
        ),
    ],
)
def test_bad_arguments_are_named(model: Recommender, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model.recommend(**arguments)


def test_harmless_numbers_are_taken(model: Recommender) -> None:
    want = rows(model.recommend([1000], 3))
    for k in (np.int64(3), np.uint8(3), np.array(3)):
        assert rows(model.recommend(np.array([1000], np.uint16), k)) == want
    assert rows(model.recommend(np.ma.masked_array([1000], [False]), 3)) == want
    assert rows(model.recommend(np.int32(1000), k=3, filter_seen=np.True_)) == want
    assert len(model.recommend([1000], k=2**70, filter_seen=False)) == 40
    some = model.recommend([1000], threshold=np.float32(0.0))
    assert rows(some) == rows(model.recommend([1000], threshold=0))


def test_iterators_are_read_once(model: Recommender) -> None:
    assert rows(model.recommend(iter([1000, 1001]), k=3)) == rows(model.recommend([1000, 1001], k=3))
    denied = model.recommend([1000], k=100, deny=(item for item in [5, 9]), filter_seen=False)
    assert len(denied) == 38 and not {5, 9} & set(denied["item"].tolist())
    assert set(model.recommend([1000], k=100, allow=iter([1, 2]), filter_seen=False)["item"].tolist()) == {1, 2}
    assert set(model.recommend([1000], k=100, allow={1, 2}, filter_seen=False)["item"].tolist()) == {1, 2}
    lists = model.recommend([1000], k=100, deny={1000: iter([5, 9])}, filter_seen=False)
    assert rows(lists) == rows(denied)
    assert rows(model.recommend(history=iter([1, 5]), k=3)) == rows(model.recommend(history=[1, 5], k=3))
    assert rows(model.recommend(history={"a": iter([1])}, k=3)) == rows(model.recommend(history={"a": [1]}, k=3))
    assert rows(model.similar_items(iter([1, 2]), 3)) == rows(model.similar_items([1, 2], 3))
    assert model.score(iter([1000]), iter([1])) == model.score(1000, 1)


@pytest.mark.parametrize("bound", [{"k": 4}, {"threshold": 0.05}])
def test_lists_per_user_are_the_lists_of_one_user(model: Recommender, bound: dict[str, float]) -> None:
    users = [1003, 1000, 1007]
    allow, deny = [[3, 7, 11, 15, 19], [1, 5, 9, 2], []], [[7], [], [4]]
    for filter_seen in (True, False):
        for limits in ({"allow": allow}, {"deny": deny}, {"allow": allow, "deny": deny}):
            whole = model.recommend(users, filter_seen=filter_seen, **bound, **limits)
            alone = [
                model.recommend([user], filter_seen=filter_seen, **bound, **{k: v[place] for k, v in limits.items()})
                for place, user in enumerate(users)
            ]
            assert whole["item"].tolist() == [item for table in alone for item in table["item"].tolist()]
            np.testing.assert_allclose(
                whole["score"], np.concatenate([t["score"] for t in alone]), rtol=1e-5, atol=1e-7
            )
            named = {name: dict(zip(users, lists, strict=True)) for name, lists in limits.items()}
            assert rows(model.recommend(users, filter_seen=filter_seen, **bound, **named)) == rows(whole)
    some = model.recommend([1000, 1001], k=100, deny={1001: [2, 6], 1050: [1]}, filter_seen=False)
    assert [(some["user"] == user).sum() for user in (1000, 1001)] == [40, 38]
    skipped = model.recommend([77, 1000, 1001], k=100, deny=[[1], [2], [3, 999]], filter_seen=False, on_unknown="skip")
    for user, denied in ((1000, 2), (1001, 3)):
        assert set(range(1, 41)) - set(skipped["item"][skipped["user"] == user].tolist()) == {denied}
    visitors = model.recommend(history={"ann": [1], "bob": [1]}, k=100, deny={"bob": [5]})
    assert [(visitors["user"] == name).sum() for name in ("ann", "bob")] == [39, 38]


def test_scores_of_pairs_are_those_of_the_answers(model: Recommender) -> None:
    table = model.recommend([1000, 1001, 1002], k=40, filter_seen=False)
    scores = model.score(table["user"], table["item"])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, table["score"])
    np.testing.assert_array_equal(model.score(1000, [3, 4]), model.score([1000, 1000], [3, 4]))
    with pytest.raises(ArgumentError, match="users and items must have one length"):
        model.score([1000, 1001, 1002], [1, 2])
    with pytest.raises(UnknownIdError, match="items"):
        model.score(1000, 999)


def test_another_engine_takes_effect_at_once(model: Recommender) -> None:
    before = model.recommend(k=5)
    model.similar_items(1)
    try:
        model.engine = "exact"
        after = model.recommend(k=5)
        assert isinstance(model.searcher, Exact)
        assert after["item"].tolist() == before["item"].tolist()
        model.engine = "nonsense"
        for question in (model.recommend, lambda: model.similar_items(1)):
            with pytest.raises(ArgumentError, match="engine must be one of"):
                question()
    finally:
        model.engine = "auto"
    for engine in ([], "fast", None):
        with pytest.raises(ArgumentError, match="engine must be one of"):
            Recommender(model.model, engine=engine)
    for threads in (0, 2**31, "2", np.array([2])):
        with pytest.raises(ArgumentError, match="threads must be"):
            Recommender(model.model, threads=threads)


def test_a_model_that_has_answered_is_copied(model: Recommender, tmp_path: Path) -> None:
    want = rows(model.recommend(k=3)), rows(model.similar_items([1, 2], 3)), rows(model.recommend(history=[1], k=3))
    joblib = pytest.importorskip("joblib")
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(tmp_path / "model.joblib")):
        got = rows(again.recommend(k=3)), rows(again.similar_items([1, 2], 3)), rows(again.recommend(history=[1], k=3))
        assert got == want and again.info() == model.info()


def test_titles_come_along_where_the_model_knows_them(model: Recommender) -> None:
    names = [f"映画 {number}" for number in model.model.item_ids.values.tolist()]
    titled = Recommender(dataclasses.replace(model.model, titles=names))
    for table, items in ((titled.recommend(k=3), "item"), (titled.similar_items([1, 2], 3), "similar")):
        assert table["title"].tolist() == [f"映画 {number}" for number in table[items].tolist()]
    assert "title" not in titled.recommend(k=3, titles=False) and "title" not in model.recommend(k=3)
    assert titled.recommend([1000], allow=[])["title"].tolist() == []


def test_similar_users_and_limits(model: Recommender) -> None:
    table = model.similar_users([1000, 1001], k=4)
    assert list(table) == ["user", "similar", "score", "rank"]
    assert all((other - user) % 4 == 0 for user, other in zip(table["user"], table["similar"], strict=True))
    vectors = model.model.queries_of(np.arange(60))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = [model.model.user_ids.encode(table[name]) for name in ("user", "similar")]
    np.testing.assert_allclose(table["score"], (unit[codes[0]] * unit[codes[1]]).sum(axis=1), rtol=1e-4, atol=1e-5)
    assert len(model.similar_users(1000, k=1000)) == 59
    assert set(model.similar_users(1000, allow=[1000, 1004, 1008])["similar"].tolist()) == {1004, 1008}
    near = model.similar_items([1, 77], 3, on_unknown="skip", deny=[25])
    assert set(near["item"].tolist()) == {1} and 25 not in near["similar"].tolist()
    whole = model.similar_items(1, k=100)
    bound = float(np.median(whole["score"]))
    assert (
        model.similar_items(1, threshold=bound)["similar"].tolist() == whole["similar"][whole["score"] > bound].tolist()
    )
    per_item = model.similar_items([1, 2], 100, deny={2: [6]})
    assert [(per_item["item"] == item).sum() for item in (1, 2)] == [39, 38]
    with pytest.raises(ArgumentError, match="must not both be given"):
        model.similar_items(1, 3, threshold=0.5)


def test_similar_items_share_the_group_and_leave_the_item_out(model: Recommender) -> None:
    table = model.similar_items([1, 2], k=4)
    assert table["item"].tolist() == [1] * 4 + [2] * 4
    assert all((similar - item) % 4 == 0 for item, similar in zip(table["item"], table["similar"], strict=True))
    assert 1 not in table["similar"][:4].tolist()
    served = model.model
    vectors = served.items.decode().astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    codes, others = (served.item_ids.encode(table[name]) for name in ("item", "similar"))
    np.testing.assert_allclose(table["score"], (unit[codes] * unit[others]).sum(axis=1), rtol=1e-4, atol=1e-5)
    assert len(model.similar_items(1, k=1000)) == 39
    with pytest.raises(UnknownIdError):
        model.similar_items(999)


def test_saved_and_loaded_answers_alike(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    again = hashlgn.load(tmp_path / "model", verify=True)
    assert rows(again.recommend(k=5)) == rows(model.recommend(k=5))
    assert rows(again.recommend(history=[1, 5], k=5)) == rows(model.recommend(history=[1, 5], k=5))
    assert again.info() == model.info()


def test_a_loaded_model_answers_without_torch(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    code = (
        "import sys, hashlgn\n"
        f"m = hashlgn.load({str(tmp_path / 'model')!r})\n"
        "assert len(m.recommend([1000], k=3)) == 3 and len(m.recommend(history=[1], k=3)) == 3\n"
        "assert len(m.similar_items(1, 3)) == 3\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_fit_answers_from_the_second_data() -> None:
    model = hashlgn.LightGCN(config=CONFIG).fit(clusters())
    model.recommend(k=1)
    model.similar_items(1)
    model.fit(clusters(n_users=30, n_items=20))
    assert len(np.unique(model.recommend(k=1)["user"])) == 30
    assert len(model.similar_items(1, k=100)) == 19


def test_before_fit_there_is_nothing_to_ask() -> None:
    for question in (lambda m: m.recommend(), lambda m: m.similar_items(1), lambda m: m.save("x"), lambda m: m.info()):
        with pytest.raises(NotFittedError, match="call fit first"):
            question(hashlgn.HashLGN())


def test_what_is_given_goes_before_the_configuration() -> None:
    model = hashlgn.HashLGN(bits=64, seed=3, config={"model.bits": 32, "train.seed": 1, "train.lr": 0.01})
    assert (model.configuration.model.bits, model.configuration.train.seed, model.configuration.train.lr) == (
        64,
        3,
        0.01,
    )
    with pytest.raises(ArgumentError, match=r"model\.kind must be 'hashlgn' here"):
        hashlgn.HashLGN(config={"model.kind": "float"})
    assert hashlgn.HashLGN(bits=np.int64(64)).configuration.model.bits == 64
    with pytest.raises(ArgumentError, match="configuration key"):
        hashlgn.HashLGN(config={"train.rate": 1})


@pytest.mark.parametrize("bits", [0, 12, -8])
def test_bits_that_are_no_multiple_of_eight(bits: int, train) -> None:
    with pytest.raises(ArgumentError, match="bits must be a positive multiple of 8"):
        hashlgn.HashLGN(bits=bits, config=CONFIG).fit(train)


def test_one_user_or_one_item_is_nothing_to_learn_from() -> None:
    for pairs in (([1, 1], [1, 2]), ([1, 2], [1, 1])):
        with pytest.raises(DataError, match="at least 2 users and 2 items"):
            hashlgn.HashLGN().fit(hashlgn.Interactions.from_pairs(*pairs))


def test_a_user_who_has_seen_everything_gets_nothing() -> None:
    users, items = np.meshgrid(np.arange(12), np.arange(10), indexing="ij")
    keep = (users == 0) | ((users + items) % 2 == 0)
    model = hashlgn.LightGCN(config=CONFIG | {"model.dim": 4}).fit(
        hashlgn.Interactions.from_pairs(users[keep], items[keep])
    )
    assert len(model.recommend([0], k=5)) == 0
    assert model.recommend([0, 1], k=5)["user"].tolist() == [1] * 5


def test_the_papers_recipe_by_name() -> None:
    fast = {"train.joint_epochs": 2, "train.validate_every": 1, "train.batch_size": 64}
    stages: set[str] = set()
    model = hashlgn.HashLGN(bits=32, preset="paper", config=fast)
    model.fit(clusters(), report=lambda step: stages.add(step.stage))
    assert stages == {"joint"}  # from the first step
    config = model.info()["config"]
    assert (config["train"]["loss"], config["train"]["init"]) == ("bpr", "random")
    assert (config["model"]["bits"], config["model"]["dim"], config["train"]["joint_epochs"]) == (32, 64, 2)
    assert hashlgn.LightGCN(preset="paper").configuration.train.loss == "bpr"
    with pytest.raises(ArgumentError, match="preset must be one of 'paper'"):
        hashlgn.HashLGN(preset="mine")
    with pytest.raises(ArgumentError, match="preset must be left out"):
        hashlgn.HashLGN(preset="paper", config=model.configuration)
