import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.config import (
    Algo,
    Backup,
    Conservative,
    Floor,
    ModelConfig,
    OptimConfig,
    TargetConfig,
    TrainConfig,
    ValueConfig,
    ValueKind,
    from_dict,
    to_dict,
)
from qtransformer.errors import ConfigError

finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    TrainConfig,
    algo=st.sampled_from(Algo),
    steps=st.integers(min_value=1),
    init=st.text(),
    bc_filter_success=st.booleans(),
    value=st.builds(ValueConfig, kind=st.sampled_from(ValueKind), v_min=finite, num_bins=st.integers(min_value=1)),
    model=st.builds(ModelConfig, history=st.integers(min_value=1)),
    targets=st.builds(
        TargetConfig, backup=st.sampled_from(Backup), floor=st.sampled_from(Floor), conservative=st.sampled_from(Conservative)
    ),
    optim=st.builds(OptimConfig, learning_rate=st.floats(min_value=0, allow_infinity=False)),
)


@given(configs)
def test_a_configuration_survives_json(config: TrainConfig) -> None:
    before = copy.deepcopy(config)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config == before


def test_reading_leaves_the_data_as_they_were() -> None:
    data = {"algo": "mc", "value": {"kind": "mse"}, "optim": {"learning_rate": 1}}
    before = copy.deepcopy(data)
    config = from_dict(TrainConfig, data)
    assert data == before
    assert config.optim.learning_rate == 1.0
    assert isinstance(config.optim.learning_rate, float)


def test_defaults_are_not_shared_between_configurations() -> None:
    first = TrainConfig()
    first.model.history = 99
    assert TrainConfig().model.history != 99


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stepps": 3}, "unknown.*stepps.*TrainConfig has.*steps"),
        ({"value": {"kinds": "mse"}}, r"config\.value: unknown.*kinds"),
        ({"_target_": "os.system"}, "unknown.*_target_"),
        ({"algo": "qq"}, r"config\.algo: expected one of q, mc, bc, found 'qq'"),
        ({"steps": "many"}, r"config\.steps: expected int, found 'many'"),
        ({"steps": 1.5}, r"config\.steps: expected int"),
        ({"steps": True}, r"config\.steps: expected int"),
        ({"bc_filter_success": 1}, r"config\.bc_filter_success: expected bool"),
        ({"model": 3}, r"config\.model: expected a mapping for ModelConfig, found int"),
        ({"optim": {"learning_rate": "1e-3"}}, r"config\.optim\.learning_rate: expected float"),
        ({"algo": ["q"]}, r"config\.algo"),
        ([], "expected a mapping"),
    ],
)
def test_what_does_not_belong_is_refused_with_its_place(data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, data)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"save_every": 0}, "save_every=0 must be at least 1"),
        ({"log_every": 0}, "log_every=0 must be at least 1"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"keep_checkpoints": -1}, "keep_checkpoints=-1 must be at least 0"),
        ({"model": {"history": 0}}, "model.history=0 must be at least 1"),
        ({"model": {"embed_dim": 30}}, "model.embed_dim=30 must be a multiple of model.num_heads=4"),
        ({"model": {"encoder": "resnet18", "encoder_width": 12}}, "model.encoder_width=12 must be a multiple of 8"),
        ({"targets": {"time_steps": 0}}, "targets.time_steps=0 must be at least 1"),
        ({"targets": {"discount": 1.5}}, "targets.discount=1.5 must lie between 0 and 1"),
        ({"targets": {"surprise": -0.1, "proposals": 4}}, "targets.surprise=-0.1 must be at least 0"),
        ({"targets": {"surprise": 0.3}}, "chooses among proposals, found targets.proposals=0"),
        ({"targets": {"proposals": -1}}, "targets.proposals=-1 must be at least 0"),
        ({"targets": {"bootstrap_proposals": 0}}, "targets.bootstrap_proposals=0 must be at least 1"),
        ({"targets": {"proposals": 4, "behavior_mask": 0.0}}, "targets.proposals=4 needs the behaviour classifier"),
        ({"targets": {"target_rate": 0.0}}, "targets.target_rate=0 would bootstrap from the untrained network"),
        ({"targets": {"bootstrap": "logged", "backup": "bellman"}}, "expected targets.backup=n_step with it, found bellman"),
        ({"targets": {"behavior_weight": -1.0}}, "targets.behavior_weight=-1.0 must be at least 0"),
        ({"targets": {"behavior_weight": 0.0}}, "targets.behavior_mask=0.3 asks a classifier that targets.behavior_weight=0 never"),
        ({"targets": {"conservative_weight": -1.0}}, "targets.conservative_weight=-1.0 must be at least 0"),
        ({"targets": {"surprise": float("nan"), "proposals": 4}}, "targets.surprise=nan must be a finite number"),
        ({"value": {"sigma_ratio": float("nan")}}, "value.sigma_ratio=nan must be a finite number"),
        ({"value": {"num_bins": 0}}, "value.num_bins=0 must be at least 1"),
        ({"seed": 2**64}, "must be below 2**63"),
        ({"steps": 5, "cloning_steps": 5}, "cloning_steps=5 of steps=5 leave none to learn values in"),
        ({"optim": {"clip_norm": 0.0}}, "optim.clip_norm=0.0 must be above 0"),
        ({"optim": {"learning_rate": float("inf")}}, "optim.learning_rate=inf must be a finite number"),
        ({"data": {"memory_gb": -1.0}}, "data.memory_gb=-1.0 must be at least 0"),
        ({"optim": {"max_shift": -1}}, "optim.max_shift=-1 must be at least 0"),
        ({"optim": {"batch_segments": 0}}, "optim.batch_segments=0 must be at least 1"),
        ({"optim": {"mirror": "dx"}}, "config.optim.mirror: expected a list, found 'dx'"),
        ({"optim": {"mirror": ["dx", 3]}}, "config.optim.mirror: expected str, found 3"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        from_dict(TrainConfig, settings)
