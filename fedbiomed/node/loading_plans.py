"""The node's data loading plans: how its own folders become what training plans expect. They never leave the node."""

import json
from typing import Any

from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedDatasetManagerError
from fedbiomed.node.store import NodeStore

_MIN_NAME, _MAX_NAME, _MAX_CONTENT = 4, 200, 60_000
Serialized = tuple[dict[str, Any], list[dict[str, Any]]]


class LoadingPlanStore:
    """Keeps loading plans beside the datasets that use them.

    Args:
        store: the node's database.
    """

    def __init__(self, store: NodeStore) -> None:
        self._store = store

    def add(self, plan: DataLoadingPlan) -> str:
        """Keep a plan; the very same plan may be added again, for another dataset.

        Returns:
            Its id.

        Raises:
            FedbiomedDatasetManagerError: FB322: its name is too short or taken, it is too large, or its id stands for another plan.
        """
        name, content = plan.desc.strip(), json.dumps(plan.serialize(), sort_keys=True)
        if not _MIN_NAME <= len(name) <= _MAX_NAME:
            raise _refused(f"the name of a loading plan has {_MIN_NAME} to {_MAX_NAME} characters, not {plan.desc!r:.80}")
        if len(content) > _MAX_CONTENT:
            raise _refused(f"the loading plan {name!r} has {len(content)} characters, at most {_MAX_CONTENT} are kept")
        with self._store.transaction() as connection:
            for row in connection.execute("SELECT * FROM loading_plans WHERE dlp_id = ? OR name = ?", (plan.dlp_id, name)):
                if row["dlp_id"] != plan.dlp_id:
                    raise _refused(f"a loading plan called {name!r} is there already ({row['dlp_id']}); choose another name")
                if row["content"] != content:
                    raise _refused(f"the id {plan.dlp_id} stands for another loading plan, {row['name']!r}; make the plan anew")
                return plan.dlp_id
            connection.execute("INSERT INTO loading_plans (dlp_id, name, content) VALUES (?, ?, ?)", (plan.dlp_id, name, content))
        return plan.dlp_id

    def get(self, dlp_id: str) -> Serialized:
        """A plan as `DataLoadingPlan.serialize` gives it.

        Raises:
            FedbiomedDatasetManagerError: FB313: no such id.
        """
        with self._store.transaction() as connection:
            row = connection.execute("SELECT content FROM loading_plans WHERE dlp_id = ?", (dlp_id,)).fetchone()
        if row is None:
            raise FedbiomedDatasetManagerError(f"FB313: this node has no loading plan {dlp_id!r:.120}")
        plan, blocks = json.loads(row["content"])
        return plan, blocks

    def all(self) -> list[Serialized]:
        """Every plan, in the order of their coming."""
        with self._store.transaction() as connection:
            rows = connection.execute("SELECT content FROM loading_plans ORDER BY rowid").fetchall()
        return [(plan, blocks) for plan, blocks in (json.loads(row["content"]) for row in rows)]

    def forget_unused(self) -> None:
        """Remove the plans that no dataset uses."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM loading_plans WHERE dlp_id NOT IN (SELECT dlp_id FROM datasets WHERE dlp_id IS NOT NULL)")


def _refused(reason: str) -> FedbiomedDatasetManagerError:
    return FedbiomedDatasetManagerError(f"FB322: {reason}")
