"""Where the published data lie for tests; without them a test skips."""

import os
from pathlib import Path

import pytest

from benchmarks.published.heart_data import Hospital, read_hospitals

_ROOT = Path(__file__).resolve().parents[2]


def heart_disease() -> dict[str, Hospital]:
    """The four hospitals by name; skips where the files are not at hand."""
    return read_hospitals(published_data() / "heart-disease")


def published_data() -> Path:
    """`FEDBIOMED_TEST_DATA`, or `shared/data` beside the repository or beside the folder that it lies in."""
    given = os.environ.get("FEDBIOMED_TEST_DATA")
    places = [Path(given)] if given else [parent / "shared" / "data" for parent in (_ROOT.parent, _ROOT.parent.parent)]
    for place in places:
        if (place / "heart-disease").is_dir():
            return place
    pytest.skip(f"no heart-disease data in {', '.join(map(str, places))}; FEDBIOMED_TEST_DATA names the folder that holds it")
