"""LME-Bench: sessions of ten turns, judged by survival (SR@k) and collapse (CR@k), no reference images.

How its sessions are published could not be verified: no public copy of its files, their columns or their licence was
found. So nothing of its layout is assumed here, and nothing is downloaded: write the sessions as the benchmark
``files`` reads them (its docstring has the format), with the ids that name the folders of finished images
(``SESSION/turn1.png``, the layout ``lme`` of `mteval import`).
"""

from __future__ import annotations

from mteval.benchmarks.files import read
from mteval.benchmarks.recorded import Recorded
from mteval.benchmarks.sources import existing
from mteval.errors import UsageError

TURNS = 10


class LMEBench(Recorded):
    """LME-Bench, from sessions that you wrote in the format of the benchmark ``files``.

    Args:
        path: a folder with ``sessions.jsonl`` and the images, or such a file.

    Raises:
        UsageError: no path, or the file is not of the format.
    """

    def __init__(self, path: str | None = None) -> None:
        if path is None:
            raise UsageError(
                "LME-Bench has to be brought along, because the layout, size and licence of its publication are not "
                "known here: write its sessions in the format of `mteval bench init FOLDER`, and say --benchmark-args "
                "path=FOLDER"
            )
        found = list(read(existing(path, "folder or .jsonl file of sessions")))
        longest = max((len(entry.session.turns) for entry in found), default=TURNS)
        super().__init__("lme-bench", found, ("lme-survival", "lme-collapse"), turns=min(TURNS, longest))
