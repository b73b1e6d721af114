"""``mteval power``: how many sessions are needed to see a difference?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mteval.errors import UsageError

if TYPE_CHECKING:
    from mteval.power import Design


def power(
    difference: Annotated[float | None, typer.Option(help="Points of turn-N success to see.", min=0)] = None,
    sessions: Annotated[int | None, typer.Option(help="How many there are. [default: those of --pairs]", min=1)] = None,
    pairs: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two run folders that differ about as much as those to compare.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Success of one model, a fraction.", min=0, max=1)] = None,
    discordant: Annotated[
        float | None, typer.Option(help="Share of sessions on which two models disagree.", min=0, max=1)
    ] = None,
    turn: Annotated[int | None, typer.Option(help="N. [default: the last that both runs have]", min=1)] = None,
    power: Annotated[float, typer.Option(help="The chance to see the difference.", min=0.05, max=0.999)] = 0.8,
) -> int:
    """Plan a comparison: sessions for a difference of turn-N success, and the smallest difference that sessions show.

    Two models that disagree on few sessions are told apart by few: --pairs takes that from two runs you have, with the
    design effect of sessions that share a start image; --rate alone takes two models as independent, which asks for
    more sessions than real ones need.

    \b
    Example:
      mteval power --difference 5 --pairs runs/tiny-kontext-shapes-0a1b2c3d runs/identity-shapes-4e5f6a7b
      mteval power --difference 5 --rate 0.4 --discordant 0.2 --sessions 572
    """
    from mteval.power import Design, sessions_needed, smallest_difference

    if pairs and (rate is not None or discordant is not None):
        raise UsageError("--pairs says how much two models differ: leave out --rate and --discordant")
    if pairs:
        design, found = _from_runs(*pairs, turn)
        sessions = sessions or found
    elif rate is None and discordant is None:
        raise UsageError("say how much two models differ: --pairs RUN_A RUN_B, or --rate and --discordant")
    else:
        design = Design(rate, discordant)
    if difference is None and sessions is None:
        raise UsageError("say what to plan: --difference for the sessions it needs, --sessions for what they show")
    delta = None if difference is None else difference / 100
    if delta is not None and not 0 < delta <= design.largest:
        raise UsageError(f"--difference {difference:g} is not between 0 and {100 * design.largest:g} points")
    if delta is not None and discordant is not None and delta > discordant:
        raise UsageError(f"--difference {difference:g} needs models that disagree on as many sessions: --discordant")
    if not pairs:
        typer.echo(_assumed(design, delta))
    test = "McNemar's exact test" if design.single else "the paired test over start images"
    typer.echo(f"\nby {test} at 5 %, with a chance of {100 * power:g} %:")
    if delta is not None:
        needed = sessions_needed(design, delta, power)
        many = "more than a million sessions" if needed is None else f"{needed} sessions{_sources(design, needed)}"
        typer.echo(f"  {difference:g} points are seen with {many}")
    if sessions is not None:
        smallest = smallest_difference(design, sessions, power)
        what = "no difference is seen" if smallest is None else f"{100 * smallest:.1f} points or more are seen"
        typer.echo(f"  {what} with {sessions} sessions{_sources(design, sessions)}")
    if delta is not None and sessions is not None:
        chance = 100 * design.power(sessions, delta)
        typer.echo(f"  {difference:g} points with {sessions} sessions: a chance of {chance:.0f} %")
    return 0


def _from_runs(first: Path, second: Path, turn: int | None) -> tuple[Design, int]:
    """What two runs say of the next comparison, and how many sessions they share."""
    from mteval.cli.compare import shared_scorers, tables_of
    from mteval.compare import paired_values
    from mteval.metrics import Label
    from mteval.power import design_of
    from mteval.stats import wilson
    from mteval.store import RunFolder

    a, b = RunFolder(first), RunFolder(second)
    following = {n: i["measures"] for n, i in shared_scorers(a, b).items() if i["measures"] == "instruction_following"}
    if not following:
        raise UsageError("the runs have no scorer of instruction following in common: score both with `mteval score`")
    scorer = next(iter(following))
    last = min(int(run.config["turns"]) for run in (a, b))
    if turn is not None and turn > last:
        raise UsageError(f"--turn {turn}: the runs share turns 1 to {last}")
    label = Label("free-running", scorer, turn or last, "all", "turn_success")
    values = paired_values(tables_of(a), tables_of(b), label, following)
    if not len(values[0]):
        raise UsageError(f"no session has a turn_success at turn {label.turn} in both runs")
    count, design = len(values[0]), design_of(*values)
    rates = " and ".join(f"{100 * float(mean):.1f}" for mean in (values[0].mean(), values[1].mean()))
    typer.echo(f"S{label.turn} of {scorer} on {count} shared sessions: {rates} %")
    apart = design.disagreeing(0)
    if design.single:
        low, high = wilson(apart, count)
        typer.echo(f"the two disagree on {100 * apart:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of them")
    else:
        typer.echo(f"the mean squared difference of a session is {apart:.3f}")
    if design.cluster > 1:
        typer.echo(
            f"{design.cluster:.1f} sessions share a start image, with a design effect of {design.effect:.2f}: "
            f"100 sessions count as {100 / design.effect:.0f}"
        )
    return design, count


def _assumed(design: Design, delta: float | None) -> str:
    if design.discordant is not None:
        return f"two models that disagree on {100 * design.discordant:.1f} % of the sessions"
    seen = "" if delta is None else f": they disagree on {100 * design.disagreeing(delta):.1f} % of the sessions"
    return f"two models whose successes are independent of each other{seen}"


def _sources(design: Design, sessions: int) -> str:
    return f" of {sessions / design.cluster:.0f} start images" if design.cluster > 1 else ""
