"""`qtransformer resume`: everything is rebuilt from the run's own config.yaml."""

from pathlib import Path

from qtransformer.checkpoint import latest_resumable
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.settings import ResumeSettings
from qtransformer.cli.training import build_trainer, fit


def run(settings: ResumeSettings) -> int:
    directory = Path(settings.run)
    config = RunConfig.load(directory)
    checkpoint = latest_resumable(directory)
    if settings.dry_run:
        print(f"would go on to step {config.train.steps} from {checkpoint or 'the start: there is no checkpoint yet'}")
        return 0
    return fit(build_trainer(config, [source.open() for source in config.datasets], directory), resume=True)
