"""Faults that earlier systems of this kind are known for, each with the test of ours that would show it."""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FAULTS = {
    "trains after a failed start": "node/test_node.py::test_an_order_that_cannot_be_carried_out_is_answered_with_the_reason",
    "waits for replies without end": "researcher/test_exchange.py::test_a_node_that_works_but_never_ends_is_given_up_at_the_deadline",
    "never answers a search that finds nothing": "node/test_handlers.py::test_a_search_that_finds_nothing_is_answered",
    "throws away replies to other questions": "researcher/test_requests.py::test_answers_to_other_questions_do_not_count",
    "takes another line's answers": "researcher/test_requests.py::test_two_lines_do_not_take_each_others_answers",
    "exits the process on a lost connection": "transport/test_bus_contract.py::test_a_cut_line_comes_back_with_its_subscriptions",
    "runs orders of a researcher long gone": "node/test_node.py::test_an_order_that_cannot_be_carried_out_is_answered_with_the_reason",
    "fetches any URL that a message names": "ground/test_messages.py::test_a_file_reference_is_checked",
    "approves by default": "node/test_cli_node.py::test_create_has_safe_defaults_and_a_default_folder",
    "no test with a dead node": "end_to_end/test_bad_input.py::test_nodes_that_stay_away_end_the_round_with_their_names",
    "a check value under the mask of the weights": "secagg/test_lom.py::test_a_known_value_tells_nothing_of_the_others",
    "a mask serves twice": "secagg/test_lom.py::test_an_attempt_is_used_once_and_in_order",
    "zeros at the end of a hidden block are lost": "secagg/test_joye_libert.py::test_the_sum_of_all_is_exact_and_of_fewer_does_not_open",
    "resume loses the strategy": "researcher/test_experiment_resume.py::test_strategy_and_aggregator_of_users_go_on",
    "resume loses the optimizer's state": "researcher/test_agg_optimizer.py::test_two_rounds_and_two_more_are_four",
    "resume loses Scaffold's controls": "researcher/test_scaffold_rounds.py::test_two_rounds_and_two_more_are_four",
    "'weights sum to 0' instead of '0 of 3 nodes answered'": "researcher/test_experiment_rounds.py::test_all_nodes_failing_names_all",
}


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of the tests in a file."""
    return frozenset(node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_known_fault_has_a_test(fault: str) -> None:
    path, _, name = FAULTS[fault].partition("::")
    assert name in functions(TESTS / path)
