"""`environ`: the researcher's settings under the names that notebooks know; see `fedbiomed.common.environ`. Nothing of ours reads it.

Settings are those that a connection made now would have: `FBM_RESEARCHER_DIR` names the folder, else it is `fbm-researcher` in the working
directory.
"""

import os
from collections.abc import Callable, MutableMapping

from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.constants import ComponentType
from fedbiomed.common.environ import Environ, Key, claim, shared_keys
from fedbiomed.researcher.connect import FOLDER_VARIABLE, open_config

_KEYS = {
    **shared_keys(ComponentType.RESEARCHER, id_variable="RESEARCHER_ID", root_variable=FOLDER_VARIABLE),
    "RESEARCHER_ID": Key(lambda config: config.id, variable="RESEARCHER_ID"),
    "TIMEOUT": Key(lambda config: config.answer_timeout_s, variable="FBM_ANSWER_TIMEOUT_S"),
    "DB_PATH": Key(lambda config: str(config.var / f"db_{config.id}.json")),
    "EXPERIMENTS_DIR": Key(lambda config: str(config.experiments), is_folder=True, variable="FBM_EXPERIMENTS_DIR"),
    "TENSORBOARD_RESULTS_DIR": Key(lambda config: str(config.tensorboard), is_folder=True, variable="FBM_TENSORBOARD_DIR"),
}


class ResearcherEnviron(Environ):
    """The researcher's.

    Args:
        config: reads its configuration.
        variables: of the process.
    """

    def __init__(self, config: Callable[[], ResearcherConfig] = open_config, variables: MutableMapping[str, str] = os.environ) -> None:
        super().__init__(ComponentType.RESEARCHER, config, _KEYS, variables)


environ = claim(ResearcherEnviron())
