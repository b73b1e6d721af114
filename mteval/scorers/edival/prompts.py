"""What the judge is asked: our own words for what EdiVal's rules want to know (its own prompts are not copied)."""

from __future__ import annotations

from mteval.scorers.edival.rules import AFTER, BEFORE, Place

Parts = tuple[str | Place, ...]

YES_OR_NO = " Answer yes or no."
READ = "Which text is written in this image? Answer with the text alone."
NO_TEXT = "NONE"
READ_OR_NONE = f"{READ} Answer {NO_TEXT} where nothing is written."


def compared(question: str, before: Place | None = None, after: Place | None = None) -> Parts:
    """Both images, or a place in each, and a question on them."""
    shown = before or Place(BEFORE), after or Place(AFTER)
    return "Image before the edit:", shown[0], "Image after the edit:", shown[1], question


def appeared(name: str) -> str:
    return f"Does the image after show {name} that was not there before? If you are unsure, the answer is no."


def replaced(old: str, new: str) -> str:
    return f"Has {old} of the image before been replaced by {new} in the image after?"


def applied(form: str) -> str:
    """As published, on whole images. ``form``: the instruction with its slots in [brackets]."""
    return (
        f"The edit was asked for in these words: {form}. Has it been applied, is it accurate and complete, and does it "
        "look natural? The answer is yes only if all of this holds."
    )


def turned(name: str, into: str) -> str:
    """On the places where ``name`` was before. ``into``: ``red in color``, ``made of glass``."""
    return (
        f"The edit was to make {name} {into} and to change nothing else about it. Is all of it {into} in the image "
        "after, was it not before, and does it look natural? The answer is yes only if all of this holds."
    )


def shows_background(background: str) -> str:
    return f"Is the background of this image {background}?"


def changed_background(background: str) -> str:
    return (
        f"The edit was to change the background to {background}. Is the whole background {background} in the image "
        "after, and was it another one in the image before? The answer is yes only if all of this holds."
    )


def bare_name(name: str) -> str:
    return (
        f"A thing is called: {name}. Leave out every word for its color or its material and answer with the rest of "
        "the name alone."
    )
