"""`environ`: a node's settings under the names that notebooks know; see `fedbiomed.common.environ`. Nothing of ours reads it.

`FBM_NODE_DIR` names the node's folder, else it is `fbm-node` in the working directory. A process is one component: where the researcher's
`environ` is in use already, importing this module fails.
"""

import os
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path

from fedbiomed.common import config as settings
from fedbiomed.common.config import NodeConfig
from fedbiomed.common.constants import ComponentType, ErrorNumbers
from fedbiomed.common.environ import Environ, Key, claim, component_in_process, shared_keys
from fedbiomed.common.exceptions import FedbiomedEnvironError

FOLDER_VARIABLE = "FBM_NODE_DIR"
DEFAULT_FOLDER = "fbm-node"

_KEYS = {
    **shared_keys(ComponentType.NODE, id_variable="NODE_ID", root_variable=FOLDER_VARIABLE),
    "NODE_ID": Key(lambda config: config.id, variable="NODE_ID"),
    "TIMEOUT": Key(lambda config: config.request_timeout_s, variable="FBM_REQUEST_TIMEOUT_S"),
    "DB_PATH": Key(lambda config: str(config.database)),
    "DEFAULT_TRAINING_PLANS_DIR": Key(lambda _config: str(Path(__file__).with_name("default_training_plans"))),
    "TRAINING_PLANS_DIR": Key(lambda config: str(config.var / "training_plans"), is_folder=True),
    "ALLOW_DEFAULT_TRAINING_PLANS": Key(lambda config: config.allow_default_training_plans, variable="ALLOW_DEFAULT_TRAINING_PLANS"),
    "TRAINING_PLAN_APPROVAL": Key(lambda config: config.plan_approval, variable="ENABLE_TRAINING_PLAN_APPROVAL"),
    "HASHING_ALGORITHM": Key(lambda config: str(config.hashing_algorithm)),
    "SECURE_AGGREGATION": Key(lambda config: config.secure_aggregation, variable="SECURE_AGGREGATION"),
    "FORCE_SECURE_AGGREGATION": Key(lambda config: config.force_secure_aggregation, variable="FORCE_SECURE_AGGREGATION"),
    "EDITOR": Key(lambda config: os.environ.get("EDITOR") or "nano"),
}


def open_config(root: Path | None = None, env: Mapping[str, str] = os.environ) -> NodeConfig:
    """Read the settings of the node in a folder; a folder that has none becomes a new node's.

    Args:
        root: the node's folder; None: what `FBM_NODE_DIR` names, else `fbm-node` in the working directory.
        env: variables that win over the file, see `config.load`.

    Raises:
        FedbiomedConfigError: a setting is unknown or wrong.
    """
    folder = (root or Path(env.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)).absolute()
    if not settings.exists(folder):
        settings.save(NodeConfig(root=folder, id=f"node_{uuid.uuid4()}"))
    return settings.load(NodeConfig, folder, env)


class NodeEnviron(Environ):
    """A node's.

    Args:
        config: reads its configuration.
        variables: of the process.
    """

    def __init__(self, config: Callable[[], NodeConfig] = open_config, variables: MutableMapping[str, str] = os.environ) -> None:
        super().__init__(ComponentType.NODE, config, _KEYS, variables)


def _refuse_second_side() -> None:
    if component_in_process() is ComponentType.RESEARCHER:
        raise FedbiomedEnvironError(
            f"{ErrorNumbers.FB600.value}: this process is a researcher already; a node's environ belongs into a process of its own"
        )


_refuse_second_side()
environ = claim(NodeEnviron())
