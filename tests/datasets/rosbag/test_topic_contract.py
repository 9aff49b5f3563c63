"""A contract is read strictly: what is wrong is said with its place, and nothing in the file does anything."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qtransformer.errors import ConfigError
from qtransformer_datasets.rosbag import topic_contract as module
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, StampSource
from qtransformer_datasets.rosbag.strict_yaml import parse
from qtransformer_datasets.rosbag.topic_contract import TopicContract

EXAMPLE = Path(__file__).parents[3] / "datasets" / "contracts" / "ur5e_two_cameras.yaml"
POSE = "proprio:\n  - {topic: /pose, type: PoseStamped}\n"


def test_the_example_contract_gives_the_specs_it_shows() -> None:
    contract = TopicContract.load(EXAMPLE)
    action, observation = contract.action_spec(), contract.observation_spec()
    assert observation.cameras == {"wrist": (84, 84, 3), "scene": (48, 64, 3)}
    assert observation.proprio_names[0] == "shoulder_pan_joint.position"
    assert observation.proprio_units == ("rad",) * 7
    assert observation.control_hz == 10.0
    assert action.names == (*observation.proprio_names[:6], "gripper")
    assert (action.low[0], action.high[0], action.units[0], action.discrete) == (-3.15, 3.15, "rad", (0,) * 6 + (2,))
    assert [contract.tolerance_of(source) for source in contract.observed] == [0.1, 0.1, 0.05, 0.1]
    assert contract.event_topics() == ("/task", "/episode/event")


def test_a_contract_survives_json(contract_file: Callable[..., Path]) -> None:
    contract = TopicContract.load(contract_file())
    data = json.loads(json.dumps(contract.to_dict()))
    assert parse(TopicContract, data, "json") == contract


def test_defaults(contract_file: Callable[..., Path]) -> None:
    contract = TopicContract.load(contract_file(("clock: header\n", "")))
    assert contract.clock is StampSource.header
    assert contract.cameras["wrist"].size is None
    assert contract.cameras["wrist"].type == "Image"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("control_hz: 10", "control_hzz: 10", "has no setting 'control_hzz'; did you mean control_hz?"),
        ("{topic: /wrist/image_raw}", "{topik: /wrist/image_raw}", r"cameras.wrist: has no setting 'topik'; did you mean topic\?"),
        ("joints: [finger]", "joint: [finger]", r"proprio\[1\]: has no setting 'joint'; did you mean joints\?"),
        ("clock: header", "clock: headr", "clock: expected one of header, receive, found 'headr'"),
        ("control_hz: 10", "control_hz: fast", "control_hz: expected a number, found 'fast'"),
        ("control_hz: 10", "control_hz: true", "control_hz: expected a number, found True"),
        ("control_hz: 10", "control_hz: .inf", "control_hz expected a rate"),
        ("control_hz: 10", "control_hz: 1" + "0" * 400, "control_hz: expected a number, found 10"),
        ("control_hz: 10", "control_hz: 0", "control_hz expected a rate"),
        ("control_hz: 10\n", "", "expected control_hz, found none"),
        ("tolerance_s: 0.05", "tolerance_s: -1", "tolerance_s expected from above 0"),
        ("tolerance_s: 0.05", "tolerance_s: .nan", "tolerance_s expected from above 0"),
        ("type: CompressedImage", "type: CompresedImage", "'CompresedImage' is unknown; did you mean CompressedImage"),
        ("/wrist/image_raw}", "/wrist/image_raw, size: [84]}", "size: expected 2 values, found list of 1"),
        ("/wrist/image_raw}", "/wrist/image_raw, size: [84, 0]}", "size expected"),
        ("/wrist/image_raw}", "/wrist/image_raw, encoding: bgr9}", "did you mean bgr8"),
        ("joints: [finger], units: m", "joints: [finger], units: [m, m]", "units expected one value, or 1"),
        ("joints: [finger], units: m", "units: m", "JointState expected `joints`"),
        ("low: -1\n    high: 1", "low: -1", "low and high belong together"),
        ("low: -1\n    high: 1", "low: 1\n    high: -1", "limits expected finite low < high"),
        ("low: -1\n    high: 1", "low: [-1, -1]\n    high: 1", "low expected one value, or 7"),
        ("discrete: 2", "discrete: 1", "discrete expected 0, or a number of values from 2"),
        ("values: [gripper], ", "", "carries no names: expected `values`"),
        ("joints: [finger]", "joints: [joint1]", "names of proprio expected to differ, found 'joint1.position' twice"),
        ("{text: pick up the red cube}", "{text: a, topic: /b}", "expected exactly one of text, topic, custom_data"),
        ("{text: pick up the red cube}", "{}", "expected exactly one of text, topic, custom_data"),
        ("outcome: {topic: /outcome}", "outcome: {topic: /outcome, success: [ok], failure: [ok]}", "found 'ok' twice"),
        ("outcome: {topic: /outcome}", "outcome: /outcome", "outcome: expected settings"),
        ("outcome: {topic: /outcome}", "reward: {topic: /reward, words: [a]}", "reward: has no setting 'words'"),
        ("- {topic: /gripper, type", "- {topik: /gripper, type", r"action\[1\]: expected exactly one of topic, next_state"),
        ("- {topic: /gripper, type", "- {next_state: absolute, of: [elbow], x", "next_state"),
        ("  wrist: {", "  3: {", "expected text as a key, found 3"),
        ("control_hz: 10", "control_hz: 10\ncontrol_hz: 20", "'control_hz' stands here twice"),
        ("control_hz: 10", "control_hz: [10", "expected plain YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(contract_file: Callable[..., Path], old: str, new: str, message: str) -> None:
    path = contract_file((old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        TopicContract.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("{next_state: difference, of: [zz]}", "'zz' is not among proprio"),
        ("{next_state: difference, of: [qw]}", "difference of quaternions is not a rotation"),
        ("{next_state: difference, of: []}", "at least one name"),
        ("{next_state: difference, of: [x, y], names: [a]}", "names expected 2 entries"),
        ("{topic: /t, type: TwistStamped, values: [vq], low: -1, high: 1}", "has no value 'vq'"),
        ("{topic: /t, type: TwistStamped, units: m}", "units of TwistStamped are fixed"),
        ("{topic: /t, type: TwistStamped, joints: [a]}", "TwistStamped has no joints"),
        ("{topic: /t, type: Bool, units: '1'}", "Bool is one number: expected `values` with its name"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, action: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"control_hz: 10\ntolerance_s: 0.1\n{POSE}action: [{action}]\n")
    with pytest.raises(ConfigError, match=message):
        TopicContract.load(path)


def test_next_states_are_named_after_what_changes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"control_hz: 10\ntolerance_s: 0.1\n{POSE}action:\n"
        "  - {next_state: difference, of: [x, y], low: -0.1, high: 0.1}\n  - {next_state: absolute, of: [qw], low: -1, high: 1}\n"
    )
    spec = TopicContract.load(path).action_spec()
    assert spec.names == ("d_x", "d_y", "qw")
    assert spec.units == ("m", "m", "1")


def test_limits_that_are_left_open_are_asked_for(contract_file: Callable[..., Path]) -> None:
    contract = TopicContract.load(contract_file(("    low: -1\n    high: 1\n", "")))
    with pytest.raises(ConfigError, match=r"joint1.position, .* have no limits; .*limits_from_data"):
        contract.action_spec()
    spec = contract.action_spec([(0.0, 2.0)] * 8)
    assert (spec.high[0], spec.high[7]) == (2.0, 1.0), "the contract's own limits win"


def test_tags_run_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "ran"
    path = tmp_path / "c.yaml"
    path.write_text(f"control_hz: !!python/object/apply:os.system ['touch {victim}']\n")
    with pytest.raises(ConfigError, match="without tags"):
        TopicContract.load(path)
    assert not victim.exists()


def test_interpolations_stay_text(contract_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/secret")
    contract = TopicContract.load(contract_file(("pick up the red cube", '"${oc.env:HOME} $HOME {x.__class__}"')))
    assert contract.instruction is not None
    assert contract.instruction.text == "${oc.env:HOME} $HOME {x.__class__}"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(
            ["a: &a [x, x, x, x, x, x, x, x, x]"]
            + [f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)]
            + ["control_hz: *l"]
        ),
        "control_hz: " + "[" * 5000,
        "control_hz: " + "x" * (1 << 20),
        "control_hz: \x00",
        "- control_hz",
        "",
        "{control_hz: 1, ? [a, b] : 2}",
    ],
    ids=["aliases", "depth", "size", "control character", "list", "empty", "odd key"],
)
def test_hostile_files_are_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        TopicContract.load(path)
    assert len(str(caught.value)) < 1000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        TopicContract.load(tmp_path / "none.yaml")


def test_relative_topics_follow_the_namespace(contract_file: Callable[..., Path]) -> None:
    contract = TopicContract.load(contract_file(("topic: /gripper", "topic: gripper"), ("topic: /outcome", "topic: outcome")))
    last = contract.resolved("/left/").action[-1]
    assert isinstance(last, ActionTopic)
    assert last.topic == "/left/gripper"
    assert contract.resolved().event_topics() == ("/outcome",)
    assert contract.resolved("left").cameras["wrist"].topic == "/wrist/image_raw"


PURE = [
    *(
        f"rosbag.{name}"
        for name in (
            "topic_contract",
            "contract_entries",
            "ros_messages",
            "shared_joints",
            "message_types",
            "strict_yaml",
            "tick_sync",
        )
    ),
    "episodes.image_header",
]


@pytest.mark.parametrize("name", PURE)
def test_the_node_s_part_needs_neither_ros_nor_a_bag_library(name: str) -> None:
    path = Path(module.__file__).parent.parent.joinpath(*name.split(".")).with_suffix(".py")
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    foreign = {m.split(".")[0] for m in imported} & {"rosbags", "rclpy", "sensor_msgs", "h5py"}
    ours = {m for m in imported if m.startswith("qtransformer_datasets")}
    assert not foreign
    assert ours <= {f"qtransformer_datasets.{pure}" for pure in PURE}


def test_contracts_that_come_with_the_project_are_found_by_name() -> None:
    assert TopicContract.load(TopicContract.shipped("simulated_kuka")).control_hz == 4
    with pytest.raises(ConfigError, match="did you mean simulated_kuka"):
        TopicContract.shipped("simulated_kuk")
