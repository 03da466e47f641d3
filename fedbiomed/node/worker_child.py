"""The process that runs one training plan: it takes rounds from the daemon, one after the other, until the line is closed.

It serves one job and one source of a plan; the plan's module stays imported between rounds. Nothing that a plan raises gets out of here:
the daemon is told in a sentence, the trace goes to the node's training log.
"""

import contextlib
import json
import logging
import socket
import sys

from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.node.confinement import confine, memory_limit_mb
from fedbiomed.node.round import PlanCache, Round
from fedbiomed.node.task import MAX_FRAME_BYTES, RoundReport, RoundTask, task_from_bytes, to_bytes

logger = logging.getLogger(__name__)
_MAX_REASON = 2000


def main(descriptor: int) -> None:
    """Serve the daemon at the other end of a line.

    First come the limits (JSON) and the plan's source, then one task after the other.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s - %(message)s")
    with socket.socket(fileno=descriptor) as line, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        setup = json.loads(_heard(line))
        source = b""
        while len(source) < setup["source_bytes"]:
            source += _heard(line)
        missing = confine(setup["memory_mb"])
        if missing:
            logger.warning("this operating system does not give the training process %s", ", ".join(missing))
        plans, limit_mb = PlanCache(source), memory_limit_mb(setup["memory_mb"])
        while True:
            line.send(_carry_out(task_from_bytes(_heard(line)), plans, limit_mb, line))


def _heard(line: socket.socket) -> bytes:
    """The next frame.

    Raises:
        EOFError: the daemon has closed the line.
    """
    frame = line.recv(MAX_FRAME_BYTES)
    if not frame:
        raise EOFError
    return frame


def _carry_out(task: RoundTask, plans: PlanCache, memory_mb: int, line: socket.socket) -> bytes:
    def report(progress: RoundReport) -> None:
        line.send(to_bytes("progress", progress))

    try:
        return to_bytes("result", Round(task, plans, report).run())
    except FedbiomedError as error:
        logger.warning("round %d of %s failed", task.round, task.job_id, exc_info=True)
        reason = task.without_places(str(error))
        return to_bytes("failed", reason[:_MAX_REASON] + (_memory_hint(memory_mb) if _is_out_of_memory(error) else ""))
    except MemoryError:
        return to_bytes("failed", "FB314: the round ran out of memory" + _memory_hint(memory_mb))
    except Exception:  # the process lives on, and what it tells must not carry data
        logger.exception("round %d of %s failed", task.round, task.job_id)
        return to_bytes("failed", "FB300: internal error, see the log of this node")
    except BaseException as error:  # noqa: BLE001  # SystemExit and its like: a plan may raise anything
        return to_bytes("failed", f"FB605: plan {task.plan_class} tried to end the process ({type(error).__name__}): remove that call")


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


def _memory_hint(memory_mb: int) -> str:
    return f"; this node lets a plan allocate {memory_mb} MB (worker_memory_mb)"
