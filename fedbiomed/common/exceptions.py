"""Every error that this project raises, as one tree.

    FedbiomedError
    ├── FedbiomedMessagingError          the broker: not reachable, refused
    │   ├── FedbiomedMessageError        a message is malformed, too large or of another protocol version
    │   ├── TransportTimeout             somebody did not answer in time
    │   └── ComponentTwiceError          two components use one id
    ├── FedbiomedRepositoryError         the HTTP repository: not reachable, refused
    │   └── FileStoreError               one file could not be stored or fetched
    ├── FedbiomedConfigError             a setting is missing or wrong
    │   └── FedbiomedEnvironError        ... asked for through `environ`, or missing in an INI file
    ├── FedbiomedUserInputError          an argument is wrong: what, what was given, what is allowed
    ├── FedbiomedTypeError, FedbiomedValueError     the same, also a TypeError / ValueError
    ├── FedbiomedExperimentError         an experiment cannot do what was asked
    │   ├── FedbiomedJobError            ... in the exchange with the nodes
    │   ├── FedbiomedBreakpointError     ... with this breakpoint folder
    │   ├── FedbiomedStrategyError       ... the round has not enough good replies
    │   ├── FedbiomedTrainerError        ... an event does not fit to the state of its trainer
    │   └── FedbiomedAggregatorError     ... these updates cannot be aggregated
    ├── FedbiomedTrainingPlanError       the researcher's plan: does not import, lacks a method, raises
    ├── FedbiomedRoundError              a node's half of a round
    ├── FedbiomedNodeStoreError          the node's database
    └── one class per remaining area, below

What a caller would treat differently has a class of its own. Messages say what was asked, what was found, what to do.
"""


class FedbiomedError(Exception):
    """Root of every error raised on purpose by this project."""


class FedbiomedMessagingError(FedbiomedError):
    """The broker cannot be reached or refuses us."""


class FedbiomedMessageError(FedbiomedMessagingError):
    """A message is malformed, too large or of another protocol version."""


class TransportTimeout(FedbiomedMessagingError):
    """A broker, a repository or a node did not answer in time."""


class ComponentTwiceError(FedbiomedMessagingError):
    """Two running components use one id."""


class FedbiomedRepositoryError(FedbiomedError):
    """The repository cannot be reached or refuses us."""


class FileStoreError(FedbiomedRepositoryError):
    """One file could not be stored or fetched."""


class FedbiomedConfigError(FedbiomedError):
    """A setting is missing or wrong."""


class FedbiomedEnvironError(FedbiomedConfigError):
    """A key asked of `environ` does not exist, or an INI file lacks it."""


class FedbiomedPluginError(FedbiomedError):
    """A family has no member of that name."""


class FedbiomedUserInputError(FedbiomedError):
    """An argument given by the user is wrong."""


class FedbiomedTypeError(FedbiomedError, TypeError):
    """A value has the wrong type."""


class FedbiomedValueError(FedbiomedError, ValueError):
    """A value is of the right type but not allowed."""


class FedbiomedExperimentError(FedbiomedError):
    """An experiment cannot do what was asked."""


class FedbiomedJobError(FedbiomedExperimentError):
    """The exchange of a round with the nodes failed."""


class FedbiomedBreakpointError(FedbiomedExperimentError):
    """A breakpoint cannot be written or read."""


class FedbiomedStrategyError(FedbiomedExperimentError):
    """A round has not enough good replies."""


class FedbiomedTrainerError(FedbiomedExperimentError):
    """An event does not fit to the state of its trainer, or a part of the experiment does not suit the trainer."""


class FedbiomedAggregatorError(FedbiomedExperimentError):
    """Updates cannot be aggregated."""


class AggregationError(FedbiomedAggregatorError):
    """Parameter sets or weights do not fit together."""


class FedbiomedFederatedDataSetError(FedbiomedExperimentError):
    """A description of the nodes' datasets is malformed."""


class FedbiomedResponsesError(FedbiomedExperimentError):
    """Replies of nodes are not of the expected form."""


class FedbiomedNodeStateAgentError(FedbiomedExperimentError):
    """The researcher's note of the nodes' states is inconsistent."""


class ExperimentStopped(FedbiomedExperimentError):
    """`Experiment.stop` ended the round; inside the package only: `run` returns the rounds that were done."""


class FedbiomedTrainingPlanError(FedbiomedError):
    """A training plan does not import, lacks a method or raises."""


class FedbiomedTrainingError(FedbiomedError):
    """A training step failed."""


class FedbiomedModelError(FedbiomedError):
    """A model cannot be built, read or written."""


class FedbiomedOptimizerError(FedbiomedError):
    """An optimizer cannot do what was asked."""


class FedbiomedMetricError(FedbiomedError):
    """A metric cannot be computed for these values."""


class FedbiomedUncertaintyError(FedbiomedError):
    """It cannot be said how sure a model is: the outputs, weights or layers are not such that they tell."""


class FedbiomedDPControllerError(FedbiomedError):
    """Differential privacy cannot be applied."""


class FedbiomedSecureAggregationError(FedbiomedError):
    """Secure aggregation cannot be applied."""


class FedbiomedSecaggError(FedbiomedSecureAggregationError):
    """A context of secure aggregation is wrong or cannot be made."""


class FedbiomedSecaggCrypterError(FedbiomedSecureAggregationError):
    """Values cannot be encrypted, or a sum not decrypted."""


class FedbiomedMPCControllerError(FedbiomedSecureAggregationError):
    """The parties cannot compute their keys together."""


class FedbiomedRoundError(FedbiomedError):
    """A node's half of a round failed."""


class WorkerError(FedbiomedRoundError):
    """The process that trains died, ran out of time or of memory."""


class WorkerInterrupted(WorkerError):
    """The process that trains was ended on purpose: the order is not wanted any more, or the node stops."""


class FedbiomedNodeStoreError(FedbiomedError):
    """The node's database cannot be read or written."""


class FedbiomedDatasetManagerError(FedbiomedError):
    """A dataset cannot be registered, found or removed."""


class FedbiomedDatasetError(FedbiomedError):
    """A dataset cannot be read."""


class FedbiomedDatasetValueError(FedbiomedDatasetError):
    """A dataset was asked for with a wrong value."""


class FedbiomedDataQualityCheckError(FedbiomedDatasetError):
    """A dataset does not hold what its type promises."""


class FedbiomedLoadingBlockError(FedbiomedError):
    """A data loading block cannot do what was asked."""


class FedbiomedLoadingBlockValueError(FedbiomedLoadingBlockError):
    """A data loading block was given a wrong value."""


class FedbiomedDataLoadingPlanError(FedbiomedError):
    """A data loading plan cannot do what was asked."""


class FedbiomedDataLoadingPlanValueError(FedbiomedDataLoadingPlanError):
    """A data loading plan was given a wrong value."""


class FedbiomedDataManagerError(FedbiomedError):
    """A data manager cannot load the data it was given."""


class FedbiomedTorchDataManagerError(FedbiomedDataManagerError):
    """... for a torch plan."""


class FedbiomedSkLearnDataManagerError(FedbiomedDataManagerError):
    """... for a scikit-learn plan."""


class FedbiomedTrainingPlanSecurityManagerError(FedbiomedError):
    """A training plan is not approved, or cannot be registered."""


class FedbiomedNodeStateManagerError(FedbiomedError):
    """A node's saved state cannot be found or read."""


class FedbiomedCheckpointError(FedbiomedError):
    """A checkpoint cannot be written, read or given to this object."""


class FedbiomedCheckpointKeyError(FedbiomedCheckpointError, KeyError):
    """A metric by which a model is kept was not measured; also a KeyError."""

    __str__ = Exception.__str__  # that of KeyError would quote the sentence


class FedbiomedVersionError(FedbiomedError):
    """A file or message was made by an incompatible version."""


class FedbiomedNetworkError(FedbiomedError):
    """A server of the network cannot start or stop."""


class FedbiomedCertificateError(FedbiomedError):
    """A certificate cannot be made, read or registered."""


class FedbiomedLoggerError(FedbiomedError):
    """The logger was given a wrong level or handler."""


class FedbiomedTaskQueueError(FedbiomedError):
    """A node's queue of orders cannot be read or written."""


class FedbiomedSilentTerminationError(FedbiomedError):
    """Ends a notebook's cell without a trace; kept for users' code, nothing here raises it."""
