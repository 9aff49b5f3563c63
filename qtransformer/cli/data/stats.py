"""`qtransformer data stats`."""

from dataclasses import asdict

from qtransformer.cli.data.reading import data_source, episode_bar, save_json
from qtransformer.cli.data_settings import StatsSettings
from qtransformer_datasets.curation.inspect import dataset_head, stats_text
from qtransformer_datasets.curation.survey import summarise, survey


def run(settings: StatsSettings) -> int:
    source = data_source(settings.path, settings.format, settings)
    summary = summarise(survey(source.open(), episode_bar("read")))
    print(stats_text(summary, dataset_head(source)))
    save_json(settings.json, asdict(summary))
    return 0
