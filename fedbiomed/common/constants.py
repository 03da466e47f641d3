"""Closed sets of names that both sides share."""

import re
from enum import Enum, StrEnum

PROTOCOL_VERSION = "1"
BREAKPOINT_VERSION = "1"
CONFIG_VERSION = "1"
MAX_MESSAGE_BYTES = 64 * 1024
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
    """Base of the keys of a `DataLoadingPlan`: each dataset type names what may be customised by members of its own, all texts."""


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


class HashingAlgorithms(StrEnum):
    """How the source of a training plan is told from others; each value is a setting `hashing_algorithm`."""

    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"
    SHA3_256 = "SHA3_256"
    SHA3_384 = "SHA3_384"
    SHA3_512 = "SHA3_512"
    BLAKE2B = "BLAKE2B"
    BLAKE2S = "BLAKE2S"


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


class Phase(StrEnum):
    """What a reported metric was measured on; the values are the tags shown to users."""

    TRAINING = "TRAINING"
    TEST_GLOBAL = "VALIDATION ON GLOBAL UPDATES"
    TEST_LOCAL = "VALIDATION ON LOCAL UPDATES"


class ErrorNumbers(Enum):
    """Codes that stand before messages, by area: FB1xx messaging, FB2xx files, FB3xx node, FB4xx researcher, FB6xx common."""

    FB100 = "FB100: messaging error"
    FB101 = "FB101: the broker cannot be reached"
    FB103 = "FB103: no answer in time"
    FB200 = "FB200: repository error"
    FB201 = "FB201: the repository cannot be reached"
    FB202 = "FB202: the repository has no such file"
    FB203 = "FB203: the repository refused"
    FB300 = "FB300: node error"
    FB313 = "FB313: the node has no such dataset"
    FB314 = "FB314: the round failed on the node"
    FB322 = "FB322: dataset registration error"
    FB402 = "FB402: strategy error"
    FB407 = "FB407: no node answered"
    FB408 = "FB408: some nodes did not answer"
    FB409 = "FB409: a node failed"
    FB410 = "FB410: wrong value for an experiment"
    FB411 = "FB411: the experiment is not ready"
    FB413 = "FB413: breakpoint error"
    FB414 = "FB414: wrong user input"
    FB416 = "FB416: federated dataset error"
    FB601 = "FB601: message error"
    FB604 = "FB604: wrong value"
    FB605 = "FB605: training plan error"
    FB606 = "FB606: training plan security error"
    FB611 = "FB611: metric error"
    FB613 = "FB613: dataset error"
    FB614 = "FB614: data loading block error"
    FB615 = "FB615: data loading plan error"
    FB621 = "FB621: optimizer error"
    FB632 = "FB632: data manager error"
    FB999 = "FB999: unknown error"
