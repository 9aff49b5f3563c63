"""Where each fault of a running policy has its test: rows 39 to 48 of the fault matrix, and the failure table of the policy node.

`ros_bridge/` tests are of the pure runtime, with a clock turned by hand; `ros_nodes/` tests are of real processes.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ON_THE_ARM = "ros_nodes/test_faults.py::test_a_fault_stops_the_arm_and_only_a_person_starts_it_again"
"""With the names of the faults in brackets."""
TRAJECTORIES = "ros_nodes/test_faults.py::test_by_joint_trajectories_it_is_the_same"
MATRIX = {
    "39 no image, a frozen camera, a repeated stamp": (
        "ros_bridge/control/test_runtime_streams.py::test_a_stream_that_ends_is_held_within_its_timeout_and_a_period",
        "ros_bridge/control/test_runtime_streams.py::test_a_camera_that_repeats_its_stamp_is_stale",
        "ros_bridge/control/test_runtime_streams.py::test_a_camera_that_repeats_its_pixels_is_frozen",
        "ros_bridge/control/test_runtime_streams.py::test_a_recovered_stream_leaves_it_to_a_person",
        "ros_bridge/control/test_motion_watch.py::test_joints_repeated_under_new_stamps_hold_the_arm",
        "ros_bridge/control/test_buffer.py::test_by_receipt_a_header_that_repeats_itself_is_the_same_sample_and_one_of_another_clock_is_not",
        f"{ON_THE_ARM}[the camera's process stops]",
        f"{ON_THE_ARM}[the camera's publisher is killed]",
        f"{ON_THE_ARM}[the camera repeats an image and its stamp]",
        f"{ON_THE_ARM}[the camera repeats an image under new stamps]",
        f"{ON_THE_ARM}[the joints repeat themselves under new stamps]",
        TRAJECTORIES,
    ),
    "40 stamps out of order, in the future, zero, of another clock": (
        "ros_bridge/control/test_runtime_streams.py::test_late_samples_are_dropped_and_counted",
        "ros_bridge/control/test_runtime_streams.py::test_stamps_of_another_clock_are_no_observation",
        "ros_bridge/control/test_runtime_streams.py::test_stamps_of_the_future_are_rejected",
        "ros_bridge/control/test_runtime_streams.py::test_ages_go_by_the_clock_that_never_jumps",
        "ros_bridge/control/test_buffer.py::test_an_unset_stamp_means_receipt_unless_stamps_are_required",
        f"{ON_THE_ARM}[images come late]",
    ),
    "41 wrong encodings, padding, short data, byte order, sizes that change": (
        "ros_bridge/control/test_runtime_streams.py::test_a_broken_image_is_rejected_and_the_third_holds",
        "ros_bridge/control/test_runtime_streams.py::test_padding_and_the_byte_order_flag_of_images_are_honoured",
        "ros_bridge/control/test_runtime_streams.py::test_a_compressed_image_that_is_damaged_inside_is_no_observation",
        "ros_bridge/control/test_runtime_properties.py::test_no_message_crashes_or_becomes_an_observation_of_zeros",
    ),
    "42 joints that are NaN, missing, in another order, out of limits": (
        "ros_bridge/control/test_runtime_streams.py::test_joints_that_are_not_numbers_or_not_there_are_rejected_never_zero",
        "ros_bridge/control/test_runtime_streams.py::test_joints_are_known_by_name_whatever_their_order_and_company",
        "ros_bridge/control/test_runtime_shared_joints.py::test_each_is_stale_by_itself",
        "ros_bridge/control/test_runtime_shared_joints.py::test_a_second_publisher_of_a_joint_holds_and_is_never_believed",
        "ros_bridge/arm/test_safety.py::test_joint_clamps_by_hand",
        f"{ON_THE_ARM}[a joint is no number]",
        "ros_nodes/test_faults.py::test_joints_are_known_by_name_in_whatever_order_they_come",
        TRAJECTORIES,
    ),
    "43 actions that are NaN, out of range, or jump": (
        "ros_bridge/control/test_runtime.py::test_an_action_that_is_none_holds_and_the_third_in_a_row_is_a_fault",
        "ros_bridge/control/test_runtime.py::test_a_command_that_is_not_finite_never_leaves",
        "ros_bridge/control/test_inference.py::test_a_finite_action_by_values_that_are_not_is_none",
        "ros_bridge/arm/test_safety.py::test_every_joint_motion_is_finite_and_within_all_limits",
        f"{ON_THE_ARM}[the network computes infinities]",
        "ros_nodes/test_faults.py::test_a_network_of_nan_is_refused_before_it_moves_anything",
    ),
    "44 inference slower than the period": (
        "ros_bridge/control/test_runtime_inference.py::test_inference_that_is_always_late_is_held",
        "ros_bridge/control/test_runtime_inference.py::test_nothing_queues_however_slow_the_network",
        "ros_bridge/control/test_runtime_inference.py::test_an_answer_older_than_its_timeout_is_not_acted_on",
        "ros_bridge/control/test_inference.py::test_of_the_observations_that_came_meanwhile_only_the_newest_is_decided_on",
        "ros_nodes/test_faults.py::test_a_network_that_is_too_slow_is_held_and_nothing_queues",
    ),
    "45 time that jumps or pauses": (
        "ros_bridge/control/test_runtime_streams.py::test_time_that_goes_back_resets_and_holds_without_a_burst",
        "ros_bridge/control/test_runtime_streams.py::test_samples_from_before_a_jump_do_not_count_as_fresh",
        "ros_bridge/control/test_runtime_streams.py::test_a_clock_that_is_slewed_has_not_jumped",
        f"{ON_THE_ARM}[ROS time goes back]",
        f"{ON_THE_ARM}[the whole arm stops and comes back]",
    ),
    "46 the e-stop's topic, service, or publisher lost": (
        "ros_bridge/control/test_runtime_people.py::test_an_estop_latches_at_once_and_only_a_person_starts_again",
        "ros_bridge/control/test_runtime_people.py::test_an_estop_that_falls_silent_counts_as_pressed",
        "ros_bridge/control/test_runtime.py::test_motion_after_an_interruption_ramps_from_standing",
        "ros_nodes/test_policy_node.py::test_an_estop_that_was_pressed_before_there_was_a_policy_is_heard_and_outlives_its_cleanup",
        f"{ON_THE_ARM}[the e-stop is pressed]",
        f"{ON_THE_ARM}[the e-stop is called]",
        f"{ON_THE_ARM}[the e-stop's publisher stops]",
        TRAJECTORIES,
    ),
    "47 the policy or a host is lost": (
        "ros_nodes/test_faults.py::test_after_a_kill_velocities_run_out",
        "ros_nodes/test_faults.py::test_after_a_kill_a_trajectory_ends",
        "ros_nodes/test_faults.py::test_a_signal_ends_in_a_hold_and_the_arm_stands",
        "ros_nodes/test_faults.py::test_a_signal_ends_in_the_measured_pose",
        "ros_nodes/test_faults.py::test_an_arm_that_was_killed_is_commanded_no_more_until_it_is_back",
        f"{ON_THE_ARM}[the joints' publisher is killed]",
    ),
    "48 unauthorised publishers, swapped checkpoints, parameters changed live": (
        "ros_bridge/control/test_runtime_people.py::test_it_gives_way_to_another_that_commands_the_arm",
        "ros_bridge/control/test_runtime.py::test_limits_are_only_tightened_while_running",
        f"{ON_THE_ARM}[another commands the arm]",
        "ros_nodes/test_faults.py::test_while_it_runs_nothing_is_loosened_and_it_goes_on",
        "ros_nodes/test_faults.py::test_a_checkpoint_that_was_swapped_meanwhile_does_not_move_the_arm",
        "ros_nodes/test_policy_node.py::test_a_checkpoint_that_is_missing_or_swapped_is_refused",
        "ros_nodes/test_policy_node.py::test_without_observations_or_a_controller_it_does_not_start",
        "ros_nodes/test_security.py::test_where_security_is_enforced_a_node_refuses_to_start_rather_than_run_without",
    ),
}
FAILURE_TABLE = {
    "stale or frozen camera": MATRIX["39 no image, a frozen camera, a repeated stamp"],
    "stale joints": (
        "ros_bridge/control/test_runtime_streams.py::test_a_stream_that_ends_is_held_within_its_timeout_and_a_period",
        f"{ON_THE_ARM}[the joints' process stops]",
        f"{ON_THE_ARM}[the joints' publisher is killed]",
    ),
    "missing, extra or reordered joints": MATRIX["42 joints that are NaN, missing, in another order, out of limits"],
    "NaN or infinity in an observation or action": MATRIX["43 actions that are NaN, out of range, or jump"],
    "inference overrun": MATRIX["44 inference slower than the period"],
    "a limit is hit": (
        "ros_bridge/control/test_runtime.py::test_an_observation_becomes_a_command_within_its_limits",
        "ros_bridge/control/test_runtime.py::test_a_limit_may_hold_instead_of_clamp",
        "ros_bridge/arm/test_safety.py::test_out_of_bounds_hold_refuses_only_what_leaves_the_bounds",
    ),
    "e-stop": MATRIX["46 the e-stop's topic, service, or publisher lost"],
    "a command subscriber vanishes": (
        "ros_bridge/control/test_runtime_people.py::test_commands_that_nobody_hears_are_not_sent",
        f"{ON_THE_ARM}[a listener to commands goes]",
    ),
    "ROS time jumps back": MATRIX["45 time that jumps or pauses"],
    "a checkpoint that is missing or corrupt": (
        "ros_bridge/policy/test_deployment.py::test_a_damaged_checkpoint_and_another_robots_contract_are_refused",
        "ros_nodes/test_policy_node.py::test_a_checkpoint_that_is_missing_or_swapped_is_refused",
        "ros_nodes/test_faults.py::test_a_network_of_nan_is_refused_before_it_moves_anything",
    ),
    "a recovered stream": (
        "ros_bridge/control/test_runtime_streams.py::test_a_recovered_stream_leaves_it_to_a_person",
        "ros_bridge/control/test_runtime_streams.py::test_a_recovered_stream_resumes_by_itself_only_where_it_may",
        ON_THE_ARM,
    ),
}


ROWS = MATRIX | {f"the node's table: {row}": tests for row, tests in FAILURE_TABLE.items()}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    for test in ROWS[row]:
        parts = re.fullmatch(r"(.+)::(\w+)(?:\[(.+)\])?", test)
        assert parts is not None, test
        file, name, case = parts.groups()
        text = (TESTS / file).read_text()
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), test
        assert case is None or f'"{case}": Fault(' in text, test


def test_no_row_is_missing() -> None:
    assert [int(row.split()[0]) for row in MATRIX] == [*range(39, 49)]
