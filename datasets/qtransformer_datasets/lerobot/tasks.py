"""What the robot was asked to do: LeRobot's table of tasks, in all its spellings."""

import pyarrow as pa

from qtransformer.errors import DatasetError
from qtransformer_datasets.lerobot.layout import Layout, read_json_lines
from qtransformer_datasets.lerobot.parquet_guard import integers, open_parquet, parquet_errors, values

TASK = "task_index"


def read_tasks(layout: Layout) -> dict[int, str]:
    """Task index to text. The column of texts has had several names: `task`, `__index_level_0__`."""
    where = str(layout.root / "meta")
    if (layout.root / "meta/tasks.parquet").exists():
        path = layout.inside("meta/tasks.parquet")
        with open_parquet(path) as file, parquet_errors(str(path)):
            table = file.read()
            texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
            if not texts:
                raise DatasetError(f"{path}: expected a column of texts, found {table.column_names}; restore it from its source")
            indices = integers(table, TASK, where)
            return {int(index): str(text) for index, text in zip(indices, values(table, texts[0], where), strict=True)}
    if (layout.root / "meta/tasks.jsonl").exists():
        path = layout.inside("meta/tasks.jsonl")
        try:
            return {int(row[TASK]): str(row["task"]) for row in read_json_lines(path)}
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path}: expected task_index and task per line ({error!r}); restore it from its source") from error
    return {}
