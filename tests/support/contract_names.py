"""The public names that users of this package rely on: module, name, and for classes their members, with signatures where they are fixed.

A line without indent is a module, one indented by two is a name in it, one by four holds members of the class above it. A signature names
parameters in their order, with their defaults; further ones that can be left out may follow.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPTIMIZER = "from_declearn_optimizer init_round step get_aux set_aux get_state load_state"
_DECLEARN = (
    "FedProxRegularizer LassoRegularizer RidgeRegularizer AdaGradModule AdamModule EWMAModule RMSPropModule MomentumModule "
    "ScaffoldClientModule ScaffoldServerModule YogiModule YogiMomentumModule list_optim_modules list_optim_regularizers"
)
# Names that are not there yet; each must go from this list when it comes, which the test demands.
PENDING: frozenset[str] = frozenset()

_TEXT = """
fedbiomed
  __version__

fedbiomed.researcher.experiment
  Experiment(tags=None, nodes=None, training_data=None, aggregator=None, agg_optimizer=None, node_selection_strategy=None, \
round_limit=None, training_plan_class=None, training_plan_path=None, model_args=None, training_args=None, save_breakpoints=False, \
tensorboard=False, experimentation_folder=None, secagg=False)
    tags(); nodes(); training_data(); aggregator(); agg_optimizer(); strategy(); round_limit(); round_current()
    experimentation_folder(); experimentation_path(); training_plan_class(); training_plan_path(); model_args(); training_args()
    test_ratio(); test_metric(); test_metric_args(); test_on_local_updates(); test_on_global_updates(); job(); save_breakpoints()
    monitor(); aggregated_params(); training_replies(); training_plan(); secagg; info()
    set_tags(tags); set_nodes(nodes); set_training_data(training_data, from_tags=False); set_aggregator(aggregator)
    set_agg_optimizer(agg_optimizer); set_strategy(node_selection_strategy); set_round_limit(round_limit)
    set_experimentation_folder(experimentation_folder); set_training_plan_class(training_plan_class)
    set_training_plan_path(training_plan_path); set_model_args(model_args); set_training_args(training_args, reset=True)
    set_test_ratio(ratio); set_test_metric(metric, **metric_args); set_test_on_local_updates(flag=True)
    set_test_on_global_updates(flag=True); set_job(); set_save_breakpoints(save_breakpoints); set_tensorboard(tensorboard)
    set_secagg(secagg); set_use_secagg(use_secagg, timeout=0); use_secagg(); secagg_context()
    run(rounds=None, increase=False); run_once(increase=False, test_after=False); stop(); history
    breakpoint(); load_breakpoint(breakpoint_folder_path=None); trainer(); set_trainer(trainer); history_transitions()
    merge_models(strategy=None)
    training_plan_approve(training_plan, description='no description provided', nodes=(), timeout=5)
    check_training_plan_status(); training_plan_file(display=True)

fedbiomed.researcher.aggregators
  Aggregator
  FedAverage
  Scaffold
  initialize
  federated_averaging
  weighted_sum
fedbiomed.researcher.aggregators.aggregator
  Aggregator
    aggregate; check_values; set_fds; set_training_plan_type; create_aggregator_args; save_state_breakpoint; load_state_breakpoint
fedbiomed.researcher.aggregators.fedavg
  FedAverage()
    aggregator_name
fedbiomed.researcher.aggregators.scaffold
  Scaffold(server_lr=1.0, fds=None)

fedbiomed.researcher.events
  ModelTrainerEvent(trainer)
    handle; next
  TrainingRoundFinished(trainer)
    handle; next
  ModelTestFinished(trainer)
    handle; next
  DaisyChainRoundFinished(trainer)
    handle; next
  ModelTrainer(skip_model_tests=False, model_test_after_each_round=True, delete_local_models_after_aggregation=True)
    start_round; test_round; finish; training; options
  DaisyChainTrainer(daisy_chain_period=1, aggregation_period=10, seed=None, weighted=False)
  MergeTrainer
  SWAGRoundFinished(trainer)
    handle; next; _aggregate_param_vectors
  SWAGTrainer(start=1, every=1, unit='steps', max_snapshots=None, max_rank=20, skip_model_tests=False, \
model_test_after_each_round=True, delete_local_models_after_aggregation=True)
    swag; moments; schedule

fedbiomed.common.uncertainty
  SWAG(first, second, deviations=None, model=None, seed=None)
    sample(scale=1.0, seed=None); predict(inputs, draws=30); first; second; variance; std; draw; save; load; with_model; rank
  DeepEnsemble(models, softmax=False)
    predict(inputs); vote(inputs); of_params
  MCDropout(model, passes=10, softmax=False, seed=None)
    predict(inputs)
  predictive
  calibration_curve
  expected_calibration_error

fedbiomed.researcher.strategies
  Strategy
  DefaultStrategy
  ModelMergeStrategy
    initialize_parameters; configure_fit; configure_evaluate; aggregate_fit(round, results, failures)
    aggregate_evaluate(round, results, failures); evaluate(round, params)
fedbiomed.researcher.strategies.default_strategy
  DefaultStrategy
fedbiomed.researcher.strategies.strategy
  Strategy
    sample_nodes(round_i); refine(training_replies, round_i); save_state_breakpoint

fedbiomed.researcher.requests
  Requests
    ping_nodes(); list(nodes=None, verbose=False); search(tags, nodes=None)
    training_plan_approve(training_plan, description='no description provided', nodes=(), timeout=5)
    send_message(msg, client=None, add_sequence=False); get_messages
    get_responses(look_for_commands, timeout=None, only_successful=True, while_responses=True)
    add_monitor_callback(callback); remove_monitor_callback()

fedbiomed.researcher.responses
  Responses(data)
    data(); dataframe(); append(response); set_data(data); get_index_from_node_id(node_id)

fedbiomed.researcher.datasets
  FederatedDataSet(data)
    data(); node_ids(); sample_sizes(); shapes()

fedbiomed.researcher.job
  Job(reqs=None, training_plan_class=None, training_plan_path=None, training_args=None, model_args=None, data=None, keep_files_dir=None)
    id; nodes; requests; repo; aggregator_args; training_args; training_plan; training_plan_name; training_plan_file; training_replies
    last_msg; check_training_plan_is_approved_by_nodes()
    start_nodes_training_round(round_, aggregator_args_thr_msg, aggregator_args_thr_files, secagg_arguments=None, do_training=True, \
optim_aux_var=None)
    update_parameters(params=None, filename=None); upload_aggregator_args(args_thr_msg, args_thr_files)
    upload_agg_optimizer_aux_var(aux_var); extract_received_optimizer_aux_var_from_round(round_id)
    save_state_breakpoint(breakpoint_path); load_state_breakpoint(saved_state); waiting_for_nodes(responses)
    validate_minimal_arguments(obj, fields)
  localJob(dataset_path=None, training_plan_class='MyTrainingPlan', training_plan_path=None, training_args=None, model_args=None)
    start_training(); model; training_plan; training_args; dataset_path

fedbiomed.researcher.secagg
  SecureAggregation(active=True, timeout=10, clipping_range=None)
    active; parties; job_id; biprime; servkey; timeout; clipping_range; activate; setup(parties, job_id, force=False)
    train_arguments(); aggregate(round_, total_sample_size, model_params, encryption_factors); save_state_breakpoint
    load_state_breakpoint
  SecaggContext
    parties; secagg_id; job_id; status; context
  SecaggServkeyContext
  SecaggBiprimeContext

fedbiomed.researcher.environ
  environ
fedbiomed.node.environ
  environ
fedbiomed.common.environ
  Environ

fedbiomed.researcher.monitor
  Monitor
    _metric_store
  MetricStore

fedbiomed.common.training_plans
  BaseTrainingPlan
  TorchTrainingPlan
  SKLearnTrainingPlan
  FedPerceptron
  FedSGDClassifier
  FedSGDRegressor
fedbiomed.common.training_plans.base_plan
  BaseTrainingPlan
    init_dependencies; training_data; add_preprocess(method, process_type); add_dependency; model_args()
    training_args(); optimizer_args(); loader_args(); model(); optimizer(); get_model_params; set_model_params; after_training_params
    export_model(filename); import_model(filename); post_init(model_args, training_args, aggregator_args=None); save_code
    configure_dependencies; set_dataset_path; set_data_loaders; type(); training_routine; testing_routine; dataset_path; pre_processes
    training_data_loader; testing_data_loader
fedbiomed.common.training_plans.torch_plan
  TorchTrainingPlan
    init_model; training_step; initial_parameters

fedbiomed.common.data
  DataManager
  TorchDataManager
  SkLearnDataManager
  NPDataLoader
  TabularDataset
  MedicalFolderDataset(root, data_modalities='T1', transform=None, target_modalities='label', target_transform=None, \
demographics_transform=None, tabular_file=None, index_col=None)
    set_dataset_parameters; shape; subject_folders; get_nontransformed_item; set_dlp
  MedicalFolderBase
  MedicalFolderController
    modalities; subject_modality_status; load_MedicalFolder; available_subjects; read_demographics
  MedicalFolderLoadingBlockTypes
  NIFTIFolderDataset(root, transform=None, target_transform=None)
    labels; files
  FlambyDataset()
    init_transform
  FlambyDatasetMetadataBlock
  FlambyLoadingBlockTypes
  discover_flamby_datasets
  DataLoadingPlan
    serialize
  DataLoadingBlock
  DataLoadingPlanMixin
  MapperBlock
  SerializationValidation
fedbiomed.common.data.data_manager
  DataManager(dataset, target=None, **loader_kwargs)
    load; split; extend_loader_args; dataset; _dataset

fedbiomed.common.checkpointing
  CheckpointMode
    PRE_AGGREGATION; POST_AGGREGATION
  ClientCheckpointAndStateModule(pre_aggregation=None, post_aggregation=None, state_checkpointer=None)
    maybe_checkpoint(model, loss, metrics, mode); maybe_load_state(state_checkpoint_name); save_state(state_checkpoint_name, state)
  ServerCheckpointAndStateModule(model_checkpointers=None, state_checkpointer=None)
    maybe_checkpoint(model, loss, metrics)
  Checkpointer
    maybe_checkpoint(model, loss, metrics); load_checkpoint(model=None, path=None)
  FunctionCheckpointer(checkpoint_dir, checkpoint_name, score_fn, checkpoint_score_name=None, maximize=False)
  BestLossCheckpointer(checkpoint_dir, checkpoint_name)
  BestMetricCheckpointer
  LatestCheckpointer(checkpoint_dir, checkpoint_name)
  PerRoundStateCheckpointer(checkpoint_dir)
    save_checkpoint(checkpoint_name, state); load_checkpoint(checkpoint_name); checkpoint_exists(checkpoint_name)
  EarlyStopper(patience=1, interval_steps=5, snapshot_dir=None)
    should_stop(steps)
  TrainingState
    snapshot(); restore(state)

fedbiomed.common.optimizers
  Optimizer
  BaseOptimizer
  DeclearnOptimizer
  NativeTorchOptimizer
  NativeSkLearnOptimizer
  SklearnOptimizerProcessing
fedbiomed.common.optimizers.optimizer
  Optimizer(lr, decay=0.0, modules=None, regularizers=None)
    from_declearn_optimizer; init_round; step; get_aux; set_aux; get_state; load_state
fedbiomed.common.optimizers.declearn
  FedProxRegularizer
  LassoRegularizer
  RidgeRegularizer
  AdaGradModule
  AdamModule
  EWMAModule
  RMSPropModule
  MomentumModule
  ScaffoldClientModule
  ScaffoldServerModule
  YogiModule
  YogiMomentumModule
  list_optim_modules
  list_optim_regularizers

fedbiomed.common.models
  Model
fedbiomed.common.models.model
  Model
    get_weights(only_trainable=False); set_weights(weights); export(filename); reload(filename)

fedbiomed.common.metrics
  MetricTypes
    ACCURACY; F1_SCORE; PRECISION; RECALL; MEAN_SQUARE_ERROR; MEAN_ABSOLUTE_ERROR; EXPLAINED_VARIANCE; get_all_metrics()
    get_metric_type_by_name(metric_name); metric_category()
  Metrics()
    evaluate(y_true, y_pred, metric, **kwargs)

fedbiomed.common.constants
  ComponentType
    RESEARCHER; NODE
  TrainingPlans
    TorchTrainingPlan; SkLearnTrainingPlan
  ProcessTypes
    DATA_LOADER; PARAMS
  ErrorNumbers
  TrainingPlanApprovalStatus
    APPROVED; REJECTED; PENDING
  TrainingPlanStatus
    REQUESTED; REGISTERED; DEFAULT
  HashingAlgorithms
  DatasetTypes
  DataLoadingBlockTypes
  SecaggElementTypes
    SERVER_KEY; BIPRIME
  BiprimeType
  VEParameters
    CLIPPING_RANGE; TARGET_RANGE; KEY_SIZE
  UserRoleType
    ADMIN; USER
  UserRequestStatus

fedbiomed.common.logger
  logger
  FedLogger()
    setLevel(level, htype=None); addConsoleHandler; addFileHandler(filename='mylog.log'); addMqttHandler; delMqttHandler()
    _internalAddHandler(key, handler); log(level, msg)

fedbiomed.common.training_args
  TrainingArgs(ta=None, extra_scheme=None, only_required=True)
    testing_arguments(); loader_arguments(); optimizer_arguments(); pure_training_arguments(); dp_arguments(); dict()
    get(key, default=None); update(values); scheme(); default_scheme(); default_value(key)
  DPArgsValidator
    validate; populate_with_defaults

fedbiomed.common.serializer
  Serializer
    dumps(obj); dump(obj, path); loads; load(path)

fedbiomed.common.utils
  raise_for_version_compatibility(their_version, our_version, error_msg=None)

fedbiomed.common.exceptions
  FedbiomedError
"""

ERRORS = (
    "Aggregator DataLoadingPlan DataLoadingPlanValue Dataset DatasetValue DataManager DatasetManager DPController "
    "Environ Experiment FederatedDataSet LoadingBlock LoadingBlockValue Logger Message Messaging Metric Optimizer "
    "TrainingPlanSecurityManager Repository Responses Round Model Secagg SilentTermination SkLearnDataManager Strategy "
    "TaskQueue TorchDataManager Training TrainingPlan DataQualityCheck Type UserInput Value Certificate MPCController "
    "SecaggCrypter SecureAggregation Version NodeStateManager NodeStateAgent"
)


@dataclass(frozen=True, slots=True)
class ContractName:
    """One public name.

    Args:
        module: where it is imported from.
        name: `Class`, `function`, or `Class.member`.
        signature: as text without brackets, None where it is not fixed.
    """

    module: str
    name: str
    signature: str | None = None

    @property
    def label(self) -> str:
        """Module and name."""
        return f"{self.module}:{self.name}"


def contract_names() -> Iterator[ContractName]:
    """All of them, in the order of the text."""
    module = owner = ""
    for line in _TEXT.splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            module = line.strip()
        elif depth == 2:
            entry = _parsed(module, "", line.strip())
            owner = entry.name
            yield entry
        else:
            yield from (_parsed(module, f"{owner}.", part) for part in _split(line.strip()))
    for area in ERRORS.split():
        yield ContractName("fedbiomed.common.exceptions", f"Fedbiomed{area}Error")


def _split(line: str) -> list[str]:
    return [part.strip() for part in line.split(";") if part.strip()]


def _parsed(module: str, prefix: str, text: str) -> ContractName:
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", text)
    assert found is not None, text
    return ContractName(module, prefix + found[1], found[2])
