"""Closed sets of names that both sides share."""

import re
from enum import Enum, IntEnum, StrEnum

PROTOCOL_VERSION = "1"
BREAKPOINT_VERSION = "1"
CONFIG_VERSION = "1"
MAX_MESSAGE_BYTES = 64 * 1024
ROUND_CONFIG_KEY = "round_config"  # of the aggregator's arguments, the one that carries a strategy's configuration of a round
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class ComponentType(StrEnum):
    """Which side a process is on."""

    RESEARCHER = "RESEARCHER"
    NODE = "NODE"


class TrainingPlans(StrEnum):
    """The library that a training plan stands on."""

    TorchTrainingPlan = "TorchTrainingPlan"
    SkLearnTrainingPlan = "SkLearnTrainingPlan"


class ProcessTypes(Enum):
    """What a pre-processing method of a plan is applied to."""

    DATA_LOADER = 0
    PARAMS = 1


class HashingAlgorithms(StrEnum):
    """With what the source of a training plan may be hashed."""

    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"
    SHA3_256 = "SHA3_256"
    SHA3_384 = "SHA3_384"
    SHA3_512 = "SHA3_512"
    BLAKE2B = "BLAKE2B"
    BLAKE2S = "BLAKE2S"

    @staticmethod
    def list() -> list[str]:
        """All names."""
        return [algorithm.value for algorithm in HashingAlgorithms]


class DatasetTypes(StrEnum):
    """The kinds of datasets that the release ships, as `data_type` says them; NONE: of no kind in particular."""

    TABULAR = "csv"
    IMAGES = "images"
    DEFAULT = "default"
    MEDNIST = "mednist"
    MEDICAL_FOLDER = "medical-folder"
    FLAMBY = "flamby"
    NONE = "none"


class DataLoadingBlockTypes(Enum):
    """Base of the names under which a dataset type keeps its loading blocks: no members here, a subclass lists its own.

    Raises:
        ValueError: when the subclass is defined: a value is not text, or stands there twice.
    """

    def __init__(self, value: object) -> None:
        if not isinstance(value, str):
            raise ValueError(f"{type(self).__name__}.{self.name} must be text, not {value!r:.80}")  # noqa: TRY004  as for a double one
        if any(value == other.value for other in type(self)):
            raise ValueError(f"{type(self).__name__}.{self.name}: the value {value!r:.80} stands there twice")


class SecaggElementTypes(Enum):
    """What a message about secure aggregation concerns."""

    SERVER_KEY = 0
    BIPRIME = 1

    @staticmethod
    def get_element_from_value(element_value: int) -> "SecaggElementTypes":
        """The element of a number.

        Raises:
            ValueError: there is none.
        """
        return SecaggElementTypes(element_value)


class BiprimeType(StrEnum):
    """Whether a biprime was shipped or negotiated."""

    DEFAULT = "default"
    DYNAMIC = "dynamic"


class VEParameters:
    """Quantisation of values before they are encrypted, and the size of the keys.

    Attributes:
        CLIPPING_RANGE: values are cut to plus and minus this, where nothing else is said.
        TARGET_RANGE: number of steps between the two.
        KEY_SIZE: of one party's key, in bits.
    """

    CLIPPING_RANGE: int = 3
    TARGET_RANGE: int = 10000
    KEY_SIZE: int = 2048


class UserRoleType(IntEnum):
    """What a user of a node's web page may do."""

    ADMIN = 1
    USER = 2


class UserRequestStatus(StrEnum):
    """How a request for an account stands."""

    PENDING = "PENDING"
    REJECTED = "REJECTED"


class TrainingPlanApprovalStatus(StrEnum):
    """What a node's operator decided about a plan."""

    APPROVED = "Approved"
    REJECTED = "Rejected"
    PENDING = "Pending"


class TrainingPlanStatus(StrEnum):
    """How a plan came to a node."""

    REQUESTED = "requested"
    REGISTERED = "registered"
    DEFAULT = "default"

    @staticmethod
    def list() -> list[str]:
        """All values."""
        return [status.value for status in TrainingPlanStatus]


NOT_REGISTERED = "Not Registered"


class OrderState(StrEnum):
    """How far a node has come with an order; the order of the first six is that of the work."""

    NEW = "new"
    FETCHED = "fetched"
    RUNNING = "running"
    TRAINED = "trained"
    UPLOADED = "uploaded"
    REPLIED = "replied"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


EPSILON = "epsilon"  # name of the metric that tells what was spent of a node's privacy


class Phase(StrEnum):
    """What a reported metric was measured on; the values are the tags shown to users."""

    TRAINING = "TRAINING"
    TEST_GLOBAL = "VALIDATION ON GLOBAL UPDATES"
    TEST_LOCAL = "VALIDATION ON LOCAL UPDATES"


class ErrorNumbers(Enum):
    """Codes that stand before messages, by area: FB1xx messaging, FB2xx files, FB3xx node, FB4xx researcher,
    FB5xx nodes seen by the researcher, FB6xx common."""

    FB100 = "FB100: messaging error"
    FB101 = "FB101: the broker cannot be reached"
    FB103 = "FB103: no answer in time"
    FB104 = "FB104: a message was not delivered"
    FB200 = "FB200: repository error"
    FB201 = "FB201: the repository cannot be reached"
    FB202 = "FB202: the repository has no such file"
    FB203 = "FB203: the repository refused"
    FB300 = "FB300: node error"
    FB312 = "FB312: the node was stopped"
    FB313 = "FB313: the node has no such dataset"
    FB314 = "FB314: the round failed on the node"
    FB315 = "FB315: the node has no such state"
    FB320 = "FB320: the node cannot fetch a file"
    FB321 = "FB321: the node cannot upload a file"
    FB322 = "FB322: dataset registration error"
    FB400 = "FB400: researcher error"
    FB401 = "FB401: aggregation error"
    FB402 = "FB402: strategy error"
    FB406 = "FB406: nobody was sampled"
    FB407 = "FB407: no node answered"
    FB408 = "FB408: some nodes did not answer"
    FB409 = "FB409: a node failed"
    FB410 = "FB410: wrong value for an experiment"
    FB411 = "FB411: the experiment is not ready"
    FB412 = "FB412: the experiment has no such result"
    FB413 = "FB413: breakpoint error"
    FB414 = "FB414: wrong user input"
    FB415 = "FB415: secure aggregation context error"
    FB416 = "FB416: federated dataset error"
    FB417 = "FB417: secure aggregation error"
    FB419 = "FB419: node state agent error"
    FB500 = "FB500: a node reports an error"
    FB600 = "FB600: environ error"
    FB601 = "FB601: message error"
    FB602 = "FB602: logger error"
    FB603 = "FB603: task queue error"
    FB604 = "FB604: wrong value"
    FB605 = "FB605: training plan error"
    FB606 = "FB606: training plan security error"
    FB611 = "FB611: metric error"
    FB613 = "FB613: dataset error"
    FB614 = "FB614: data loading block error"
    FB615 = "FB615: data loading plan error"
    FB616 = "FB616: differential privacy error"
    FB619 = "FB619: certificate error"
    FB620 = "FB620: MPC controller error"
    FB621 = "FB621: optimizer error"
    FB622 = "FB622: model error"
    FB624 = "FB624: secure aggregation crypter error"
    FB625 = "FB625: incompatible version"
    FB632 = "FB632: data manager error"
    FB999 = "FB999: unknown error"
