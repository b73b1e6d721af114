"""Multi-turn sessions drawn from a folder of photos, as EdiVal-Bench's agent draws them: `mteval bench make`.

A vision-language model lists the objects of a photo (words.py); every turn draws a type that the session has not had
(edits.py) and changes the pool of objects (pool.py); what has to be made up is asked for; the sessions are written as
the benchmark ``files`` reads them (folder.py).
"""

from mteval.benchmarks.make.folder import Made, Plan, make

__all__ = ["Made", "Plan", "make"]
