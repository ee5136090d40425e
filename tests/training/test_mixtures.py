"""Teachers and their mixtures: what is named, what validation chooses, and that a student learns from each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import clusters
from hashlgn.config import Config
from hashlgn.config.mixtures import shares_of
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.evaluation.metrics.arrays import Floats
from hashlgn.scoring.histories import queries
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.student import Ease, FloatStudent, Mixture, TrainedStudent, train_student
from hashlgn.training.student import mixtures as module
from hashlgn.training.student.batches import Batch, Candidates
from hashlgn.training.student.forms import Vectors
from hashlgn.training.student.plan import encoder_epochs, encoders_of, planned_steps, teacher_bytes
from hashlgn.training.student.teachers import Embeddings, Popularity, logarithm
from hashlgn.training.validation import surely_better
from hashlgn.utils.progress import Progress

SMALL = {
    "model.dim": 16,
    "model.bits": 32,
    "model.history_bits": 32,
    "student.epochs": 6,
    "student.distillation_epochs": 8,
    "student.code_epochs": 2,
    "student.settle_epochs": 1,
    "student.batch_users": 16,
    "student.encoder_epochs": 20,
}


def small(changes: dict[str, object] | None = None) -> Config:
    return Config().updated({**SMALL, **(changes or {})})


def trained(changes: dict[str, object], **options: Any) -> TrainedStudent:
    return train_student(clusters(share=0.4), small(changes), device="cpu", threads=1, **options)


@settings(max_examples=50)
@given(
    st.dictionaries(st.text("abcze_-9", max_size=4).map("g".__add__), st.integers(1, 99_999), min_size=1, max_size=5)
)
def test_shares_add_up_to_one_and_are_read_as_they_are_written(parts: dict[str, int]) -> None:
    total = sum(parts.values())
    found = shares_of(" + ".join(f"{share / 1e5} {name}" for name, share in parts.items()))
    assert found == pytest.approx({name: share / total for name, share in parts.items()})
    assert shares_of(module._written(found)) == pytest.approx(found, rel=1e-3)


def test_a_teacher_without_a_number_counts_one() -> None:
    assert shares_of("labels+ease") == {"labels": 0.5, "ease": 0.5}
    assert shares_of(" 3*ease + labels ") == {"ease": 0.75, "labels": 0.25}
    assert shares_of("0 ease + .5 labels") == {"labels": 1.0}
    assert Config().student.teachers is None and small({"student.teacher": "labels"}).student.teachers == {
        "labels": 1.0
    }


@pytest.mark.parametrize("text", ["", "labels +", "-1 ease", "ease + ease", "auto + ease", "0 ease", "e3 e4", "ease 2"])
def test_what_is_no_mixture_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"student.teacher must be 'auto' alone, or teachers with their shares"):
        small({"student.teacher": text})


def test_a_mixture_needs_its_stage() -> None:
    with pytest.raises(ArgumentError, match=r"student\.distillation_epochs must be positive"):
        small({"student.teacher": "ease", "student.distillation_epochs": 0})
    small({"student.teacher": "labels", "student.distillation_epochs": 0})


def test_unknown_teachers_and_catalogues_that_are_too_large_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"must name teachers of dgcf, ease, filter, .*, spectral \(got 'lables'\)"):
        trained({"student.teacher": "0.8 lables + 0.2 ease"})
    with pytest.raises(ArgumentError, match=r"must not have 'ease' beyond 10,000 items"):
        module.check_named(small({"student.teacher": "ease"}).student, 10_001)
    with pytest.raises(ArgumentError, match=r"encoder_epochs must be positive .* \(got 0, with 'gcn'\)"):
        trained({"student.teacher": "labels + gcn", "student.encoder_epochs": 0})
    module.check_named(small({"student.teacher": "labels + spectral", "student.encoder_epochs": 0}).student)
    module.check_named(small().student, 10_001)


@pytest.mark.parametrize("name", ["labels", "ease", "filter", *ENCODERS])
def test_a_student_learns_from_each_teacher(name: str) -> None:
    """A quarter of the items is of a user's group: the best item that they do not have is to be one of it."""
    model = trained({"student.teacher": name, "train.lr": 0.02 if name == "sage" else 0.05})
    data = clusters(share=0.4)
    ranked = queries(model.histories, data.indptr, data.indices) @ model.answers.decode().T
    ranked[data.matrix.toarray() > 0] = -np.inf
    own = (data.user_ids.values - 1000) % 4 == (data.item_ids.values[ranked.argmax(axis=1)] - 1) % 4
    assert own.mean() > (0.7 if name == "sage" else 0.9)
    assert model.teacher == ("labels" if name == "labels" else f"1 {name}")
    assert ("labels" in model.metrics) == (name == "labels") and not model.choice
    assert (name in model.costs) and ("distillation" in model.metrics) == (name != "labels")


def test_popularity_teaches_everybody_the_same() -> None:
    model = trained({"student.teacher": "popularity"})
    data = clusters(share=0.4)
    assert model.teacher == "1 popularity"
    scores = (queries(model.histories, data.indptr, data.indices) @ model.answers.decode().T).mean(axis=0)
    counts = np.bincount(data.indices, minlength=data.n_items)
    assert np.corrcoef(scores, np.log(counts))[0, 1] > 0.8


def test_a_mixture_that_is_named_is_taken_whatever_it_is_worth() -> None:
    model = trained({"student.teacher": "0.6 labels + 0.4 popularity"})
    assert model.teacher == "0.6 labels + 0.4 popularity" and {"labels", "distillation"} <= set(model.metrics)


def test_a_penalty_that_is_too_small_for_an_inverse_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"student\.ease_penalty must be larger for these data"):
        Ease(Interactions.from_pairs([1, 1, 2, 2, 3], [5, 6, 5, 6, 7]), -2.0, torch.device("cpu"))


def batch_of(users: np.ndarray[Any, Any]) -> tuple[Batch, Candidates]:
    data = clusters()
    return Batch.of(data, users, None, torch.device("cpu")), Candidates(None, torch.zeros(data.n_items), None)


def test_scores_of_embeddings_and_popularity() -> None:
    torch.manual_seed(0)
    users, items = torch.randn(60, 3), torch.randn(40, 3)
    batch, everything = batch_of(np.array([3, 0, 7]))
    some = Candidates(torch.tensor([5, 2]), torch.zeros(2), None)
    products = users[[3, 0, 7]] @ items.T
    assert torch.allclose(Embeddings(users, items, 0.5).scores(batch, everything), products / 0.5)
    assert torch.allclose(Embeddings(users, items, 0.5).scores(batch, some), products[:, [5, 2]] / 0.5)
    closed = Embeddings(users, items, None).scores(batch, everything)
    deviation = products.std(dim=1, keepdim=True, unbiased=False)
    assert torch.allclose(closed, 2 * torch.log(products.clamp(min=0) / deviation + 0.1), atol=1e-5)
    assert torch.equal(logarithm(products.clone()), closed)
    popular = Popularity(torch.arange(40.0))
    assert popular.scores(batch, some).tolist() == [[5.0, 2.0]] * 3
    assert popular.scores(batch, everything).shape == (3, 40)


def test_scores_are_standardised_where_one_is_no_logarithm() -> None:
    student = FloatStudent(Vectors(torch.eye(4)), Vectors(torch.eye(4)), 1.0)
    teachers: Any = {
        "labels": student,
        "popularity": Popularity(torch.ones(4)),
        "ease": SimpleNamespace(logarithmic=False),
    }
    assert not module._mixed(teachers, {"labels": 0.5, "popularity": 0.5}).standard
    assert module._mixed(teachers, {"labels": 0.5, "ease": 0.5}).standard


@pytest.mark.parametrize(
    ("large", "better", "lead", "noise", "taken"),
    [
        (True, {"filter": 0.7}, 0.01, 0.0, "0.3 labels + 0.7 filter"),
        (True, {"filter": 0.7}, 0.01, 0.5, "0.5 labels + 0.5 filter"),  # of 1,000 users: less than two errors
        (True, {"filter": 0.7}, 0.0, 0.0, "0.5 labels + 0.5 filter"),
        (False, {"ease": 0.3}, 0.01, 0.0, "0.7 labels + 0.3 ease"),
        (False, {"ease": 0.3}, 0.01, 0.5, "0.8 labels + 0.2 ease"),
    ],
)
def test_how_validation_chooses(
    large: bool,
    better: dict[str, float],
    lead: float,
    noise: float,
    taken: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws = noise * np.random.default_rng(0).standard_normal(1000)

    def values(mixture: Mixture) -> Floats:
        shares = {teacher.name: share for teacher, share in zip(mixture.teachers, mixture.shares, strict=True)}  # type: ignore[attr-defined]
        here = all(shares.get(name) == pytest.approx(share) for name, share in better.items())
        return np.full(1000, 0.4) + here * (lead + draws - draws.mean())

    def teacher(_: Any, name: str, *__: Any) -> Any:
        return SimpleNamespace(name=name, logarithmic=True)

    monkeypatch.setattr(module, "_teacher", teacher)
    run: Any = SimpleNamespace(
        large=large,
        named=None,
        validation=SimpleNamespace(values=values, metric=lambda _: 0.1),
        metrics={"labels": 0.3},
        choice={},
        timed=lambda _, work: work(),
    )
    spectrum: Any = None
    found = module.mixture(run, None, spectrum)
    assert found is not None and found[0] == taken
    assert run.choice[taken] >= 0.4 and len(run.choice) == 5
    run.metrics["labels"] = 0.5
    assert module.mixture(run, None, spectrum) is None
    run.validation = None
    found = module.mixture(run, None, spectrum)
    assert found is not None and found[0] == ("0.5 labels + 0.5 filter" if large else "0.8 labels + 0.2 ease")


def test_what_is_surely_better() -> None:
    values = np.random.default_rng(0).random(100)
    assert surely_better(values + 0.1, values) and not surely_better(values, values)
    assert not surely_better(values[::-1] + 0.01, values)


def test_an_encoder_goes_over_the_graph_so_many_times_at_most() -> None:
    data = clusters()
    assert encoders_of(Config()) == []
    assert encoders_of(small({"student.teacher": "ease + dgcf"})) == ["dgcf"]
    assert encoder_epochs(Config(), "gcn", data) == (45, 1) and encoder_epochs(Config(), "spectral", data) == (0, 1)
    many = small({"train.batch_users": 1, "student.encoder_epochs": 45})
    assert encoder_epochs(many, "gcn", data) == (480 // data.n_users, data.n_users)
    steps = planned_steps(Config(), 12, 500, {"gcn": 45})
    assert [*steps] == ["labels", "gcn", "distillation", "codes", "histories"] and steps["gcn"] == 45
    assert planned_steps(small({"student.teacher": "ease"}), 12, 500)["labels"] == 0
    assert teacher_bytes(small({"student.teacher": "popularity"}), 40) == 0
    assert teacher_bytes(small({"student.teacher": "ease + filter"}), 40) > teacher_bytes(small(), 40) == 12 * 40**2


def test_a_training_with_an_encoder_reports_it_and_goes_on_behind_it(tmp_path: Path) -> None:
    seen: list[Progress] = []
    whole = trained({"student.teacher": "labels + lightgcn"}, report=seen.append)
    stages = [*dict.fromkeys(progress.stage for progress in seen)]
    assert stages == ["labels", "lightgcn", "distillation", "codes", "histories"]
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps) and steps[-1] == seen[-1].steps and {p.steps for p in seen} == {seen[-1].steps}
    assert [p.epoch for p in seen if p.stage == "lightgcn" and p.epoch_done] == [*range(1, 21)]

    def stop(progress: Progress) -> None:
        if progress.stage == "distillation":
            raise KeyboardInterrupt

    file, again = tmp_path / "checkpoint", list[str]()
    with pytest.raises(KeyboardInterrupt):
        trained({"student.teacher": "labels + lightgcn"}, report=stop, checkpoint=file)
    ended = trained({"student.teacher": "labels + lightgcn"}, report=lambda p: again.append(p.stage), checkpoint=file)
    assert {*again} == {"distillation", "codes", "histories"} and "lightgcn" not in ended.costs
    assert np.array_equal(ended.answers.decode(), whole.answers.decode())
