"""MSE-Bench, of VINCIE (arXiv 2506.10941): 100 sessions of five turns, no reference images.

leigangqu/MSE-Bench on the Hub, Apache-2.0, 51 MB, a row a session with the columns image, context (the instructions),
operation (their types), description_target (what each turn should show), index, summary, description_source: the
dataset's card says so. The sources are of MS-COCO and LAION-Aesthetics.
"""

from __future__ import annotations

from mteval.benchmarks.recorded import Recorded
from mteval.benchmarks.sources import Home, existing
from mteval.benchmarks.tables import Columns, entries, load

FILES = "data/train-*"
HOME = Home("MSE-Bench", "leigangqu/MSE-Bench", "main", (FILES,), "51 MB", "Apache-2.0")
COLUMNS = Columns(
    id="index",
    source="image",
    instruction="context",
    task_type="operation",
    slots={"description": "description_target"},
)


class MSEBench(Recorded):
    """MSE-Bench. The slot ``description`` of a turn says in words what the image should show after it.

    Args:
        path: a folder with the parquet files of the Hub; None = the Hub.

    Raises:
        UsageError: the data are not there (what to download, how large it is, the licence, where to put it).
    """

    def __init__(self, path: str | None = None) -> None:
        folder = HOME.folder() if path is None else existing(path, "folder of MSE-Bench")
        # The Hub calls its one split "train"; it is a test set.
        found = entries(load(folder, "train", files=FILES), COLUMNS)
        super().__init__("mse-bench", found, ("vlm-if", "vlm-cc"))
