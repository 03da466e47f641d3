"""What single nodes get for themselves: parameters in place of the job's, and the state of the optimizer that goes with them. Each lies in
a file that only this node may read.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.params import Params
from fedbiomed.researcher.job_files import JobFiles

_State = tuple[dict[str, str], dict[str, str]]


class NodeFiles:
    """One file for each of some nodes.

    Args:
        files: of the job.
        kind: which tells these files from others of the job.
    """

    def __init__(self, files: JobFiles, kind: str) -> None:
        self._files, self._kind = files, kind
        self._paths: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._shelves = 0
        self._written: set[str] = set()

    def paths(self) -> dict[str, str]:
        """The file of each node that has one."""
        return dict(self._paths)

    def url(self, node_id: str) -> str | None:
        """Where a node's own file is; None where it has none."""
        return self._urls.get(node_id)

    def renew(self, kept: Mapping[str, str], contents: Iterable[tuple[str, Any]]) -> None:
        """Write and upload files, in place of all that there are. All or nothing.

        Args:
            kept: files that there are already, by node.
            contents: node and what the Serializer writes for it, one in memory at a time.

        Raises:
            FedbiomedRepositoryError: one cannot be uploaded.
        """
        given = {node_id: str(self._files.dump(f"node_{self._kind}", content)) for node_id, content in contents}
        self._written.update(given.values())
        self.set_paths({**kept, **given})

    def set_paths(self, paths: Mapping[str, str]) -> None:
        """Upload files, one for each node, in place of all that there are.

        Raises:
            FedbiomedRepositoryError: one cannot be uploaded.
        """
        self._shelves += 1
        shelf = f"{self._kind}{self._shelves}"
        urls = {node_id: self._files.upload_own(Path(path), node_id, shelf) for node_id, path in paths.items()}
        self._paths, self._urls = dict(paths), urls

    def clear(self) -> None:
        """From now on no node has one."""
        self._paths, self._urls = {}, {}

    def tidy(self) -> None:
        """Remove what no order needs any more, here and in the repository."""
        self._files.discard_own(self._kind, self._urls.values())
        for path in self._written - set(self._paths.values()):
            with contextlib.suppress(OSError):
                Path(path).unlink(missing_ok=True)
        self._written &= set(self._paths.values())

    def own_state(self) -> _State:
        """What `put_back_own` takes."""
        return dict(self._paths), dict(self._urls)

    def put_back_own(self, state: _State) -> None:
        """Undo what was done since `own_state`; nothing may have been tidied in between."""
        self._paths, self._urls = state


class NodeParams(NodeFiles):
    """The nodes' own parameters; a node that has none gets those of the job.

    Args:
        files: of the job.
        researcher_id: written into the files.

    Attributes:
        optimizers: the states that go with the nodes' models; new parameters for all nodes clear them, too.
    """

    def __init__(self, files: JobFiles, researcher_id: str) -> None:
        super().__init__(files, "own_params")
        self._researcher_id = researcher_id
        self.optimizers = NodeFiles(files, "own_optimizer")

    def give(self, models: Iterable[tuple[str, Params]]) -> None:
        """Give nodes parameters of their own; other nodes keep those they have. All or nothing.

        Args:
            models: node and parameters, one in memory at a time.

        Raises:
            FedbiomedRepositoryError: one cannot be uploaded.
        """
        self.renew(
            self.paths(), ((node_id, {"researcher_id": self._researcher_id, "model_weights": dict(params)}) for node_id, params in models)
        )

    def clear(self) -> None:
        """From now on all nodes get the job's parameters."""
        super().clear()
        self.optimizers.clear()

    def tidy(self) -> None:
        """See `NodeFiles`."""
        super().tidy()
        self.optimizers.tidy()

    def state(self) -> tuple[_State, _State]:
        """What `put_back` takes."""
        return self.own_state(), self.optimizers.own_state()

    def put_back(self, state: tuple[_State, _State]) -> None:
        """Undo what was done since `state`; nothing may have been tidied in between."""
        self.put_back_own(state[0])
        self.optimizers.put_back_own(state[1])
