"""Loading plans: what they hold, how they are written and read, what is refused."""

import json
import re

import pytest

from fedbiomed.common.constants import DataLoadingBlockTypes, DatasetTypes
from fedbiomed.common.data import (
    DataLoadingBlock,
    DataLoadingPlan,
    DataLoadingPlanMixin,
    FlambyDatasetMetadataBlock,
    FlambyLoadingBlockTypes,
    MapperBlock,
    MedicalFolderLoadingBlockTypes,
    SerializationValidation,
)
from fedbiomed.common.data.loading_plan import plan_from_json
from fedbiomed.common.exceptions import (
    FedbiomedDataLoadingPlanError,
    FedbiomedDataLoadingPlanValueError,
    FedbiomedError,
    FedbiomedLoadingBlockError,
    FedbiomedLoadingBlockValueError,
)

FOLDERS = MedicalFolderLoadingBlockTypes.MODALITIES_TO_FOLDERS
FLAMBY = FlambyLoadingBlockTypes.FLAMBY_DATASET_METADATA
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def mapper(**folders):
    block = MapperBlock()
    block.map = folders or {"T1": ["t1_mprage", "t1_flash"], "label": ["seg"]}
    return block


def plan(**blocks):
    made = DataLoadingPlan({FOLDERS: mapper()})
    made.desc = "our scanners"
    return made


def test_a_mapper_looks_up():
    assert mapper().apply("T1") == ["t1_mprage", "t1_flash"]
    with pytest.raises(FedbiomedLoadingBlockError, match="does not map 'T2'; it maps T1, label"):
        mapper().apply("T2")
    with pytest.raises(FedbiomedLoadingBlockError, match="has no map"):
        MapperBlock().apply("T1")


def test_a_block_is_written_and_read():
    block = mapper()
    written = block.serialize()
    assert re.fullmatch(f"serialized_dlb_{UUID}", written["dlb_id"])
    assert (written["loading_block_class"], written["loading_block_module"]) == ("MapperBlock", "fedbiomed.common.data.loading_blocks")
    again = MapperBlock().deserialize(json.loads(json.dumps(written)))
    assert again.map == block.map
    assert again.serialize() == written


def test_a_plan_is_written_and_read():
    made = plan()
    made[FLAMBY] = FlambyDatasetMetadataBlock()
    made[FLAMBY].metadata = {"flamby_dataset_name": "fed_ixi", "flamby_center_id": 2}
    made.target_dataset_type = DatasetTypes.MEDICAL_FOLDER
    written, blocks = made.serialize()
    assert set(written) == {"dlp_id", "dlp_name", "target_dataset_type", "loading_blocks", "key_paths"}
    assert re.fullmatch(f"dlp_{UUID}", written["dlp_id"])
    assert (written["dlp_name"], written["target_dataset_type"]) == ("our scanners", "medical-folder")
    assert written["loading_blocks"] == {
        "modalities_to_folders": blocks[0]["dlb_id"],
        "flamby_dataset_metadata": blocks[1]["dlb_id"],
    }
    again = DataLoadingPlan().deserialize(*json.loads(json.dumps([written, blocks])))
    assert again.serialize() == made.serialize()
    assert again[FOLDERS].apply("label") == ["seg"]
    assert again[FLAMBY].apply() == {"flamby_dataset_name": "fed_ixi", "flamby_center_id": 2}
    assert (again.dlp_id, again.desc, again.target_dataset_type) == (made.dlp_id, "our scanners", DatasetTypes.MEDICAL_FOLDER)
    assert "our scanners" in str(again)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda p, b: p.pop("dlp_id"), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(dlp_id="x"), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(dlp_name=3), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(target_dataset_type="dicom"), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(target_dataset_type=["csv"]), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(loading_blocks=[]), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(loading_blocks={"other": b[0]["dlb_id"]}), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(key_paths={}), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: p.update(key_paths={"modalities_to_folders": "os"}), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: b.clear(), FedbiomedDataLoadingPlanValueError),
        (lambda p, b: b[0].pop("map"), FedbiomedLoadingBlockValueError),
        (lambda p, b: b[0].update(map=["T1"]), FedbiomedLoadingBlockValueError),
        (lambda p, b: b[0].update(dlb_id="serialized_dlb_1"), FedbiomedLoadingBlockValueError),
        (lambda p, b: b[0].update(loading_block_class="Popen"), FedbiomedLoadingBlockValueError),
        (lambda p, b: b[0].update(loading_block_class=["MapperBlock"]), FedbiomedLoadingBlockValueError),
        (lambda p, b: b[0].update(loading_block_module="subprocess"), FedbiomedLoadingBlockValueError),
        (lambda p, b: b.append(3), FedbiomedLoadingBlockValueError),
    ],
)
def test_a_malformed_plan_is_refused_and_changes_nothing(change, error):
    written, blocks = plan().serialize()
    change(written, blocks)
    kept = plan()
    before = kept.serialize()
    with pytest.raises(error, match=r"FB61[45]"):
        kept.deserialize(written, blocks)
    assert kept.serialize() == before


def test_nothing_is_imported_by_a_name_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')\nclass Block: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    written, blocks = plan().serialize()
    blocks[0] |= {"loading_block_module": "evil", "loading_block_class": "Block"}
    written["key_paths"]["modalities_to_folders"] = ["evil", "Block"]
    with pytest.raises(FedbiomedLoadingBlockValueError, match="no class of loading blocks 'Block'; there are MapperBlock"):
        DataLoadingPlan().deserialize(written, blocks)
    assert not (tmp_path / "was here").exists()


def test_a_plan_takes_blocks_by_their_keys_only():
    made = plan()
    for key, value in ((FOLDERS, {"T1": ["a"]}), ("modalities_to_folders", mapper()), (FOLDERS, None)):
        with pytest.raises(FedbiomedDataLoadingPlanValueError, match="maps DataLoadingBlockTypes to DataLoadingBlock"):
            made[key] = value
        with pytest.raises(FedbiomedDataLoadingPlanValueError):
            made.update({FLAMBY: FlambyDatasetMetadataBlock(), key: value})
    assert list(made) == [FOLDERS]
    with pytest.raises(FedbiomedDataLoadingPlanValueError):
        DataLoadingPlan({"a": 1})


class OwnKeys(DataLoadingBlockTypes):
    """Keys that another dataset type might have."""

    FACTOR = "factor"


class Factor(DataLoadingBlock):
    """A block that another dataset type might have."""

    def apply(self, number):
        return 3 * number


def test_a_dataset_applies_what_its_plan_holds():
    dataset = DataLoadingPlanMixin()
    assert dataset.apply_dlb(5, OwnKeys.FACTOR, 2) == 5
    dataset.set_dlp(DataLoadingPlan({OwnKeys.FACTOR: Factor()}))
    assert dataset.apply_dlb(5, OwnKeys.FACTOR, 2) == 6
    assert dataset.apply_dlb(5, FOLDERS, 2) == 5
    dataset.clear_dlp()
    assert dataset.apply_dlb(5, OwnKeys.FACTOR, 2) == 5
    with pytest.raises(FedbiomedDataLoadingPlanValueError, match=r"set_dlp\(\) takes a DataLoadingPlan, not a dict"):
        dataset.set_dlp({})
    with pytest.raises(FedbiomedDataLoadingPlanValueError, match="a key of a plan"):
        dataset.apply_dlb(5, "factor", 2)


@pytest.mark.parametrize(
    ("name", "center"), [(None, 0), ("fed_ixi", None), ("os", 0), ("fed_ixi.x", 0), ("fed_ixi", -1), ("fed_ixi", True)]
)
def test_a_flamby_block_needs_name_and_center(name, center):
    block = FlambyDatasetMetadataBlock()
    block.metadata = {"flamby_dataset_name": name, "flamby_center_id": center}
    with pytest.raises(FedbiomedLoadingBlockError, match="flamby_dataset_name"):
        block.apply()
    with pytest.raises(FedbiomedLoadingBlockValueError, match="flamby_"):
        FlambyDatasetMetadataBlock().deserialize(block.serialize())


def test_a_validation_raises_the_error_that_is_asked_for():
    validation = SerializationValidation()
    validation.update_validation_scheme({"n": ("a number", lambda value: isinstance(value, int))})
    validation.validate({"n": 1, "other": 2})
    for wrong, reason in (({}, "'n' is missing"), ({"n": "x"}, "'n' must be a number, not 'x'"), ([1], "expected an object")):
        with pytest.raises(FedbiomedLoadingBlockValueError, match=reason):
            validation.validate(wrong)
        with pytest.raises(FedbiomedDataLoadingPlanValueError, match=reason):
            validation.validate(wrong, FedbiomedDataLoadingPlanValueError)
    assert list(validation.validation_scheme) == ["n"]


def test_an_operator_s_short_form():
    made = plan_from_json({"name": "our scanners", "modalities_to_folders": {"T1": ["a", "b"]}})
    assert (made.desc, made[FOLDERS].apply("T1")) == ("our scanners", ["a", "b"])
    made = plan_from_json({"name": "ixi 0", "flamby_dataset_metadata": {"flamby_dataset_name": "fed_ixi", "flamby_center_id": 0}})
    assert made[FLAMBY].apply()["flamby_dataset_name"] == "fed_ixi"
    assert plan_from_json(json.loads(json.dumps(plan().serialize())))[FOLDERS].map == mapper().map


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "a plan is the list"),
        ([], "a plan is the list"),
        ("x", "a plan is the list"),
        ({"name": 3, "modalities_to_folders": {"T1": ["a"]}}, "a plan is the list"),
        ({"name": "plan", "colours": {}}, "a plan is the list"),
        ({"name": "plan"}, "has no block"),
        ([{}, []], "'dlp_id' is missing"),
        ({"name": "plan", "modalities_to_folders": {}}, "at least one modality"),
        ({"name": "plan", "modalities_to_folders": ["T1"]}, "'map' must be an object"),
        ({"name": "plan", "modalities_to_folders": {"T1": "a"}}, "modality 'T1' must be mapped to a list of folder names, not to 'a'"),
        ({"name": "plan", "modalities_to_folders": {"T1": []}}, "list of folder names"),
        ({"name": "plan", "modalities_to_folders": {"T1": ["../../other"]}}, "list of folder names"),
        ({"name": "plan", "modalities_to_folders": {"T1": [".."]}}, "list of folder names"),
        ({"name": "plan", "flamby_dataset_metadata": {"flamby_dataset_name": "os", "flamby_center_id": 0}}, "flamby_dataset_name"),
        ({"name": "plan", "flamby_dataset_metadata": 3}, "must be an object"),
    ],
)
def test_a_wrong_plan_in_a_file_is_refused(content, reason):
    with pytest.raises(FedbiomedError, match=reason) as caught:
        plan_from_json(content)
    assert isinstance(caught.value, FedbiomedDataLoadingPlanError | FedbiomedLoadingBlockError)
    assert "\n" not in str(caught.value)


def test_a_block_says_what_it_does():
    with pytest.raises(TypeError, match="abstract"):
        DataLoadingBlock()
    assert isinstance(MapperBlock(), DataLoadingBlock)
