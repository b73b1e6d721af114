"""What is answered where scorers are served: which scorer is meant, and its scores of the views of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from threading import Lock
from typing import Any

from mteval.errors import UsageError
from mteval.evaluation import versions
from mteval.registry import nearest
from mteval.scorers.base import ReadsStates, Scorer
from mteval.scoring import ask
from mteval.serve.server import Refused
from mteval.serve.wire import BadRequest, read_request, read_views, write_score


class Service:
    """Scorers by id.

    One batch is judged at a time, as in a run: scorers need not be made for threads, and two may share a detector.

    Args:
        max_batch: how many views a request may hold.

    Raises:
        UsageError: no scorers, or two of one id.
    """

    def __init__(self, scorers: Sequence[Scorer], max_batch: int) -> None:
        self._scorers = {scorer.info.id: scorer for scorer in scorers}
        if len(self._scorers) < len(scorers):
            raise UsageError(f"two of the scorers have one id, among {', '.join(self._scorers)}: leave one out")
        self.max_batch = max_batch
        self._at_work = Lock()

    @property
    def names(self) -> list[str]:
        """The ids of the scorers, in the order in which they were given."""
        return list(self._scorers)

    @property
    def routes(self) -> Mapping[tuple[str, str], Callable[[bytes], dict[str, Any]]]:
        return {("GET", "/health"): lambda _: self.health(), ("POST", "/score"): self.score}

    def error(self, refused: Refused) -> dict[str, Any]:
        return {"error": str(refused)}

    def health(self) -> dict[str, Any]:
        """The answer to GET /health."""
        return {
            "scorers": {name: scorer.info.as_json() for name, scorer in self._scorers.items()},
            "max_batch": self.max_batch,
            "versions": versions(),
        }

    def score(self, body: bytes) -> dict[str, Any]:
        """The answer to POST /score: a score for every view, where a scorer that raises is an ``infra_error``.

        Raises:
            Refused: 400 where the body cannot be read, 404 where the scorer is not served, 413 with too many views.
        """
        try:
            request = read_request(body)
            scorer = self._scorer(request.scorer)
            if len(request.views) > self.max_batch:
                raise Refused(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"{len(request.views)} views, but a request may hold {self.max_batch}",
                )
            views = read_views(request, scorer.read_state if isinstance(scorer, ReadsStates) else lambda plain: plain)
        except BadRequest as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        with self._at_work:
            scores = ask(scorer, views)
        info = scorer.info
        return {
            "scorer": info.id,
            "scoring_version": info.scoring_version,
            "scores": [write_score(score) for score in scores],
        }

    def _scorer(self, name: str | None) -> Scorer:
        if name is None and len(self._scorers) > 1:
            raise BadRequest(f"scorer: choose from {', '.join(self._scorers)}")
        chosen = self.names[0] if name is None else name
        if chosen not in self._scorers:
            raise Refused(HTTPStatus.NOT_FOUND, f"no scorer '{chosen}' is served: {nearest(chosen, self.names)}")
        return self._scorers[chosen]
