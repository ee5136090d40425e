"""What people import: these names are promised, and a change of them is one that they are told about."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import hashlgn

PUBLIC = {
    "hashlgn": "Config HashLGN HashLGNError Interactions LightGCN Recommender encode evaluate load read_interactions",
    "hashlgn.evaluation": "BEYOND METRICS Evaluation evaluate metrics read_test",
    "hashlgn.errors": "ArgumentError ArtifactError DataError DownloadError HashLGNError JournalError "
    "JournalFullError MissingExtraError NotFittedError ServiceError UnknownColumnError UnknownIdError choose flag "
    "k_or_threshold need positive_int shown thread_count threshold_value",
    "hashlgn.config": "PRESETS Config ModelConfig StudentConfig TrainConfig load_config override_changes "
    "preset_changes",
    "hashlgn.export": "EXPORTERS Exporter Query asked export fill queries",
    "hashlgn.search": "SEARCHERS Decoded Exact FastScan Flat Hits InvertedFile Kernel Searcher build_searcher",
}
LIVING = "add_items answer follow remove_items set_titles staleness undo update update_items"
ANSWERS = "direct info model queries recommend recommend_batches save score searcher similar_items similar_users"
METHODS = {
    "HashLGN": f"{ANSWERS} {LIVING} configuration fit get_params set_params",
    "Recommender": f"{ANSWERS} {LIVING}",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    assert sorted(importlib.import_module(name).__all__) == sorted(PUBLIC[name].split())


@pytest.mark.parametrize("name", METHODS)
def test_public_methods(name: str) -> None:
    kind = getattr(hashlgn, name)
    assert [method for method in dir(kind) if not method.startswith("_")] == sorted(METHODS[name].split())


def test_every_module_says_what_is_public() -> None:
    for module in pkgutil.walk_packages(hashlgn.__path__, "hashlgn."):
        parts = module.name.split(".")[1:]
        if any(part.startswith("_") for part in parts) or parts[0] in ("cli", "experiments"):
            continue
        loaded = importlib.import_module(module.name)
        if module.ispkg and not hasattr(loaded, "__all__"):  # an empty package holds modules alone
            assert not [
                name
                for name in vars(loaded)
                if not name.startswith("_")
                and not hasattr(vars(loaded)[name], "__path__")
                and not isinstance(vars(loaded)[name], type(sys))
            ], module.name
            continue
        names = loaded.__all__
        assert names and not [name for name in names if name.startswith("_")], module.name
        assert all(hasattr(loaded, name) for name in names), module.name


def test_packages_are_reached_from_the_top_and_imported_when_used() -> None:
    code = (
        "import sys, hashlgn\n"
        "assert not {m for m in sys.modules if m.startswith('hashlgn.')}, 'importing does nothing'\n"
        "hashlgn.search.SEARCHERS, hashlgn.data.Interactions, hashlgn.errors.DataError, hashlgn.config.PRESETS\n"
        "hashlgn.evaluation.metrics.paired_bootstrap, hashlgn.evaluation.evaluate, hashlgn.evaluate\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'search', 'evaluate', 'HashLGN'} <= set(dir(hashlgn))\n"
        "try: hashlgn.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('an unknown name was found')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
