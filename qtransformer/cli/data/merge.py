"""`qtransformer data merge`."""

from pathlib import Path

from qtransformer.cli.compose import UsageError
from qtransformer.cli.data.reading import count, data_source
from qtransformer.cli.data.writing import check_free, output_format, provenance, write
from qtransformer.cli.data_settings import MergeSettings
from qtransformer_datasets.views import MergedEpisodes


def run(settings: MergeSettings) -> int:
    check_free(settings.out)
    if len(settings.path) < 2:
        raise UsageError("data merge needs at least two paths: qtransformer data merge a.hdf5 b.hdf5 out=c.hdf5")
    sources = [data_source(path, settings.input_format, settings) for path in settings.path]
    merged = MergedEpisodes([source.open() for source in sources])
    write(settings, merged, Path(settings.out), output_format(settings, sources[0]), provenance("merge", sources))
    print(f"{settings.out}: {count(len(merged), 'episode')} of {count(len(sources), 'dataset')}")
    return 0
