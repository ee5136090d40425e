"""The OpenAPI document is true: a fuzzer that reads it finds no 5xx and no answer outside of its schema.

make fuzz-serve      100,000 requests of another kind: fuzz_service.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serve_help import running, two_models

from hashlgn.serve.limits import Limits
from hashlgn.serve.openapi import document
from hashlgn.serve.routes import ROUTES

pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install '.[dev]'")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance"
)
# On a busy machine both sides may stand still for long: no limit of time of either may end a request.
PATIENT_SERVICE = [part for name in ("wait", "send", "idle") for part in (f"--max-{name}", "600")]
PATIENT_CLIENT = ["--request-timeout", "300", "--suppress-health-check", "too_slow"]


def test_every_route_is_documented_and_nothing_else() -> None:
    paths = json.loads(document(Limits()))["paths"]
    said = {(method.upper(), re.sub(r"{\w+}", "*", path)) for path, methods in paths.items() for method in methods}
    assert said == {(method, path) for method, path in ROUTES if path not in ("/", "/static/*")}


def test_no_request_breaks_the_service_or_its_document(tmp_path: Path) -> None:
    models = two_models(tmp_path)
    with running(*models.values(), "--journal", tmp_path / "events.db", "--quiet", *PATIENT_SERVICE) as service:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{service.port}/openapi.json"]
        options = ["--phases", "coverage,fuzzing", "--max-examples", "1", "--generation-deterministic", "--no-color"]
        done = subprocess.run(
            [*command, *options, "--checks", CHECKS, *PATIENT_CLIENT],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert service.get("/health/ready")["status"] == "ready"
