"""Parameters that single nodes get in place of the job's: each in a file that only this node may read."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedbiomed.common.params import Params
from fedbiomed.researcher.job_files import JobFiles


class NodeParams:
    """The nodes' own parameters; a node that has none gets those of the job.

    Args:
        files: of the job.
        researcher_id: written into the files.
    """

    def __init__(self, files: JobFiles, researcher_id: str) -> None:
        self._files, self._researcher_id = files, researcher_id
        self._paths: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._shelves = 0
        self._written: set[str] = set()

    def paths(self) -> dict[str, str]:
        """The file of each node that has parameters of its own."""
        return dict(self._paths)

    def url(self, node_id: str) -> str | None:
        """Where a node's own parameters are; None where it has none."""
        return self._urls.get(node_id)

    def give(self, models: Iterable[tuple[str, Params]]) -> None:
        """Give nodes parameters of their own; other nodes keep those they have. All or nothing.

        Args:
            models: node and parameters, one in memory at a time.

        Raises:
            FedbiomedRepositoryError: one cannot be uploaded.
        """
        given = {
            node_id: str(self._files.dump("node_own_params", {"researcher_id": self._researcher_id, "model_weights": dict(params)}))
            for node_id, params in models
        }
        self._written.update(given.values())
        self.set_paths({**self._paths, **given})

    def set_paths(self, paths: Mapping[str, str]) -> None:
        """Upload files that hold `model_weights`, one for each node, in place of all that there are.

        Raises:
            FedbiomedRepositoryError: one cannot be uploaded.
        """
        self._shelves += 1
        urls = {node_id: self._files.upload_own(Path(path), node_id, self._shelves) for node_id, path in paths.items()}
        self._paths, self._urls = dict(paths), urls

    def clear(self) -> None:
        """From now on all nodes get the job's parameters."""
        self._paths, self._urls = {}, {}

    def tidy(self) -> None:
        """Remove what no order needs any more, here and in the repository."""
        self._files.discard_own(self._urls.values())
        for path in self._written - set(self._paths.values()):
            with contextlib.suppress(OSError):
                Path(path).unlink(missing_ok=True)
        self._written &= set(self._paths.values())

    def state(self) -> tuple[dict[str, str], dict[str, str]]:
        """What `put_back` takes."""
        return dict(self._paths), dict(self._urls)

    def put_back(self, state: tuple[dict[str, str], dict[str, str]]) -> None:
        """Undo what was done since `state`; nothing may have been tidied in between."""
        self._paths, self._urls = state
