"""Parameters in the manner of scikit-learn, and what ``fit`` shows."""

from __future__ import annotations

import dataclasses
import inspect
import pickle

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.config import Config
from hashlgn.errors import ArgumentError
from hashlgn.search import Exact
from hashlgn.utils import console
from hashlgn.utils.progress import Progress

SMALL = {"model.dim": 8, "train.pretrain_epochs": 1, "train.joint_epochs": 1, "train.validation_users": 20}
SMALL |= {"student.epochs": 2, "student.distillation_epochs": 1}
KINDS = (hashlgn.HashLGN, hashlgn.LightGCN)


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_stand_in_the_signature_and_in_the_docstring(kind: type) -> None:
    config = hashlgn.Config()
    train = config.train
    want = {"loss": train.loss, "seed": train.seed, "device": "auto"}
    want |= {"epochs": train.pretrain_epochs + train.joint_epochs}
    want |= {
        "bits": config.model.bits,
        "history_bits": config.model.history_bits,
        "dim": None,
        "engine": "auto",
        "threads": None,
        "config": None,
        "preset": None,
    }
    parameters = inspect.signature(kind).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {n: want[n] for n in parameters}
    described = inspect.getdoc(kind) or ""
    assert all(f"\n    {name}: " in described for name in parameters)
    encoder = {"float": "lightgcn"}.get(kind._kind)  # a HashLGN's users are their histories
    assert kind().configuration == config.updated({"model.kind": kind._kind, "model.encoder": encoder})


@pytest.mark.parametrize("kind", KINDS)
def test_get_set_and_clone(kind: type) -> None:
    clone = pytest.importorskip("sklearn.base").clone
    model = kind(dim=16, seed=3, config={"train.lr": 0.01}, preset="paper", engine="exact", threads=1)
    whole = model.configuration.to_dict()
    said = {name: whole[key.split(".")[0]][key.split(".")[1]] for name, key in kind._keys.items()}
    assert model.get_params() == kind().get_params() | said | {
        "dim": 16,
        "seed": 3,
        "config": {"train.lr": 0.01},
        "preset": "paper",
        "engine": "exact",
        "threads": 1,
    }
    for again in (clone(model), kind(**model.get_params()), pickle.loads(pickle.dumps(model))):
        assert again.get_params() == model.get_params() and again.configuration == model.configuration
    assert model.configuration.train.loss == "bpr"  # of the preset, since nothing else was given
    assert model.set_params(config={"train.loss": "softmax"}, seed=4) is model
    assert (model.configuration.train.loss, model.configuration.train.seed) == ("softmax", 4)
    for wrong, message in (
        ({"colour": 1}, "parameter must be one of"),
        ({"engine": []}, "engine must be one of"),
        ({"threads": 2**31}, "threads must be at most"),
        ({"seed": 5, "preset": "mine"}, "preset must be one of"),
        ({"config": {"train.loss": 3}}, "train.loss must be text"),
    ):
        with pytest.raises(ArgumentError, match=message):
            model.set_params(**wrong)
        with pytest.raises(ArgumentError, match=message) if "colour" not in wrong else pytest.raises(TypeError):
            kind(**wrong)
    assert model.configuration.train.seed == 4


def test_what_a_configuration_says_is_what_the_parameters_say() -> None:
    model = hashlgn.HashLGN(config={"model.bits": 64, "train.seed": 7, "model.dim": 32})
    assert (model.bits, model.seed, model.dim, model.history_bits) == (64, 7, 32, None)
    assert model.set_params(config={"model": {"bits": 32}}) is model
    assert (model.bits, model.seed, model.dim) == (32, 0, None)  # they were left open, and still are
    assert model.set_params(bits=16).configuration.model.bits == model.bits == 16
    assert hashlgn.LightGCN(preset="paper").loss == "bpr" and hashlgn.HashLGN(config=model.configuration).bits == 16


def test_a_clone_is_not_trained_and_the_engine_goes_with_the_model() -> None:
    clone = pytest.importorskip("sklearn.base").clone
    model = hashlgn.HashLGN(32, config=SMALL, engine="exact", threads=1).fit(clusters())
    assert isinstance(model.searcher, Exact)
    again = clone(model)
    assert "not trained" in repr(again) and again.get_params() == model.get_params()
    assert again.fit(clusters()).recommend(k=3)["item"].tolist() == model.recommend(k=3)["item"].tolist()


def test_fit_reads_with_options(tmp_path, capsys) -> None:
    lines = "".join(f"{u},{i},{1 + (u + i) % 5}\n" for u in range(20) for i in range(10))
    (tmp_path / "odd.csv").write_text("who,what,stars\n" + lines)
    options = {"user": "who", "item": "what", "rating": "stars", "min_rating": 4}
    model = hashlgn.LightGCN(config=SMALL).fit(tmp_path / "odd.csv", **options)
    assert model.info()["interactions"] == 80
    assert "only ratings of at least 4 count" in capsys.readouterr().err
    model.fit(tmp_path / "odd.csv", user="who", item="what", rating="stars")
    assert "rating" in capsys.readouterr().err
    model.fit(tmp_path / "odd.csv", user="who", item="what", rating="stars", progress=False)
    assert not capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"option of fit must be one of .* \(got 'usr'\)"):
        model.fit(tmp_path / "odd.csv", usr="who")
    with pytest.raises(ArgumentError, match="user must be left out for interactions"):
        model.fit(clusters(), user="who")
    with pytest.raises(ArgumentError, match="progress must be True or False"):
        model.fit(clusters(), progress="yes")


def steps(stages: dict[str, int], seconds: float) -> list[Progress]:
    """Reports of a training of ten steps per epoch, each step taking ``seconds``."""
    total, done, made = 10 * sum(stages.values()), 0, []
    for stage, epochs in stages.items():
        for step in range(1, 10 * epochs + 1):
            done += 1
            end = step % 10 == 0
            made.append(Progress(stage, step // 10, epochs, done, total, 0.5, None, end, done * seconds))
    return made


def shown(monkeypatch, reports: list[Progress], **how: object) -> str:
    out = console.Console(file=__import__("io").StringIO(), width=100, **how)
    monkeypatch.setattr(console, "output", out)
    with console.training_bar("ndcg@50", quiet=False, title="x: ") as report:
        for step in reports:
            report(step)
    return out.file.getvalue()


def test_a_log_gets_one_line_per_stage_of_a_long_training_and_none_of_a_short_one(monkeypatch) -> None:
    long = steps({"encoder": 4, "joint": 2}, 1.0)
    assert shown(monkeypatch, long).splitlines() == [
        "x: this training takes about 60 s, by its first step",
        "x: encoder: epoch 1 of at most 4, at most about 50 s left",
        "x: joint: epoch 1 of at most 2, at most about 10 s left",
    ]
    assert shown(monkeypatch, steps({"encoder": 4, "joint": 2}, 0.01)) == ""
    assert "about 2 h left" in shown(monkeypatch, steps({"encoder": 700}, 1.0))
    drawn = shown(monkeypatch, long, force_terminal=True)
    assert "x: joint epoch 2/2" in drawn and "60/60" in drawn and "\x1b" in drawn


def test_a_long_training_is_estimated_by_its_first_steps(monkeypatch) -> None:
    quick = [dataclasses.replace(step, memory=2_345_000_000) for step in steps({"encoder": 4, "joint": 20}, 0.05)]
    late = [dataclasses.replace(step, seconds=step.seconds + 30) for step in quick]  # what came before the first step
    assert "takes about 42 s and 2.3 GB of memory, by its first 10 steps" in shown(monkeypatch, late)
    slower = quick[:11] + [dataclasses.replace(step, seconds=99.0) for step in quick[11:]]
    assert "this training takes about 12 s" in shown(monkeypatch, slower)  # told once, and before
    assert shown(monkeypatch, slower).count("this training takes") == 1
    assert "this training takes" in shown(monkeypatch, late, force_terminal=True)


@pytest.mark.parametrize("changes", [{}, {"student.teacher": "labels"}, {"model.kind": "float"}])
def test_the_steps_that_an_estimate_counts_are_those_that_are_done(changes: dict[str, object]) -> None:
    small = {"model.dim": 16, "model.bits": 16, "model.history_bits": 16, "student.epochs": 4}
    small |= {"student.distillation_epochs": 3, "student.code_epochs": 2, "student.settle_epochs": 2}
    seen: list[Progress] = []
    config = Config().updated(small | changes)
    hashlgn.estimators.train_model(clusters(), config, threads=1, device="cpu", report=seen.append)
    assert len({step.steps for step in seen}) == 1 and seen[0].step == 1
    assert [step.step for step in seen] == sorted(step.step for step in seen)
    done = len({step.step for step in seen})
    assert seen[0].steps / 3 <= done <= seen[0].steps  # a teacher that is not better saves its stage
    if changes:
        assert "distillation" in {step.stage for step in seen} or seen[-1].step == done == seen[0].steps
    assert all(step.memory is None or step.memory > 50e6 for step in seen)


def test_a_short_fit_prints_nothing_off_a_terminal(capsys) -> None:
    hashlgn.LightGCN(config=SMALL).fit(clusters(), progress=True)
    hashlgn.LightGCN(config=SMALL).fit(clusters())
    assert capsys.readouterr() == ("", "")


def test_a_bar_and_a_report_at_once() -> None:
    seen: list[Progress] = []
    model = hashlgn.LightGCN(config=SMALL, seed=np.int64(1)).fit(clusters(), progress=False, report=seen.append)
    assert seen[-1].step <= seen[-1].steps and model.configuration.train.seed == 1
