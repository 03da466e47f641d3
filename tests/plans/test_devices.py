"""On which device a training runs: the table of the researcher's wish and the node's offer."""

import pytest
import torch

from fedbiomed.common.training_plans.devices import choose_device

NONE_OFFERED = "this node offers no GPU"
NONE_THERE = "no GPU that torch can use"


@pytest.mark.parametrize(
    ("use_gpu", "node_args", "gpu_count", "device", "said"),
    [
        (False, None, 2, "cpu", ""),
        (False, {"gpu": True}, 2, "cpu", ""),
        (True, None, 2, "cpu", NONE_OFFERED),
        (True, {"gpu": False, "gpu_num": 1}, 2, "cpu", NONE_OFFERED),
        (True, {"gpu": True}, 0, "cpu", NONE_THERE),
        (False, {"gpu": True, "gpu_only": True}, 0, "cpu", NONE_THERE),
        (True, {"gpu": True}, 2, "cuda", ""),
        (True, {"gpu": True, "gpu_num": None}, 2, "cuda", ""),
        (True, {"gpu": True, "gpu_num": 0}, 2, "cuda:0", ""),
        (True, {"gpu": True, "gpu_num": 1}, 2, "cuda:1", ""),
        (False, {"gpu": True, "gpu_num": 1, "gpu_only": True}, 2, "cuda:1", ""),
        (False, {"gpu": False, "gpu_only": True}, 2, "cuda", ""),
        (True, {"gpu": True, "gpu_num": 2}, 2, "cuda", "there is no GPU 2 on this node, it has 2: taking the default one"),
        (True, {"gpu": True, "gpu_num": -1}, 2, "cuda", "there is no GPU -1"),
        (True, {"gpu": True, "gpu_num": "first"}, 2, "cuda", "there is no GPU 'first'"),
    ],
)
def test_the_researcher_asks_and_the_node_decides(use_gpu, node_args, gpu_count, device, said):
    name, warning = choose_device(use_gpu=use_gpu, node_args=node_args, gpu_count=gpu_count)
    assert name == device
    assert said in warning
    assert bool(said) == bool(warning)
    assert torch.device(name).type == device.partition(":")[0]
