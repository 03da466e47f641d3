"""Jobs on a stage of scripted nodes."""

from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.researcher.job import Job
from tests.support.researchers import Stage
from tests.support.tiny_plan import TinyPlan

PARAMS = {"weight": np.full((1, 1), 3.0, dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)}


def make_job(stage: Stage, **changes: Any) -> Job:
    arguments: dict[str, Any] = {
        "training_plan_class": TinyPlan,
        "training_args": TrainingArgs({"epochs": 1}, only_required=False),
        "data": stage.data(),
        "keep_files_dir": str(stage.folder / "job"),
    }
    return Job(reqs=stage.requests(), **{**arguments, **changes})


def files_of(job: Job, pattern: str) -> list[Path]:
    return sorted(Path(job.training_plan_file).parent.glob(pattern))


def saved_folder(stage: Stage, name: str) -> Path:
    folder = stage.folder / f"breakpoint_{name}"
    folder.mkdir()
    return folder
