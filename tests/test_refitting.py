"""A training that starts from a served model, what it costs, and how stale a model says it is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import clusters
from hashlgn.config import Config, StudentConfig
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.estimators import HashLGN
from hashlgn.inference.recommender import Recommender
from hashlgn.refitting import _shortened, overlaps, refit
from hashlgn.training.student import trainer
from hashlgn.training.student.forms import Side, Start
from hashlgn.training.student.run import Run
from hashlgn.training.student.teachers import FloatStudent, Mixture, Teacher

CONFIG = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.epochs": 12}
CONFIG |= {"student.distillation_epochs": 8, "student.code_epochs": 4}


@pytest.fixture(scope="module")
def halves() -> tuple[Interactions, Interactions]:
    data = clusters(n_users=120, n_items=60, share=0.6)
    old = (np.random.default_rng(0).random(len(data)) < 0.7) & (data.indices < 50)
    return data.select(old).without_empty(), data.select(~old)


@pytest.fixture(scope="module")
def trained(halves: tuple[Interactions, Interactions]) -> Recommender:
    return Recommender(HashLGN(config=CONFIG, threads=1).fit(halves[0], progress=False).model, threads=1)


def own_group(model: Recommender) -> float:
    """Share of the answers that are of the user's own group: by the data, all should be."""
    answer = model.recommend(k=3)
    return float(((answer["user"] - 1000) % 4 == (answer["item"] - 1) % 4).mean())


def test_a_refit_learns_what_is_new_and_keeps_numbers(
    halves: tuple[Interactions, Interactions], trained: Recommender
) -> None:
    before = Recommender(trained.model, threads=1)
    before.update(halves[1])
    before.remove_items(1)
    steps = []
    after = refit(before, threads=1, report=steps.append)
    assert after.model.item_ids == before.model.item_ids and after.model.user_ids == before.model.user_ids
    np.testing.assert_array_equal(after.model.seen[1], before.model.seen[1])
    assert after.model.config == trained.model.config and after.model.calibration is trained.model.calibration
    assert 1 not in after.recommend(k=60, filter_seen=False)["item"]
    epochs: dict[str, int] = {}
    for step in steps:
        epochs[step.stage] = step.epochs
    assert epochs == {"labels": 4, "distillation": 1, "codes": 1, "histories": 1}  # of 12, 8, 4 and 4
    assert steps[-1].step == steps[-1].steps
    assert own_group(after) > 0.9
    new = after.recommend(history=[2, 6, 10], k=5, allow=list(range(51, 61)))
    assert set((np.array(new["item"][:2]) - 1) % 4) == {1}
    again = refit(before, threads=1)
    assert again.recommend(k=5) == after.recommend(k=5)


@pytest.mark.parametrize(("teacher", "expected"), [("0.8 labels + 0.2 ease", Mixture), ("labels", FloatStudent)])
def test_codes_of_a_refit_learn_from_the_mixture_and_those_of_a_training_from_its_student(
    halves: tuple[Interactions, Interactions], monkeypatch: pytest.MonkeyPatch, teacher: str, expected: type[Teacher]
) -> None:
    teachers: list[Teacher] = []
    into_bits = trainer._into_bits

    def noted(run: Run, student: FloatStudent, teacher: Teacher, known: Start | None) -> tuple[Side, Side]:
        teachers.append(teacher)
        return into_bits(run, student, teacher, known)

    monkeypatch.setattr(trainer, "_into_bits", noted)
    model = HashLGN(config=CONFIG | {"student.teacher": teacher}, threads=1).fit(halves[0], progress=False)
    refit(Recommender(model.model, threads=1), halves[1], threads=1)
    assert [type(one) for one in teachers] == [FloatStudent, expected]


@pytest.mark.parametrize(
    ("changes", "stays"),
    [
        ({}, True),
        ({"student.epochs": 0}, True),
        ({"student.teacher": "labels", "student.epochs": 0}, True),
        ({"student.teacher": "labels"}, False),
        ({"student.distillation_epochs": 0}, False),
    ],
)
def test_the_float_student_of_a_refit_starts_from_the_model_and_labels_alone_anew(
    halves: tuple[Interactions, Interactions], changes: dict[str, Any], stays: bool
) -> None:
    floats = {"model.answers": "floats", "model.histories": "floats"}
    model = Recommender(HashLGN(config=CONFIG | floats, threads=1).fit(halves[0], progress=False).model, threads=1)
    config = Config.from_dict(model.model.config).updated({"student.lr": 1e-9, **changes})  # so that it stays there
    after = refit(Recommender(replace(model.model, config=config.to_dict()), threads=1), threads=1)
    assert np.allclose(after.model.items.decode(), model.model.items.decode(), rtol=0, atol=1e-6) is stays


@pytest.mark.parametrize(
    ("changes", "answers"),
    [
        ({}, True),
        ({"student.teacher": "labels"}, False),
        ({"student.distillation_epochs": 0}, False),
        ({"student.teacher": "labels", "student.epochs": 0}, True),
    ],
)
def test_codes_of_a_refit_start_from_the_model_but_for_answers_of_labels_alone(
    halves: tuple[Interactions, Interactions],
    trained: Recommender,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    answers: bool,
) -> None:
    known: list[bool] = []
    coded = trainer.coded

    def noted(*arguments: Any, **options: Any) -> Any:
        known.append(arguments[4] is not None)
        return coded(*arguments, **options)

    monkeypatch.setattr(trainer, "coded", noted)
    config = Config.from_dict(trained.model.config).updated(changes)
    refit(Recommender(replace(trained.model, config=config.to_dict()), threads=1), halves[1], threads=1)
    assert known == [answers, True]


def test_items_that_are_there_start_from_their_trained_codes(
    halves: tuple[Interactions, Interactions], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Start] = []
    of = Start.of

    def noted(*arguments: Any) -> Start:
        starts.append(of(*arguments))
        return starts[-1]

    monkeypatch.setattr(Start, "of", noted)
    few = np.flatnonzero(halves[0].indices < 10)[:20]  # ten items that have hardly anybody yet, and grow by far more
    rare = halves[0].select(~np.isin(halves[0].indices, np.arange(10)) | np.isin(np.arange(len(halves[0])), few))
    model = Recommender(HashLGN(config=CONFIG, threads=1).fit(rare, progress=False).model, threads=1)
    assert Recommender(model.model, threads=1).update(halves[0]).placed > 0
    refit(model, halves[0], threads=1)
    here = model.model.item_ids.encode(rare.item_ids.values)
    np.testing.assert_array_equal(starts[0].answers.numpy()[here], model.model.items.decode()[here])


def _short(data: Interactions, share: float, **settings: Any) -> StudentConfig:
    return _shortened(Config(student=StudentConfig(**settings)), data, share).student


@pytest.mark.parametrize(
    ("share", "epochs", "faster", "hidden", "thinning"),
    [
        (0.25, (7, 2, 3, 1), 2, 0.42, 0.3),
        (0.1, (3, 1, 2, 1), 2, 0.42, 0.3),
        (0.6, (16, 4, 8, 3), 20 / 16, 0.56, 0.45),
        (1.0, (20, 6, 12, 4), 1, 0.7, 0.675),
    ],
)
def test_a_refit_is_a_short_training(
    share: float, epochs: tuple[int, ...], faster: float, hidden: float, thinning: float
) -> None:
    data, whole = clusters(n_users=120, n_items=60, share=0.6), StudentConfig()
    short = _short(data, share)
    assert (short.epochs, short.distillation_epochs, short.code_epochs, short.settle_epochs) == epochs
    assert short.label_lr == pytest.approx(faster * whole.lr) and short.lr == whole.lr
    assert (short.code_lr, short.settle_lr) == (whole.code_lr / 2, whole.settle_lr / 2)
    assert (short.hidden, short.thinning) == (pytest.approx(hidden), pytest.approx(thinning))
    # 12 steps an epoch: 40 epochs, however many are asked for
    assert _short(data, 0.25, epochs=1000, batch_users=10).epochs == 14


@pytest.mark.parametrize("settings", [{"teacher": "labels"}, {"distillation_epochs": 0}])
def test_labels_alone_hide_as_much_as_in_a_training(settings: dict[str, Any]) -> None:
    short = _short(clusters(), 0.25, **settings)
    assert short.hidden == pytest.approx(0.7) and short.label_lr == 2 * short.lr


def test_no_epochs_of_a_stage_stay_none() -> None:
    short = _short(clusters(), 0.25, epochs=0, code_epochs=0, teacher="ease")
    assert (short.epochs, short.code_epochs, short.distillation_epochs) == (0, 0, 2)


def test_encoders_of_a_mixture_that_is_named_are_trained_whole_by_a_refit() -> None:
    auto, named = (_short(clusters(), 0.25, teacher=teacher) for teacher in ("auto", "0.5 labels + 0.5 lightgcn"))
    assert auto.encoder_epochs == named.encoder_epochs == 45
    assert auto.label_lr == named.label_lr > named.lr


def test_overlaps_are_by_group_and_whole_where_nothing_moved(
    halves: tuple[Interactions, Interactions], trained: Recommender
) -> None:
    model = Recommender(trained.model, threads=1)
    assert [(one.group, one.share) for one in overlaps(model, model)] == [("users with nothing new", 1.0)]
    model.update(Interactions.from_pairs([1000, 9000], [7, 7]))
    found = {one.group: one.users for one in overlaps(model, refit(model, threads=1))}
    assert found == {"users with nothing new": 119, "users with new interactions": 1, "new users": 1}


def test_a_refit_refuses_what_it_cannot_start_from(trained: Recommender) -> None:
    with pytest.raises(ArgumentError, match="epochs must be a share"):
        refit(trained, epochs=0)
    fixed = replace(trained.model, users=np.ones((120, 16), np.float32), histories=None)
    with pytest.raises(ArgumentError, match="users are their histories"):
        refit(Recommender(fixed))


def test_staleness_counts_what_is_newer(halves: tuple[Interactions, Interactions], trained: Recommender) -> None:
    model = Recommender(trained.model, threads=1)
    fresh = model.staleness()
    assert (fresh.interactions, fresh.items, fresh.score_mass, fresh.asked) == (0, 0, 0, 0)
    model.update(halves[1])
    stale = model.staleness()
    assert stale.interactions == pytest.approx(len(halves[1]) / (len(halves[0]) + len(halves[1])))
    assert stale.items == pytest.approx(10 / 60) and 0 < stale.score_mass < 1
    assert 0 < stale.recall <= 1 and stale.asked > 50 and stale.refit_gain >= 0
    model.remove_items(list(range(51, 61)))
    gone = model.staleness()
    assert gone.items == 0 and gone.score_mass == 0


def test_the_page_about_changes_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "living.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    assert names["model"].model.titles[100] == "The new one"


def test_a_refit_is_refused_before_anything_is_read(trained: Recommender) -> None:
    rules = {
        "device": ("wrong", "device must be"),
        "epochs": (3, "epochs must be a share"),
        "threads": (0, "threads must"),
    }
    for name, (value, message) in rules.items():
        with pytest.raises(ArgumentError, match=message):
            refit(trained, "no-such-file.csv", **{name: value})
    with pytest.raises(ArgumentError, match="model must be a Recommender"):
        refit("no-model", None)
