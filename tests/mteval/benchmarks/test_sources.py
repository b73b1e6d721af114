"""Where published data come from: a download that is checked, a cache, and one sentence where there is neither."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mteval.benchmarks.pictures import File, decoded, digest
from mteval.benchmarks.sources import Download, Home
from mteval.errors import UsageError
from tests.mteval.benchmarks.made import photo

DATA = b"image_index,turns\n" * 100
HOME = Home("Some-Bench", "some/bench", "0123" * 10, ("data/dev-*",), "3 MB", "CC0", "path")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """Answers with DATA, and counts how often; the cache is empty and the hub not switched off."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.calls += 1  # type: ignore[attr-defined]
            self.send_response(200 if self.path.endswith("data.csv") else 404)
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *_: object) -> None:
            return

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    served = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    served.calls = 0  # type: ignore[attr-defined]
    Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def download(server: ThreadingHTTPServer, name: str = "data.csv") -> Download:
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return Download("the file", url, hashlib.sha256(DATA).hexdigest(), "2 kB", "CC0", "csv")


def test_a_file_is_fetched_once_and_again_when_the_copy_is_torn(server: ThreadingHTTPServer) -> None:
    wanted = download(server)
    path = wanted.file()
    assert path.read_bytes() == DATA and wanted.file() == path
    assert server.calls == 1  # type: ignore[attr-defined]
    path.write_bytes(DATA[:-1])
    assert wanted.file().read_bytes() == DATA
    assert server.calls == 2  # type: ignore[attr-defined]
    assert [item.name for item in path.parent.iterdir()] == ["data.csv"], "nothing unfinished is left"


def test_another_file_at_the_address_is_refused(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no longer the published file"):
        replace(download(server), sha256="0" * 64).file()
    assert not list(tmp_path.rglob("*.csv*"))


def test_what_cannot_be_fetched_says_how_to_get_it(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UsageError, match=r"cannot be fetched \(HTTPError\): download http.*2 kB, licence CC0.*csv=FILE"
    ):
        download(server, "gone.csv").file()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    calls = server.calls  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="is not on this machine: download"):
        download(server).file()
    assert server.calls == calls  # type: ignore[attr-defined]


def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> Path:
    """The hub's cache as its client leaves it."""
    folder = tmp_path / "datasets--some--bench" / "snapshots" / HOME.revision
    for name in names:
        photo(folder / "data" / f"{name}.png")
        (folder / "data" / f"{name}.png").rename(folder / "data" / name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return folder


def test_what_the_hub_left_here_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = snapshot(tmp_path, monkeypatch, ["dev-00000-of-00002-a", "dev-00001-of-00002-b"])
    assert HOME.folder() == folder


def test_a_part_of_it_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(tmp_path, monkeypatch, ["dev-00001-of-00002-b"])
    with pytest.raises(UsageError, match="a part of Some-Bench is not on this machine: download it"):
        HOME.folder()


def test_nothing_of_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        HOME.folder()
    sentence = str(caught.value)
    for part in ("Some-Bench", "3 MB", "licence CC0", "hf download some/bench", "--revision 01230123", "path=DIR"):
        assert part in sentence


def test_images_are_decoded_once(tmp_path: Path) -> None:
    picture = File(tmp_path, photo(tmp_path / "a.png", size=(8, 6)).name)
    assert decoded(picture) is decoded(File(tmp_path, "a.png")), "equal pictures are one image"
    assert decoded(picture).size == (8, 6) and decoded(picture, 5).size == (5, 5)


def test_a_digest_knows_the_order_and_what_is_missing(tmp_path: Path) -> None:
    a, b = (
        File(tmp_path, photo(tmp_path / name, color).name)
        for name, color in (("a.png", (1, 1, 1)), ("b.png", (2, 2, 2)))
    )
    assert digest([a, b]) == digest([a, b]) != digest([b, a])
    with pytest.raises(UsageError, match=r"c\.png cannot be read \(FileNotFoundError"):
        digest([a, File(tmp_path, "c.png")])
