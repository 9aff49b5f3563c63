"""A training that was killed, stopped or finished goes on, or says why it does not."""

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

from qtransformer import Trainer
from qtransformer.errors import CheckpointError, ConfigError, SpecMismatchError
from qtransformer.files import write_manifest
from qtransformer.metrics import read_jsonl
from qtransformer.run_guard import is_held
from tests.core.trainings import Killed, everything, killed_at


@pytest.mark.parametrize("settings", [{"algo": "q"}, {"algo": "mc"}, {"algo": "bc"}, {"algo": "q", "cloning_steps": 6}], ids=str)
@pytest.mark.parametrize("killed", [5, 7])
def test_a_killed_training_resumed_equals_the_uninterrupted_one_bit_for_bit(settings, killed, fit, make_config, dataset) -> None:
    config = make_config(**settings, model={"history": 2})
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, killed))
    cut = fit(config, "cut", resume=True)
    assert everything(cut) == everything(whole)
    assert [line["step"] for line in read_jsonl(cut / "metrics.jsonl")] == [2, 4, 6, 8]


def test_two_kills_in_a_row_and_one_before_the_first_checkpoint_change_nothing(fit, make_config, dataset) -> None:
    config = make_config(steps=10, save_every=3)
    whole = fit(config, "whole")
    for killed in (1, 4, 8):
        with pytest.raises(Killed):
            fit(config, "cut", data=killed_at(dataset, killed), resume=killed > 1)
    assert everything(fit(config, "cut", resume=True), 10) == everything(whole, 10)


def test_resnet_and_channels_last_weights_resume_bit_for_bit_too(fit, make_config, dataset) -> None:
    """The optimiser's moments must come back in the memory layout of their weights."""
    config = make_config(model={"encoder": "resnet18", "encoder_width": 8})
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, 6))
    assert everything(fit(config, "cut", resume=True)) == everything(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_ends_in_order_and_resumes_bit_for_bit(number, fit, make_config) -> None:
    config = make_config(log_every=1)

    def interrupt(step: int, values: object) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    whole, cut = fit(config, "whole"), fit(config, "cut", sinks=[interrupt])
    assert [p.name for p in (cut / "checkpoints").glob("step_*")] == ["step_0000003"]
    assert not (cut / "run.lock").exists()
    assert everything(fit(config, "cut", resume=True)) == everything(whole)


def test_one_that_is_stopped_again_before_a_step_leaves_its_checkpoint_alone(fit, make_config, dataset, monkeypatch) -> None:
    """To save the same step again deletes the checkpoint before it is replaced: a kill between would cost the run."""
    config = make_config()
    with pytest.raises(Killed):
        fit(config, data=killed_at(dataset, 6))
    monkeypatch.setattr(Trainer, "_loop", stopped_at_once(Trainer._loop))
    monkeypatch.setattr(Trainer, "_save", lambda *_, **__: pytest.fail("saved what was saved already"))
    fit(config, resume=True)


def stopped_at_once(loop):
    def stopped(trainer, step, stop, log, bar):
        stop.requested = True
        return loop(trainer, step, stop, log, bar)

    return stopped


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(fit, make_config) -> None:
    config = make_config()
    run = fit(config)
    expected, weights = everything(run), run / "checkpoints" / "step_0000008" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="falling back"):
        fit(config, resume=True)
    assert everything(run) == expected


def test_pointers_are_not_needed_to_resume(fit, make_config, dataset) -> None:
    config = make_config()
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, 6))
    pointer = whole.parent / "cut" / "checkpoints" / "latest.json"
    pointer.unlink()
    assert everything(fit(config, "cut", resume=True)) == everything(whole)
    assert pointer.exists()


def test_a_pointer_that_a_kill_left_behind_is_mended(fit, make_config) -> None:
    pointer = fit(make_config()) / "checkpoints" / "latest.json"
    pointer.write_text('{"step": "step_0000004"}')
    fit(make_config(), resume=True)
    assert json.loads(pointer.read_text()) == {"step": "step_0000008"}


def test_a_finished_training_resumed_does_nothing(fit, make_config) -> None:
    run = fit(make_config())
    before = everything(run)
    fit(make_config(), resume=True)
    assert everything(run) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_cannot_be_resumed_is_not_started_again(resume: bool, fit, make_config) -> None:
    """Its policies still act; that their training_state is deleted to save space is allowed."""
    run = fit(make_config())
    before = everything(run)
    for state in run.glob("checkpoints/*/training_state"):
        state.rename(run / f"deleted_{state.parent.name}")
    with (
        pytest.warns(UserWarning, match="falling back"),
        pytest.raises(CheckpointError, match=r"found 2 whose training_state.*init=.*step_0000008 and another run="),
    ):
        fit(make_config(), resume=resume)
    (run / "deleted_step_0000008").rename(run / "checkpoints/step_0000008/training_state")
    assert everything(run) == before
    assert not (run / "run.lock").exists()


def test_a_directory_that_holds_a_run_is_not_written_over(fit, make_config) -> None:
    run = fit(make_config())
    before = everything(run)
    with pytest.raises(ConfigError, match="resume"):
        fit(make_config())
    assert everything(run) == before


def test_resuming_on_other_data_is_refused(fit, make_config, make_dataset, make_episode) -> None:
    fit(make_config())
    with pytest.raises(SpecMismatchError, match="another dataset"):
        fit(make_config(steps=12), data=make_dataset([make_episode(4, seed=77)]), resume=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, r"seed was 0, is 1;"),
        ({"algo": "mc", "seed": 3}, r"algo was q, is mc; seed was 0, is 3;"),
        ({"model": {"num_heads": 4}}, r"model\.num_heads was 2, is 4;"),  # the weights would fit, and mean something else
        ({"value": {"kind": "c51"}}, r"value\.kind was hl_gauss, is c51;"),
        ({"value": {"v_max": 2.0}}, r"value\.v_max was 1\.0, is 2\.0;"),
        ({"cloning_steps": 2}, r"cloning_steps was 0, is 2;"),
        ({"bc_filter_success": False}, r"bc_filter_success was True, is False;"),
        ({"data": {"balance": "success"}}, r"data\.balance was none, is success;"),
        ({"optim": {"mirror": ["dx"]}}, r"optim\.mirror was \[\], is \['dx'\];"),
        ({"optim": {"weight_decay": 0.0}}, r"optim\.weight_decay was 0\.0001, is 0\.0;"),
        ({"targets": {"backup": "bellman"}}, r"targets\.backup was n_step, is bellman;"),
        (
            {"targets": {"bootstrap": "first", "floor": "sample"}},
            r"bootstrap was chain, is first; targets\.floor was learned, is sample;",
        ),
        ({"targets": {"bootstrap_proposals": 2}}, r"targets\.bootstrap_proposals was None, is 2;"),
    ],
    ids=str,
)
def test_resuming_with_settings_that_a_run_keeps_to_its_end_is_refused(changes, told: str, fit, make_config) -> None:
    run = fit(make_config())
    before = everything(run)
    with pytest.raises(ConfigError, match=rf"step_0000008 cannot be resumed .*{told} resume with what it was, .*init="):
        fit(make_config(steps=12, **changes), resume=True)
    assert everything(run) == before
    assert not (run / "checkpoints" / "step_0000012").exists()


def test_resuming_under_another_discount_is_refused(fit, make_config, make_dataset) -> None:
    fit(make_config())
    with pytest.raises(ConfigError, match=r"targets\.discount was 0\.98, is 0\.9; resume with what it was"):
        fit(make_config(steps=12, targets={"discount": 0.9}), data=make_dataset(discount=0.9), resume=True)


def test_a_number_of_proposals_is_not_left_open_on_resuming(fit, make_config) -> None:
    """Null means as many as act; it is not an end of the range of values, which the data tell again."""
    fit(make_config(targets={"proposals": 4, "bootstrap_proposals": 2}))
    with pytest.raises(ConfigError, match=r"targets\.bootstrap_proposals was 2, is None;"):
        fit(make_config(steps=12, targets={"proposals": 4}), resume=True)


def test_resuming_at_another_control_rate_says_so(fit, make_config, make_dataset, observation_spec) -> None:
    fit(make_config())
    faster = make_dataset(observation_spec=replace(observation_spec, control_hz=10.0))
    with pytest.raises(SpecMismatchError, match=r"step_0000008 does not fit: control_hz: expected 5\.0, found 10\.0"):
        fit(make_config(steps=12), data=faster, resume=True)


def test_what_does_not_touch_what_was_learned_may_change_on_resuming(fit, make_config) -> None:
    fit(make_config())
    changes = {"steps": 12, "save_every": 2, "log_every": 1, "keep_checkpoints": 2, "threads": 1, "data": {"memory_gb": 1.0}}
    run = fit(make_config(**changes, optim={"learning_rate": 1e-4, "warmup_steps": 1, "clip_norm": 0.5}), resume=True)
    assert [line["step"] for line in read_jsonl(run / "metrics.jsonl")] == [2, 4, 6, 8, 9, 10, 11, 12]


def test_a_checkpoint_from_before_a_setting_is_resumed(fit, make_config) -> None:
    path = fit(make_config()) / "checkpoints" / "step_0000008" / "config.json"
    config = json.loads(path.read_text())
    del config["model"]["remember"]
    path.write_text(json.dumps(config))
    write_manifest(path.parent)
    assert (fit(make_config(steps=9), resume=True) / "checkpoints" / "step_0000009").exists()


def test_a_second_process_in_the_same_directory_is_refused(fit, make_config, tmp_path) -> None:
    lock = tmp_path / "run" / "run.lock"
    lock.parent.mkdir()
    hold = f"import fcntl; file = open({str(lock)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        lock.write_text(json.dumps({"pid": other.pid, "host": os.uname().nodename}))
        with pytest.raises(ConfigError, match=f"process {other.pid}"):
            fit(make_config())
        other.kill()
    fit(make_config())  # the other is gone: its lock is taken over
    lock.write_text(json.dumps({"pid": 1, "host": "another-machine"}))
    with pytest.raises(ConfigError, match="another-machine"):
        fit(make_config(), resume=True)


def test_a_run_is_described_under_its_lock_and_once(dataset, make_config, tmp_path) -> None:
    run, held = tmp_path / "run", []

    def describe() -> None:
        held.append((is_held(run / "run.lock"), (run / "checkpoints").exists()))

    trainer = Trainer(make_config(steps=1), dataset, run, progress=False)
    trainer.fit(describe=describe)
    trainer.fit(resume=True, describe=describe)
    with pytest.raises(ConfigError, match="holds a run already"):
        trainer.fit(describe=describe)
    assert held == [(True, False)]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{}"),
        ("config.json", '{"algo": "q", "seed": 0, "model": {}, "value": {}}'),
        ("config.json", "[]"),
        ("spec.json", '{"action": 3}'),
        ("metadata.json", "{}"),
        ("metadata.json", "[]"),
        ("stats.json", "{}"),
        ("training_state/position.json", '{"step": 8}'),
        ("training_state/position.json", '{"step": "eight", "best_success": -1.0}'),
    ],
)
def test_a_checkpoint_that_lacks_what_resuming_needs_says_so(file: str, content: str, fit, make_config) -> None:
    """With a manifest that fits, as of a checkpoint that another program wrote."""
    path = fit(make_config()) / "checkpoints" / "step_0000008" / file
    path.write_text(content)
    write_manifest(path.parent)
    with pytest.raises(CheckpointError, match=r"step_0000008.*: expected config\.json.*, stats\.json and .*copy the checkpoint"):
        fit(make_config(), resume=True)


@pytest.mark.parametrize(("after", "told"), [(5, "left out"), (2, "drawn again"), (3, "")])
def test_resuming_with_other_batches_says_that_the_order_of_samples_changes(after: int, told: str, fit, make_config) -> None:
    fit(make_config(steps=1, optim={"batch_segments": 3}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(make_config(steps=1, optim={"batch_segments": after}), resume=True)
    found = [str(w.message) for w in caught if "order of samples" in str(w.message)]
    assert len(found) == bool(told)
    assert not told or (told in found[0] and f"optim.batch_segments=3 and goes on with {after}" in found[0])


def test_a_resumed_training_keeps_its_normalisation(fit, make_config, dataset, tmp_path) -> None:
    config = make_config()
    with pytest.raises(Killed):
        fit(config, data=killed_at(dataset, 6))
    trainer = Trainer(config, dataset, tmp_path / "run", progress=False)
    trainer.stats["proprio_mean"] = [99.0, 99.0]
    with pytest.warns(UserWarning, match="'x' is 99"):
        trainer.fit(resume=True)
    first, last = (json.loads((tmp_path / f"run/checkpoints/step_000000{step}/stats.json").read_text()) for step in (4, 8))
    assert first == last
