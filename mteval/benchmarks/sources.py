"""Where the data of a published benchmark is: a local path, or its home, or one sentence that says how to get it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mteval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Home:
    """A dataset on the Hugging Face Hub, and what a person has to know before it is fetched.

    Attributes:
        name: as a person knows it. repo: ``OWNER/NAME``. revision: the commit that is read.
        files: patterns of what is needed of it. size, licence: of these files, for a person.
        argument: of the benchmark, which takes a local copy instead.
    """

    name: str
    repo: str
    revision: str
    files: tuple[str, ...]
    size: str
    licence: str
    argument: str = "path"

    @property
    def how_to_get(self) -> str:
        """One sentence: what to download, how large it is, under which licence, and where to put it."""
        wanted = " ".join(f"--include '{pattern}'" for pattern in self.files)
        return (
            f"download it ({self.size}, licence {self.licence}) with `hf download {self.repo} --repo-type dataset "
            f"--revision {self.revision} {wanted} --local-dir DIR`, and say --benchmark-args {self.argument}=DIR"
        )

    def folder(self) -> Path:
        """Its local copy: in the hub's cache, downloaded first where the hub can be reached.

        Raises:
            UsageError: it is not there, and the hub is not either.
        """
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        wanted = list(self.files)
        try:
            found = Path(
                snapshot_download(
                    self.repo,
                    repo_type="dataset",
                    revision=self.revision,
                    allow_patterns=wanted,
                    local_files_only=True,
                )
            )
            if all(_is_complete(found, pattern) for pattern in wanted):
                return found
            missing = f"a part of {self.name} is not on this machine"
        except LocalEntryNotFoundError:
            missing = f"{self.name} is not on this machine"
        if constants.HF_HUB_OFFLINE:
            raise UsageError(f"{missing}: {self.how_to_get}")
        try:
            HfApi().dataset_info(self.repo, revision=self.revision, timeout=5)  # without it, a dead line takes minutes
            return Path(
                snapshot_download(self.repo, repo_type="dataset", revision=self.revision, allow_patterns=wanted)
            )
        except Exception as error:  # the errors of whatever HTTP library the hub's client uses
            raise UsageError(f"{missing} and cannot be fetched ({type(error).__name__}): {self.how_to_get}") from error


@dataclass(frozen=True, slots=True)
class Download:
    """One file that is published outside of the hub, and is the same file for ever.

    Attributes:
        name: as a person knows it. url: of the file. sha256: of its bytes. size, licence: for a person.
        argument: of the benchmark, which takes a local copy instead.
    """

    name: str
    url: str
    sha256: str
    size: str
    licence: str
    argument: str

    @property
    def how_to_get(self) -> str:
        """One sentence: what to download, how large it is, under which licence, and where to put it."""
        return (
            f"download {self.url} ({self.size}, licence {self.licence}) and say --benchmark-args {self.argument}=FILE"
        )

    def file(self) -> Path:
        """Its local copy in the cache folder, downloaded first; its checksum is right.

        Raises:
            UsageError: it is not there and cannot be fetched, or the address gives another file.
        """
        import urllib.request

        from huggingface_hub import constants

        path = cache_folder() / self.sha256[:16] / self.url.rpartition("/")[2]
        if path.is_file() and sha256_of(path) == self.sha256:
            return path
        missing = f"{self.name} is not on this machine"
        if constants.HF_HUB_OFFLINE:
            raise UsageError(f"{missing}: {self.how_to_get}")
        try:
            with urllib.request.urlopen(self.url, timeout=30) as answer:
                data: bytes = answer.read()
        except OSError as error:
            raise UsageError(f"{missing} and cannot be fetched ({type(error).__name__}): {self.how_to_get}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise UsageError(f"{self.url} is no longer the published file (its sha256 is not {self.sha256})")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_bytes(data)
        unfinished.replace(path)
        return path


def _is_complete(folder: Path, pattern: str) -> bool:
    """Whether all shards are there; their names end in ``-of-00004`` where there are four."""
    found = [path.name for path in folder.glob(pattern)]
    shards = re.search(r"-of-(\d+)", found[0]) if found else None
    return len(found) >= (int(shards[1]) if shards else 1)


def cache_folder() -> Path:
    """What was downloaded is kept under ``$XDG_CACHE_HOME/mteval``, or ``~/.cache/mteval``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mteval"


def sha256_of(path: Path) -> str:
    """Of the bytes of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | Path, what: str) -> Path:
    """A path that a person gave, once it is there.

    Args:
        what: what should be there, for the message.

    Raises:
        UsageError: nothing is there.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise UsageError(f"there is no {what} at {path}")
    return found
