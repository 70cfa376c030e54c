"""The verbs of the command line: each is a module with ``work(asked)``.

Its docstring is what ``VERB --help`` shows.
"""

VERBS = {
    "check": "look at every file of a data set before a run",
    "gallery": "draw the pseudo anomalies of a synthesis",
    "report": "put the runs of a folder into tables, beside the papers' numbers",
}
