"""What a judge said, kept on disk, so that the same question to the same model is paid for once.

The key is everything that a reply depends on: the judge and its revision, text, pixels, the settings of the question
and the number of the vote. Only replies that could be read are kept: an error, or a reply in another format, is asked
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from pathlib import Path

from mteval.judges.base import Answer, JudgeInfo, Question

VARIABLE = "MTEVAL_JUDGE_CACHE"
"""The environment variable that names the cache's file; empty = no cache."""


def default_path() -> Path | None:
    """Of :data:`VARIABLE`, else under the user's cache folder."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "mteval", "judges.sqlite")


def key_of(info: JudgeInfo, question: Question) -> str:
    """64 hex digits."""
    digest = hashlib.sha256()
    settings = (question.tokens, question.temperature, question.choices, question.vote, question.replied)
    digest.update(json.dumps([info.id, info.revision, settings]).encode())
    for part in question.parts:
        if isinstance(part, str):
            digest.update(f"\ntext {len(part)}\n{part}".encode())
        else:
            digest.update(f"\nimage {part.size} {part.mode}\n".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()


class Cache:
    """Replies by key; several threads and processes may use one file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._one = threading.Lock()
        self._file = sqlite3.connect(path, timeout=60, check_same_thread=False)
        with self._one, self._file:
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID")

    def get(self, key: str) -> Answer | None:
        with self._one:
            found = self._file.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return Answer(**json.loads(found[0])) if found else None

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer without an error."""
        kept = {
            "text": answer.text,
            "log_probabilities": answer.log_probabilities,
            "tokens_in": answer.tokens_in,
            "tokens_out": answer.tokens_out,
        }
        with self._one, self._file:
            self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(kept)))
