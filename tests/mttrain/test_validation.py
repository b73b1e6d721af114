"""What a validation is told as: one name a figure, whoever scored it."""

from __future__ import annotations

import pandas as pd

from mttrain.validation import by_turn


def test_two_scorers_of_one_metric_keep_their_own_names() -> None:
    rows = [
        ("turn_success", "shapes-if", 1, "free-running", "all", 0.5),
        ("turn_success", "shapes-if", 1, "teacher-forced", "all", 0.6),
        ("turn_success", "vlm-if", 1, "free-running", "all", 0.7),
        ("turn_success", "shapes-if", 1, "free-running", "color_alter", 0.1),
        ("trajectory_score", "vlm-trajectory-if", None, "free-running", "all", 0.9),
        ("overall", "shapes-if+shapes-cc", 1, "free-running", "all", 0.8),
    ]
    table = pd.DataFrame(rows, columns=["metric", "scorer", "turn", "protocol", "task_type", "value"])
    table["turn"] = table["turn"].astype("Int64")
    assert by_turn(table) == {
        "turn_success@1": 0.5,
        "turn_success@1/teacher-forced": 0.6,
        "turn_success:vlm-if@1": 0.7,
        "overall@1": 0.8,
    }
