"""The table at the end of a sweep."""

from anomaly_lab.runs.sweep_table import table


def test_the_table_shows_what_differs_and_a_dash_for_what_failed():
    cells = [
        (["model=draem", "seed=0", "data=demo"], {"image_auroc": 0.5, "pixel_ap": 0.25, "threshold": 3.0}),
        (["model=nearest", "seed=1", "data=demo"], {"image_auroc": 0.75}),
        (["model=nearest", "seed=2", "data=demo"], {}),
    ]
    assert table(cells).splitlines()[1:] == [
        "model    seed  image_auroc  pixel_ap",
        "draem    0     0.5000       0.2500",
        "nearest  1     0.7500       -",
        "nearest  2     -            -",
    ]
