"""Cameras and proprioception by name, and images in all the ways in which they are stored."""

import cv2
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes
from tests.datasets.lerobot.raw_datasets import CAMERA, DATA_FILE


def test_cameras_and_proprio_are_chosen_by_name(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    source = LeRobotEpisodes(path, success="all", cameras=[], proprio=["action", "observation.state"])
    episode = source.read(0)
    assert episode.images == {}
    assert np.array_equal(episode.proprio[:-1], np.concatenate([three[0].action, three[0].state], axis=1))
    assert source.observation_spec.proprio_names[2] == "observation.state.shoulder.pos"
    with pytest.raises(ConfigError, match=r"cameras: 'wirst' does not exist; did you mean wrist"):
        LeRobotEpisodes(path, cameras=["wirst"])
    with pytest.raises(DatasetError, match=r"expected a feature 'actions', found .*did you mean action.*action="):
        LeRobotEpisodes(path, action="actions")
    with pytest.raises(DatasetError, match=r"expected a feature 'state'.*proprio="):
        LeRobotEpisodes(path, proprio=["state"])


@pytest.mark.parametrize("key", ["info", "video_info"])
@pytest.mark.parametrize("word", ["video.is_depth_map", "is_depth_map"])
def test_depth_maps_are_skipped_with_a_warning(tmp_path, write, three, edit_info, key, word):
    path = write(tmp_path / "set", three)
    depth = {"dtype": "video", "shape": [64, 96, 1], "names": None, key: {word: True}}
    edit_info(path, lambda info: info["features"].update({"observation.images.depth": depth}))
    with pytest.warns(UserWarning, match=r"observation.images.depth' is a depth map and is skipped"):
        assert list(LeRobotEpisodes(path, success="all").observation_spec.cameras) == ["wrist"]


@pytest.mark.parametrize(("shape", "names"), [([3, 64, 96], None), ([3, 64, 96], ["channels", "height", "width"])])
def test_shapes_that_put_channels_first_mean_the_same_images(tmp_path, write, three, edit_info, assert_colours, shape, names):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=shape, names=names))
    source = LeRobotEpisodes(path, success="all")
    assert source.observation_spec.cameras == {"wrist": (64, 96, 3)}
    assert_colours(source.read(0).images["wrist"], three[0])


def test_a_camera_that_is_not_rgb_or_of_another_size_is_refused_before_training(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=[64, 96, 1]))
    with pytest.raises(DatasetError, match=r"camera 'wrist' expected RGB images"):
        LeRobotEpisodes(path)
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=[640, 960, 3]))
    with pytest.raises(DatasetError, match=r"info.json says \(640, 960, 3\), its video has \(64, 96\)"):
        LeRobotEpisodes(path)


def test_two_features_of_one_camera_are_refused(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"].update({"observation.wrist": info["features"][CAMERA]}))
    with pytest.raises(DatasetError, match=r"both camera 'wrist'; rename one"):
        LeRobotEpisodes(path)


def test_a_width_that_the_data_does_not_have_is_refused(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"]["action"].update(shape=[3]))
    with pytest.raises(DatasetError, match=r"column 'action' expected 3 values per row .* found 2"):
        LeRobotEpisodes(path)


def test_ragged_lists_and_empty_cells_are_refused(tmp_path, write_v3, three, edit_table):
    path = write_v3(tmp_path / "set", three)
    edit_table(path / DATA_FILE, lambda columns: columns["action"].__setitem__(3, [1.0]))
    with pytest.raises(DatasetError, match="column 'action' expected lists of one length"):
        LeRobotEpisodes(path)
    edit_table(path / DATA_FILE, lambda columns: columns["action"].__setitem__(3, None))
    with pytest.raises(DatasetError, match="column 'action' expected lists of one length"):
        LeRobotEpisodes(path)


def edit_cell(path, step, edit, edit_table):
    def change(columns):
        columns[CAMERA][step] = edit(columns[CAMERA][step])

    edit_table(path / DATA_FILE, change)


def test_images_may_be_jpeg_or_lie_beside_the_table(tmp_path, write_v3, three, edit_table, jpeg_bytes, colours):
    path = write_v3(tmp_path / "set", three, dtype="image")
    (path / "images").mkdir()
    (path / "images/a.jpg").write_bytes(jpeg_bytes(three[0].frames[4]))
    edit_cell(path, 0, lambda _: {"bytes": jpeg_bytes(three[0].frames[3]), "path": None}, edit_table)
    edit_cell(path, 1, lambda _: {"bytes": None, "path": "images/a.jpg"}, edit_table)
    filled = jpeg_bytes(three[0].frames[4]).replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)  # fill bytes before a marker
    edit_cell(path, 2, lambda _: {"bytes": filled, "path": None}, edit_table)
    found = colours(LeRobotEpisodes(path, success="all").read(0).images["wrist"])
    assert np.allclose(found[:3], [(20, 54, 176), (20, 62, 168), (20, 62, 168)], atol=3)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda cell: {**cell, "bytes": cell["bytes"][:-20]}, "found damage"),
        (lambda cell: {**cell, "bytes": cell["bytes"][:60] + b"\0" + cell["bytes"][61:]}, "wrong checksum"),
        (lambda cell: {**cell, "bytes": b""}, "found damage"),
        (lambda cell: {"bytes": None, "path": None}, "found none"),
        (lambda cell: {"bytes": None, "path": "../../secret.png"}, "leads out of the dataset"),
        (lambda cell: {"bytes": None, "path": "/etc/passwd"}, "leads out of the dataset"),
        (lambda cell: {"bytes": None, "path": "gone.png"}, "found nothing"),
    ],
)
def test_a_bad_image_is_named_by_episode_camera_and_step(tmp_path, write_v3, three, edit_table, edit, message):
    path = write_v3(tmp_path / "set", three, dtype="image")
    edit_cell(path, 6, edit, edit_table)
    source = LeRobotEpisodes(path, success="all")
    source.read(0)
    with pytest.raises(DatasetError, match=message) as caught:
        source.read(1)
    assert "episode 1, camera 'wrist', step 1" in str(caught.value) or "gone.png" in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 96), np.uint8), "found grey uint8"),
        (np.zeros((64, 96, 4), np.uint8), "found RGBA uint8"),
        (np.zeros((64, 96, 3), np.uint16), "found other uint16"),
        (np.zeros((8, 96, 3), np.uint8), "expected an image of 64 x 96, found 8 x 96"),
    ],
)
def test_images_that_are_not_the_declared_rgb_are_refused(tmp_path, write_v3, three, edit_table, image, message):
    path = write_v3(tmp_path / "set", three, dtype="image")
    edit_cell(path, 0, lambda _: {"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None}, edit_table)
    with pytest.raises(DatasetError, match=message):
        LeRobotEpisodes(path, success="all").read(0)
