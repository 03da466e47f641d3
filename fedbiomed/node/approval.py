"""Which training plans may run on this node: the operator's decisions, bound to the plans' sources."""

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.constants import NOT_REGISTERED, HashingAlgorithms, TrainingPlanApprovalStatus, TrainingPlanStatus
from fedbiomed.common.exceptions import FedbiomedTrainingPlanSecurityManagerError
from fedbiomed.node.plan_source import GRAMMAR, MAX_SOURCE_BYTES, class_name, plan_diff, plan_hash, plan_text
from fedbiomed.node.store import NodeStore

_APPROVED, _REJECTED = TrainingPlanApprovalStatus.APPROVED, TrainingPlanApprovalStatus.REJECTED
_PENDING = TrainingPlanApprovalStatus.PENDING
_COLUMNS = (
    *("name", "description", "hash", "training_plan_path", "training_plan_id", "training_plan_type", "training_plan_status"),
    *("algorithm", "researcher_id", "date_created", "date_modified", "date_registered", "date_last_action", "notes"),
)
_DECISION = ("training_plan_status", "training_plan_id", "notes")
_HIDDEN = frozenset({"training_plan_path", "hash", "date_created", "date_modified"})
# A researcher may not fill the operator's list or disk.
_MAX_PENDING = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDecision:
    """What the operator decided about a source.

    Args:
        status: `Approved`, `Rejected`, `Pending` or `Not Registered`.
        training_plan_id: of the plan with that source, None when there is none.
        msg: the same as a sentence, with what to do.
    """

    status: str
    training_plan_id: str | None
    msg: str


class PlanRegistry:
    """The plans that this node knows, with their sources.

    A row is a dict of `name, description, hash, training_plan_path, training_plan_id, training_plan_type, training_plan_status,
    algorithm, researcher_id, notes` and four dates as `dd-mm-YYYY HH:MM:SS.ffffff`. Name, path and source are unique. The path is a note
    of where the operator's file lay: the source is kept in the database, so a file that changes later changes nothing here.

    Args:
        store: the node's database; decisions made by other processes are seen at once.
        approval_required: False runs every plan but those that the operator rejected.
        algorithm: of the hashes; those made by another one, or by another Python release, are made anew here.
        clock: seconds since 1970.

    All methods raise FedbiomedTrainingPlanSecurityManagerError (FB606) with what was asked, what was found and what to do.
    """

    def __init__(
        self,
        store: NodeStore,
        *,
        approval_required: bool,
        algorithm: str = HashingAlgorithms.SHA256,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._clock = clock
        self._algorithm = str(algorithm)
        self.approval_required = approval_required
        _rehash(store, self._algorithm)

    def check(self, source: bytes) -> PlanDecision:
        """Look up what was decided about a source; raises when it is not Python at all."""
        found = self._of_source(source)
        status, plan_id, notes = (NOT_REGISTERED, None, None) if found is None else (found[key] for key in _DECISION)
        msg = _advice(status, notes, is_approval_required=self.approval_required)
        return PlanDecision(status=status, training_plan_id=plan_id, msg=msg)

    def require_approved(self, source: bytes) -> bytes:
        """Refuse a source that may not run here.

        Returns:
            The bytes to run: those that the operator approved (equal but for comments and white space) or, where no approval is
            needed, those given.
        """
        decision = self.check(source)
        if decision.status == _APPROVED and decision.training_plan_id is not None:
            return bytes(self._existing(decision.training_plan_id)["source"])
        if self.approval_required or decision.status == _REJECTED:
            raise FedbiomedTrainingPlanSecurityManagerError(f"FB606: {decision.msg}")
        return source

    def request(self, source: bytes, description: str, researcher_id: str) -> dict[str, Any]:
        """Lay a researcher's plan before the operator.

        Returns:
            The new row, `Pending`; or the row of the same source as it is, whatever was decided about it.
        """
        digest = plan_hash(source, self._algorithm)
        with self._store.transaction() as connection:
            known = self._of_source(source)
            if known is not None:
                return _row(known)
            waiting = connection.execute("SELECT count(*) FROM plans WHERE training_plan_status = ?", (_PENDING,)).fetchone()[0]
            if waiting >= _MAX_PENDING:
                raise FedbiomedTrainingPlanSecurityManagerError(
                    f"FB606: {waiting} training plans wait for this node's operator, no more are taken; ask the operator to look at them"
                )
            name = f"{class_name(source)}-{digest[:8]}"
            return self._insert(
                source,
                name=name if self._by("name", name) is None else f"{name}-{uuid.uuid4().hex[:8]}",
                description=description,
                training_plan_type=TrainingPlanStatus.REQUESTED,
                training_plan_status=_PENDING,
                researcher_id=researcher_id,
                training_plan_path=None,
            )

    def register(self, plan: Path | bytes, name: str | None = None, description: str = "") -> dict[str, Any]:
        """Take the operator's own file; it is approved by that.

        Args:
            plan: the file, or its content.
            name: for people; by default the file's name without ending (the class's name for bytes).
            description: for people.
        """
        source = plan if isinstance(plan, bytes) else _read(plan)
        path = None if isinstance(plan, bytes) else plan.absolute()
        default = class_name(source) if path is None else path.stem
        wanted = default if name is None else name.strip()
        if not wanted:
            raise FedbiomedTrainingPlanSecurityManagerError("FB606: the name of a training plan is empty; give one")
        with self._store.transaction():
            self._refuse_twin("source", self._of_source(source))
            self._refuse_twin(f"name {wanted!r:.120}", self._by("name", wanted))
            self._refuse_twin(f"path {path}", self._by("training_plan_path", str(path)))
            return self._insert(
                source,
                name=wanted,
                description=description,
                training_plan_type=TrainingPlanStatus.REGISTERED,
                training_plan_status=_APPROVED,
                researcher_id=None,
                training_plan_path=None if path is None else str(path),
            )

    def approve(self, training_plan_id: str) -> dict[str, Any]:
        """Let a plan run; a rejection's reason is forgotten."""
        return self._decide(training_plan_id, _APPROVED, None)

    def reject(self, training_plan_id: str, reason: str) -> dict[str, Any]:
        """Do not let a plan run, and say why; the researcher reads the reason, which is kept as `notes`."""
        if not reason.strip():
            raise FedbiomedTrainingPlanSecurityManagerError("FB606: a training plan is rejected for a reason; the researcher will read it")
        return self._decide(training_plan_id, _REJECTED, reason.strip())

    def update(self, training_plan_id: str, path: Path) -> dict[str, Any]:
        """Replace a plan's source by the operator's file; the decision about the plan stands."""
        source = _read(path)
        with self._store.transaction():
            _refuse_default(self._existing(training_plan_id), "updated")
            self._refuse_twin("source", self._of_source(source), but=training_plan_id)
            self._refuse_twin(f"path {path.absolute()}", self._by("training_plan_path", str(path.absolute())), but=training_plan_id)
            return self._replace(training_plan_id, source, str(path.absolute()))

    def ship(self, name: str, source: bytes) -> str:
        """Take a plan that came with the release: approved by that, and replaced when a release brings another text.

        What the operator decided about it before stands, also when the text is another one. A plan of the operator or a researcher that
        has this source or name stands as well.

        Returns:
            What was done: `registered`, `updated`, `unchanged`, or `taken`: another plan has the source or the name.
        """
        with self._store.transaction():
            named, known = self._by("name", name), self._of_source(source)
            if any(row is not None and row["training_plan_type"] != TrainingPlanStatus.DEFAULT for row in (named, known)):
                return "taken"
            if named is None and known is None:
                kind, status = TrainingPlanStatus.DEFAULT, _APPROVED
                values = {"name": name, "description": "came with the release", "training_plan_type": kind, "training_plan_status": status}
                self._insert(source, **values, researcher_id=None, training_plan_path=None)
                return "registered"
            if named is None or (known is not None and known["training_plan_id"] != named["training_plan_id"]):
                return "taken"
            if bytes(named["source"]) == source:
                return "unchanged"
            self._replace(named["training_plan_id"], source, None)
            return "updated"

    def withdraw_shipped(self) -> int:
        """Forget the approved plans that came with the release; those that the operator rejected stay rejected. Returns how many."""
        with self._store.transaction() as connection:
            return connection.execute(
                "DELETE FROM plans WHERE training_plan_type = ? AND training_plan_status != ?", (TrainingPlanStatus.DEFAULT, _REJECTED)
            ).rowcount

    def delete(self, training_plan_id: str) -> dict[str, Any]:
        """Forget a plan: it is `Not Registered` then. Returns the row that was removed."""
        with self._store.transaction() as connection:
            row = self._existing(training_plan_id)
            _refuse_default(row, "deleted")
            connection.execute("DELETE FROM plans WHERE training_plan_id = ?", (training_plan_id,))
        return _row(row)

    def all(self) -> list[dict[str, Any]]:
        """Every plan, in the order of arrival."""
        with self._store.transaction() as connection:
            return [_row(found) for found in connection.execute("SELECT * FROM plans ORDER BY rowid")]

    def get(self, training_plan_id: str) -> dict[str, Any]:
        """One plan."""
        return _row(self._existing(training_plan_id))

    def view(self, training_plan_id: str) -> str:
        """The source as text. It comes from others: make control characters visible before it reaches a terminal."""
        return plan_text(bytes(self._existing(training_plan_id)["source"]))

    def diff(self, training_plan_id: str) -> str:
        """Unified difference to the plan of the same name or class that was approved last; every line is new when there is none."""
        new = self._existing(training_plan_id)
        with self._store.transaction() as connection:
            old = connection.execute(
                "SELECT * FROM plans WHERE training_plan_id != ? AND training_plan_status = ? AND (name = ? OR class_name = ?)"
                " ORDER BY date_last_action DESC, rowid DESC LIMIT 1",
                (training_plan_id, _APPROVED, new["name"], new["class_name"]),
            ).fetchone()
        text, name = plan_text(bytes(new["source"])), f"{new['name']} ({new['training_plan_status']})"
        if old is None:
            return plan_diff("", text, "no approved plan of this class", name)
        return plan_diff(plan_text(bytes(old["source"])), text, f"{old['name']} ({old['training_plan_status']})", name)

    def _decide(self, training_plan_id: str, status: str, notes: str | None) -> dict[str, Any]:
        with self._store.transaction() as connection:
            self._existing(training_plan_id)
            connection.execute(
                "UPDATE plans SET training_plan_status = ?, notes = ?, date_last_action = ? WHERE training_plan_id = ?",
                (status, notes, self._clock(), training_plan_id),
            )
            return self.get(training_plan_id)

    def _insert(self, source: bytes, **values: str | None) -> dict[str, Any]:
        now = self._clock()
        row = {
            **values,
            "training_plan_id": f"training_plan_{uuid.uuid4()}",
            "hash": plan_hash(source, self._algorithm),
            "algorithm": self._algorithm,
            "grammar": GRAMMAR,
            "class_name": class_name(source),
            "source": source,
            **dict.fromkeys(("date_created", "date_modified", "date_registered", "date_last_action"), now),
        }
        with self._store.transaction() as connection:
            connection.execute(f"INSERT INTO plans ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})", list(row.values()))
            return self.get(str(row["training_plan_id"]))

    def _replace(self, training_plan_id: str, source: bytes, path: str | None) -> dict[str, Any]:
        now, digest = self._clock(), plan_hash(source, self._algorithm)
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE plans SET hash = ?, algorithm = ?, grammar = ?, class_name = ?, source = ?, training_plan_path = ?,"
                " date_modified = ?, date_last_action = ? WHERE training_plan_id = ?",
                (digest, self._algorithm, GRAMMAR, class_name(source), source, path, now, now, training_plan_id),
            )
            return self.get(training_plan_id)

    def _of_source(self, source: bytes) -> Mapping[str, Any] | None:
        """The plan of this source, by whatever algorithm its hash was made: another process may use another setting meanwhile."""
        with self._store.transaction() as connection:
            used = [row[0] for row in connection.execute("SELECT DISTINCT algorithm FROM plans")] or [self._algorithm]
            found = (self._by("hash", plan_hash(source, algorithm)) for algorithm in used)
            return next((row for row in found if row is not None), None)

    def _by(self, column: str, value: str) -> Mapping[str, Any] | None:
        with self._store.transaction() as connection:
            found: Mapping[str, Any] | None = connection.execute(f"SELECT * FROM plans WHERE {column} = ?", (value,)).fetchone()
        return found

    def _existing(self, training_plan_id: str) -> Mapping[str, Any]:
        found = self._by("training_plan_id", training_plan_id)
        if found is None:
            raise FedbiomedTrainingPlanSecurityManagerError(
                f"FB606: this node has no training plan {training_plan_id!r:.120}; `fedbiomed node plan list` shows those it has"
            )
        return found

    def _refuse_twin(self, what: str, known: Mapping[str, Any] | None, but: str | None = None) -> None:
        if known is not None and known["training_plan_id"] != but:
            raise FedbiomedTrainingPlanSecurityManagerError(
                f"FB606: a training plan with this {what} is here already: {known['training_plan_id']} ({known['name']},"
                f" {known['training_plan_status']}); approve, update or delete that one"
            )


def plan_registry(config: NodeConfig, store: NodeStore) -> PlanRegistry:
    """The plans of a node, by its settings."""
    return PlanRegistry(store, approval_required=config.plan_approval, algorithm=config.hashing_algorithm)


def listing(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a list of plans shows of a row."""
    return {key: value for key, value in row.items() if key not in _HIDDEN}


def _refuse_default(row: Mapping[str, Any], verb: str) -> None:
    if row["training_plan_type"] == TrainingPlanStatus.DEFAULT:
        raise FedbiomedTrainingPlanSecurityManagerError(f"FB606: {row['name']} came with the release and cannot be {verb}; reject it")


def _advice(status: str, notes: str | None, *, is_approval_required: bool) -> str:
    if status == _REJECTED:
        return f"this node's operator rejected the training plan: {notes}; change it and ask again with training_plan_approve"
    if status == _APPROVED:
        return "this node's operator approved the training plan"
    if not is_approval_required:
        return "this node runs training plans without approval"
    if status == _PENDING:
        return "the training plan waits for the decision of this node's operator (`fedbiomed node plan approve` or `reject`)"
    return "the training plan is not registered on this node: ask for it with training_plan_approve, then let the operator approve it"


def _rehash(store: NodeStore, algorithm: str) -> None:
    """Bring hashes up to date that were made by another algorithm or under another Python release; the sources and decisions stay.

    A source that this release cannot read keeps its old hash, so it matches nothing.
    """
    with store.transaction() as connection:
        asked = "SELECT training_plan_id, source FROM plans WHERE grammar != ? OR algorithm != ?"
        for row in connection.execute(asked, (GRAMMAR, algorithm)).fetchall():
            with contextlib.suppress(FedbiomedTrainingPlanSecurityManagerError):
                connection.execute(
                    "UPDATE OR IGNORE plans SET hash = ?, algorithm = ?, grammar = ? WHERE training_plan_id = ?",
                    (plan_hash(bytes(row["source"]), algorithm), algorithm, GRAMMAR, row["training_plan_id"]),
                )


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _date(found[key]) if key.startswith("date_") else found[key] for key in _COLUMNS}


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%d-%m-%Y %H:%M:%S.%f")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise FedbiomedTrainingPlanSecurityManagerError(
            f"FB606: cannot read the training plan {path}: {error.strerror or error}"
        ) from error
