"""A training with everything that has a state: Adam, StepLR, dropout, batch normalisation, numpy's and Python's random numbers.

`python -m tests.support.step_training FOLDER ...` goes on from the `state.mpk` of each folder for five steps and writes `end.mpk`.
"""

import random
import sys

import numpy as np
import torch
from torch import nn

from fedbiomed.common.checkpointing import TrainingState


def make(seed: int) -> TrainingState:
    """A training that has not begun."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    return TrainingState(model=net, optimizers=optimizer, schedulers={"step": scheduler}, counters={"total_steps": 0})


def train(state: TrainingState, steps: int) -> None:
    """Do so many steps on fresh random samples."""
    state.model.train()
    for _ in range(steps):
        x = torch.from_numpy(np.random.normal(size=(6, 3))).float() * random.random()
        state.optimizers.zero_grad()
        (state.model(x) - x.sum(1, keepdim=True)).pow(2).mean().backward()
        state.optimizers.step()
        state.schedulers["step"].step()
        state.counters["total_steps"] += 1


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        restarted = make(seed=99)
        restarted.load(f"{folder}/state.mpk")
        train(restarted, 5)
        restarted.save(f"{folder}/end.mpk")
