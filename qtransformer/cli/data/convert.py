"""`qtransformer data convert`: any format to any writable one, and what that costs."""

from pathlib import Path

from qtransformer.cli.data.reading import count, data_source, episode_bar
from qtransformer.cli.data.writing import check_free, output_format, provenance, write
from qtransformer.cli.data_settings import ConvertSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.curation.compare import Comparison, compare
from qtransformer_datasets.formats import open_episodes, writer_losses


def run(settings: ConvertSettings) -> int:
    check_free(settings.out)
    source = data_source(settings.path, settings.input_format, settings)
    episodes = source.open()
    format, specs = output_format(settings, source), (episodes.action_spec, episodes.observation_spec)
    losses = writer_losses(settings.out, *specs, format, **settings.out_options)
    print(f"{count(len(episodes), 'episode')} of {source} to {settings.out} ({format})")
    for part, sentence in losses.items():
        print(f"lost: {part}: {sentence}", flush=True)
    if settings.dry_run:
        return 0
    write(settings, episodes, Path(settings.out), format, provenance("convert", [source]))
    if settings.check:
        refuse_differences(compare(episodes, open_episodes(settings.out, format), episode_bar("read back")), losses, settings.out)
    return 0


def refuse_differences(found: Comparison, losses: dict[str, str], out: str) -> None:
    """Tell how the copy compares.

    Raises:
        DatasetError: something differs that the format did not announce.
    """
    unexpected = {part: place for part, place in found.differences.items() if part not in losses}
    if unexpected:
        told = "; ".join(f"{part}: {place}" for part, place in unexpected.items())
        raise DatasetError(f"{out}: read back, it differs from what was written ({told}); do not use it, and report this")
    for camera, quality in found.psnr.items():
        print(f"camera {camera}: PSNR {quality.mean:.1f} dB, worst episode {quality.worst:.1f} dB")
    for part, place in found.differences.items():
        if part != "images":
            print(f"differs as announced: {part}: {place}")
    print(f"{out}: read back {count(found.episodes, 'episode')}; {'all else' if found.differences else 'everything'} is the same")
