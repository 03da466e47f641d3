"""The closed sets, the errors and the small helpers that users' code names."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedbiomed
from fedbiomed.common import exceptions
from fedbiomed.common.constants import (
    BiprimeType,
    ComponentType,
    DataLoadingBlockTypes,
    DatasetTypes,
    ErrorNumbers,
    HashingAlgorithms,
    ProcessTypes,
    SecaggElementTypes,
    TrainingPlanApprovalStatus,
    TrainingPlans,
    TrainingPlanStatus,
    UserRequestStatus,
    UserRoleType,
    VEParameters,
)
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedLoggerError, FedbiomedVersionError
from fedbiomed.common.logger import FedLogger, logger
from fedbiomed.common.transport.memory_bus import MemoryBroker, MemoryBus
from fedbiomed.common.utils import raise_for_version_compatibility
from tests.support.buses import Inbox

ERRORS = [
    *("FedbiomedAggregatorError", "FedbiomedDataLoadingPlanError", "FedbiomedDataLoadingPlanValueError", "FedbiomedDatasetError"),
    *("FedbiomedDatasetValueError", "FedbiomedDataManagerError", "FedbiomedDatasetManagerError", "FedbiomedDPControllerError"),
    *("FedbiomedEnvironError", "FedbiomedExperimentError", "FedbiomedFederatedDataSetError", "FedbiomedLoadingBlockError"),
    *("FedbiomedLoadingBlockValueError", "FedbiomedLoggerError", "FedbiomedMessageError", "FedbiomedMessagingError"),
    *("FedbiomedMetricError", "FedbiomedOptimizerError", "FedbiomedTrainingPlanSecurityManagerError", "FedbiomedRepositoryError"),
    *("FedbiomedResponsesError", "FedbiomedRoundError", "FedbiomedModelError", "FedbiomedSecaggError"),
    *("FedbiomedSilentTerminationError", "FedbiomedSkLearnDataManagerError", "FedbiomedStrategyError", "FedbiomedTaskQueueError"),
    *("FedbiomedTorchDataManagerError", "FedbiomedTrainingError", "FedbiomedTrainingPlanError", "FedbiomedDataQualityCheckError"),
    *("FedbiomedTypeError", "FedbiomedUserInputError", "FedbiomedValueError", "FedbiomedCertificateError"),
    *("FedbiomedMPCControllerError", "FedbiomedSecaggCrypterError", "FedbiomedSecureAggregationError", "FedbiomedVersionError"),
    *(
        "FedbiomedNodeStateManagerError",
        "FedbiomedNodeStateAgentError",
    ),
]


@pytest.mark.parametrize("name", ERRORS)
def test_each_area_has_its_error(name: str) -> None:
    error = getattr(exceptions, name)
    assert issubclass(error, FedbiomedError)
    assert issubclass(error, TypeError) == (name == "FedbiomedTypeError")
    assert issubclass(error, ValueError) == (name == "FedbiomedValueError")
    assert error.__doc__


def test_error_numbers_are_text_that_begins_with_the_number() -> None:
    assert all(number.value.startswith(f"{number.name}: ") for number in ErrorNumbers)
    assert {name[:3] for name in ErrorNumbers.__members__} == {"FB1", "FB2", "FB3", "FB4", "FB5", "FB6", "FB9"}


def test_closed_sets() -> None:
    assert HashingAlgorithms.list() == ["SHA256", "SHA384", "SHA512", "SHA3_256", "SHA3_384", "SHA3_512", "BLAKE2B", "BLAKE2S"]
    assert {kind.value for kind in DatasetTypes} == {"csv", "images", "default", "mednist", "medical-folder", "flamby", "none"}
    assert (SecaggElementTypes.SERVER_KEY.value, SecaggElementTypes.BIPRIME.value) == (0, 1)
    assert SecaggElementTypes.get_element_from_value(1) is SecaggElementTypes.BIPRIME
    assert [kind.value for kind in BiprimeType] == ["default", "dynamic"]
    assert (VEParameters.CLIPPING_RANGE, VEParameters.TARGET_RANGE, VEParameters.KEY_SIZE) == (3, 10000, 2048)
    assert (UserRoleType.ADMIN, UserRoleType.USER) == (1, 2)
    assert [status.value for status in UserRequestStatus] == ["PENDING", "REJECTED"]
    assert TrainingPlanStatus.list() == ["requested", "registered", "default"]
    assert tuple(TrainingPlanStatus.list()) == (TrainingPlanStatus.REQUESTED, TrainingPlanStatus.REGISTERED, TrainingPlanStatus.DEFAULT)
    approval = TrainingPlanApprovalStatus
    assert (approval.APPROVED, approval.REJECTED, approval.PENDING) == ("Approved", "Rejected", "Pending")
    assert (ProcessTypes.DATA_LOADER.value, ProcessTypes.PARAMS.value) == (0, 1)
    assert (ComponentType.RESEARCHER, ComponentType.NODE) == ("RESEARCHER", "NODE")
    assert (TrainingPlans.TorchTrainingPlan, TrainingPlans.SkLearnTrainingPlan) == ("TorchTrainingPlan", "SkLearnTrainingPlan")


def test_the_package_tells_its_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", fedbiomed.__version__)


def test_names_of_loading_blocks_are_checked_where_they_are_defined() -> None:
    class Good(DataLoadingBlockTypes):
        ONE = "one"
        TWO = "two"

    assert [name.value for name in Good] == ["one", "two"]
    with pytest.raises(ValueError, match="stands there twice"):

        class Twice(DataLoadingBlockTypes):
            ONE = "one"
            TWO = "one"

    with pytest.raises(ValueError, match="must be text"):

        class Number(DataLoadingBlockTypes):
            ONE = 1


@pytest.mark.parametrize(("theirs", "ours"), [("1", "1"), ("1.0", "1"), ("2.3.4", "2.3.4")])
def test_equal_versions_pass_in_silence(theirs: str, ours: str, caplog: pytest.LogCaptureFixture) -> None:
    raise_for_version_compatibility(theirs, ours)
    assert not caplog.records


@pytest.mark.parametrize(("theirs", "ours"), [("1.1", "1.2"), ("1", "1.0.1")])
def test_an_older_minor_version_passes_with_a_warning(theirs: str, ours: str, caplog: pytest.LogCaptureFixture) -> None:
    raise_for_version_compatibility(theirs, ours)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("theirs", "ours"), [("2", "1"), ("1", "2"), ("1.3", "1.2"), ("1.2.1", "1.2"), (None, "1"), ("0", "1"), ("x", "1")]
)
def test_other_versions_are_refused(theirs: str | None, ours: str) -> None:
    with pytest.raises(FedbiomedVersionError, match="FB625"):
        raise_for_version_compatibility(theirs, ours)


def test_the_text_of_a_refused_version() -> None:
    with pytest.raises(FedbiomedVersionError, match="theirs 3, ours 1"):
        raise_for_version_compatibility("3", "1", "theirs %s, ours %s")
    with pytest.raises(FedbiomedVersionError, match="the file is too new: it is of version 3, here is 1"):
        raise_for_version_compatibility("3", "1", "the file is too new")


@pytest.fixture
def clean_logger() -> Iterator[FedLogger]:
    """The logger, without handlers afterwards."""
    yield logger
    for key in ("CONSOLE", "FILE", "MQTT", "MINE"):
        logger._internalAddHandler(key, None)
    logger.setLevel(logging.NOTSET)


def test_there_is_one_logger() -> None:
    assert FedLogger() is logger
    assert logger.name == "fedbiomed"


def test_a_handler_shows_what_its_level_says(clean_logger: FedLogger) -> None:
    stream = io.StringIO()
    clean_logger._internalAddHandler("MINE", logging.StreamHandler(stream))
    clean_logger.debug("a first line")
    assert stream.getvalue() == "a first line\n", "the logger lets it through"
    clean_logger.setLevel("ERROR", "MINE")
    clean_logger.log("warning", "not shown")
    clean_logger.log(logging.ERROR, "shown")
    assert stream.getvalue() == "a first line\nshown\n"
    clean_logger._internalAddHandler("MINE", None)
    clean_logger.error("gone")
    assert "gone" not in stream.getvalue()


def test_a_level_for_no_handler_is_told(clean_logger: FedLogger, caplog: pytest.LogCaptureFixture) -> None:
    clean_logger.setLevel("INFO", "FILE")
    assert "no handler FILE" in caplog.text


def test_a_second_console_is_only_told(clean_logger: FedLogger, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean_logger.addConsoleHandler(level="WARNING")
    clean_logger.addConsoleHandler()
    assert "a handler CONSOLE is installed already" in caplog.text
    clean_logger.addFileHandler(filename=str(tmp_path / "mylog.log"), level="INFO")
    clean_logger.info("into the file")
    assert "into the file" in (tmp_path / "mylog.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("level", ["loud", None, True, 1.5])
def test_an_unknown_level_is_refused(level: object) -> None:
    with pytest.raises(FedbiomedLoggerError, match="log level"):
        logger.setLevel(level)  # type: ignore[arg-type]
    with pytest.raises(FedbiomedLoggerError, match="handler"):
        logger._internalAddHandler("MINE", "stderr")  # type: ignore[arg-type]


def test_records_go_over_a_bus(clean_logger: FedLogger) -> None:
    broker = MemoryBroker()
    inbox = Inbox()
    with MemoryBus(broker, "listener") as listener, MemoryBus(broker, "node_1") as bus:
        listener.connect(5)
        bus.connect(5)
        listener.subscribe("general/logger", inbox)
        clean_logger.addMqttHandler(bus, "node_1")
        clean_logger.debug("too low")
        clean_logger.warning("round %d", 3)
        clean_logger.delMqttHandler()
        clean_logger.warning("nobody hears")
        bus.publish("general/logger", b'{"the": "end"}')
        told = [json.loads(payload) for payload in inbox.wait(2)]
    assert told.pop() == {"the": "end"}
    assert [(t["node_id"], t["level"], t["message"], t["name"]) for t in told] == [("node_1", "WARNING", "round 3", "fedbiomed")]
    assert told[0]["asctime"]
