"""Models under the plans: weights in and out, files."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier, SGDRegressor
from torch import nn

from fedbiomed.common.exceptions import FedbiomedModelError
from fedbiomed.common.models.model import Model
from fedbiomed.common.models.sklearn_model import SGDClassifierModel, SGDRegressorModel
from fedbiomed.common.models.torch_model import TorchModel


def torch_model(seed=0):
    torch.manual_seed(seed)
    return TorchModel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))


def regressor(seed=0):
    return with_weights(SGDRegressorModel(SGDRegressor(), 3), seed)


def classifier(seed=0):
    return with_weights(SGDClassifierModel(SGDClassifier(), 3, 4), seed)


def with_weights(model, seed):
    generator = np.random.default_rng(seed)
    model.set_weights({name: generator.normal(size=value.shape) for name, value in model.get_weights().items()})
    return model


FAMILY = pytest.mark.parametrize("make", [torch_model, regressor, classifier])


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(np.asarray(one[name]), np.asarray(other[name])) for name in one)


# --- what every model does


@FAMILY
def test_it_is_a_model_and_gives_the_native_one(make):
    model = make()
    assert isinstance(model, Model)
    assert isinstance(model.model, nn.Module | SGDRegressor | SGDClassifier)


@FAMILY
def test_weights_go_from_one_model_to_another(make):
    source, target = make(1), make(2)
    assert not same(source.get_weights(), target.get_weights())
    target.set_weights(source.get_weights())
    assert same(source.get_weights(), target.get_weights())


@FAMILY
def test_weights_given_out_are_copies(make):
    model = make()
    before = model.get_weights()
    for value in model.get_weights().values():
        value[...] = 0
    assert same(model.get_weights(), before)


@FAMILY
def test_weights_taken_over_are_copies(make):
    model, given = make(1), make(2).get_weights()
    model.set_weights(given)
    before = model.get_weights()
    for value in given.values():
        value[...] = 0
    assert same(model.get_weights(), before)


@FAMILY
def test_weights_of_another_shape_leave_all_as_it_was(make):
    model = make()
    before = model.get_weights()
    wrong = {name: np.ones((*value.shape, 2)) if index else np.asarray(value) + 1 for index, (name, value) in enumerate(before.items())}
    with pytest.raises(FedbiomedModelError, match="has the shape"):
        model.set_weights(wrong)
    assert same(model.get_weights(), before)


@FAMILY
@pytest.mark.parametrize("wrong", [None, [1.0], "weights", np.ones(3)])
def test_what_is_no_mapping_is_refused(make, wrong):
    with pytest.raises(FedbiomedModelError):
        make().set_weights(wrong)


@FAMILY
@pytest.mark.parametrize("value", ["text", object(), None, [[1.0], [2.0, 3.0]]])
def test_values_that_are_no_numbers_are_refused(make, value):
    model = make()
    with pytest.raises(FedbiomedModelError):
        model.set_weights(dict.fromkeys(model.get_weights(), value))


@FAMILY
def test_exported_file_is_reloaded(make, tmp_path):
    source, target = make(1), make(2)
    source.export(tmp_path / "model")
    target.reload(str(tmp_path / "model"))
    assert same(source.get_weights(), target.get_weights())
    target.set_weights(make(3).get_weights())
    assert same(target.get_weights(), make(3).get_weights())


@FAMILY
def test_export_into_a_missing_folder_is_an_os_error(make, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        make().export(tmp_path / "missing" / "model")


@FAMILY
def test_reload_of_a_missing_file_is_an_os_error(make, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        make().reload(tmp_path / "model")


@FAMILY
@pytest.mark.parametrize("other", [torch_model, regressor, classifier])
def test_reload_of_another_model_s_file_leaves_all_as_it_was(make, other, tmp_path):
    if make is other:
        return
    model = make()
    before = model.get_weights()
    other().export(tmp_path / "model")
    with pytest.raises(FedbiomedModelError):
        model.reload(tmp_path / "model")
    assert same(model.get_weights(), before)


@FAMILY
def test_reload_of_a_cut_file_leaves_all_as_it_was(make, tmp_path):
    model = make()
    before = model.get_weights()
    make(2).export(tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    (tmp_path / "model").write_bytes(content[: len(content) // 2])
    with pytest.raises(FedbiomedModelError):
        model.reload(tmp_path / "model")
    assert same(model.get_weights(), before)


# --- torch


def test_torch_weights_are_parameters_and_buffers_or_less():
    model = torch_model()
    model.model[2].requires_grad_(False)
    parameters = {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert set(model.get_weights()) == parameters | {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert set(model.get_weights(with_buffers=False)) == parameters
    assert set(model.get_weights(True)) == parameters - {"2.weight", "2.bias"}


def test_shared_parameters_keep_both_names():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    module[1].weight = module[0].weight
    assert set(TorchModel(module).get_weights(with_buffers=False)) == {"0.weight", "1.weight"}
    # else the researcher's optimizer would step one of them, and the other, loaded after it, would undo that
    assert set(TorchModel(module).get_weights(only_trainable=True)) == {"0.weight", "1.weight"}


def test_weights_without_axes_travel():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

    model = TorchModel(Scaled())
    assert model.get_weights()["scale"].shape == ()
    model.set_weights({"scale": np.array(3.0)})
    assert model.model.scale.item() == 3.0
    model.set_weights({"scale": np.float32(4.0)})
    assert model.model.scale.item() == 4.0


def test_weights_keep_their_type_in_the_model():
    model = torch_model()
    model.set_weights({name: np.asarray(value, dtype=np.float64) for name, value in model.get_weights().items()})
    state = model.model.state_dict()
    assert (state["0.weight"].dtype, state["1.num_batches_tracked"].dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_a_mean_of_integers_is_rounded_and_one_of_booleans_is_true_from_a_half_on(make):
    model = TorchModel(nn.Linear(1, 1))
    model.model.register_buffer("seen", torch.tensor([0, 0, 0]))
    model.model.register_buffer("mask", torch.tensor([False, False, True, True]))
    with_means = {"seen": make([2.9996, 37.5, 3.2]), "mask": make([0.25, 0.5, 0.49, 1.0])}
    model.set_weights({**model.get_weights(), **with_means})
    assert model.model.seen.tolist() == [3, 38, 3]
    assert model.model.mask.tolist() == [False, True, False, True]


def test_torch_weights_may_come_in_any_order_of_bytes():
    model = torch_model()
    model.set_weights({**model.get_weights(), "2.bias": np.array([2.5], dtype=">f4")})
    assert model.model[2].bias.item() == 2.5


def test_torch_prediction_has_no_gradient_and_is_an_array():
    predicted = torch_model().predict(torch.ones(5, 2))
    assert isinstance(predicted, np.ndarray)
    assert predicted.shape == (5, 1)


def test_evaluating_restores_each_layer():
    model = torch_model()
    model.model[1].eval()
    with model.evaluating():
        assert not any(layer.training for layer in model.model.modules())
    assert [layer.training for layer in model.model] == [True, False, True]


def test_torch_file_runs_nothing(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "model")  # a pickled module
    with pytest.raises(FedbiomedModelError):
        torch_model().reload(tmp_path / "model")


def test_a_torch_file_of_which_a_part_fits_leaves_all_as_it_was(tmp_path):
    other, model = TorchModel(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))), TorchModel(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    before = model.get_weights()
    other.export(tmp_path / "model")
    with pytest.raises(FedbiomedModelError, match=r"size mismatch for 1\.weight"):
        model.reload(tmp_path / "model")
    assert same(model.get_weights(), before)


# --- scikit-learn


def test_sklearn_weights_are_float64_and_all_trainable():
    for model in (regressor(), classifier()):
        assert {value.dtype for value in model.get_weights().values()} == {np.dtype(np.float64)}
        assert same(model.get_weights(only_trainable=True), model.get_weights())


@pytest.mark.parametrize("extra", [{"more": np.ones(1)}, {}])
def test_sklearn_weights_must_be_the_two(extra):
    model = regressor()
    weights = {**model.get_weights(), **extra}
    if not extra:
        del weights["intercept_"]
    with pytest.raises(FedbiomedModelError, match="the parameters of this model are intercept_, coef_"):
        model.set_weights(weights)


def test_a_reloaded_sklearn_model_is_trained_by_the_hyper_parameters_it_shows(tmp_path):
    other = SGDRegressorModel(SGDRegressor(learning_rate="constant", eta0=0.5), 1)
    other.train(np.ones((1, 1)), np.ones(1))  # from 0, eta0 times the error of 1
    other.export(tmp_path / "model")
    model = SGDRegressorModel(SGDRegressor(learning_rate="constant", eta0=0.25, penalty=None), 1)
    model.reload(tmp_path / "model")
    assert (model.get_weights()["coef_"].tolist(), model.steps) == ([0.5], 2.0)
    model.set_weights({"coef_": [0.0], "intercept_": [0.0]})
    model.train(np.ones((1, 1)), np.ones(1))
    assert model.get_weights()["coef_"].tolist() == [model.model.eta0] == [0.25]
