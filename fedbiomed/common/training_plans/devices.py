"""On which device a torch plan is trained: the researcher asks, the node decides."""

from collections.abc import Mapping
from typing import Any


def choose_device(*, use_gpu: bool, node_args: Mapping[str, Any] | None, gpu_count: int) -> tuple[str, str]:
    """Choose the device, and say why where it is not what was asked for.

    | the node                          | `use_gpu` | device          |
    |-----------------------------------|-----------|-----------------|
    | has no GPU                        | any       | CPU             |
    | offers none (`gpu` False)         | any       | CPU             |
    | offers one (`gpu` True)           | False     | CPU             |
    | offers one                        | True      | GPU             |
    | allows nothing else (`gpu_only`)  | any       | GPU             |

    Args:
        use_gpu: the researcher's training argument.
        node_args: `gpu`, `gpu_num` (None: the default GPU), `gpu_only`; None or a missing key: not offered.
        gpu_count: GPUs that this machine has.

    Returns:
        The name of a torch device, and a warning, empty where there is nothing to say.
    """
    offer = {"gpu": False, "gpu_num": None, "gpu_only": False, **(node_args or {})}
    is_offered = offer["gpu"] or offer["gpu_only"]
    if not (offer["gpu_only"] or (is_offered and use_gpu)):
        return "cpu", "training on the CPU: this node offers no GPU" if use_gpu else ""
    if not gpu_count:
        return "cpu", "training on the CPU: this node has no GPU that torch can use"
    number = offer["gpu_num"]
    if number is None:
        return "cuda", ""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < gpu_count:
        return "cuda", f"there is no GPU {number!r:.20} on this node, it has {gpu_count}: taking the default one"
    return f"cuda:{number}", ""
