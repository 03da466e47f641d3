"""Three sites that see other cases, for scaffold.ipynb and fedprox.ipynb, on this machine until Ctrl-C:

    python notebooks/digit_hospitals.py

The cases are the 8 x 8 scans of handwritten digits that scikit-learn bundles (UCI, E. Alpaydin, C. Kaynak 1998). A fifth of them is held out;
the rest is sorted by digit and cut in three, so that no site sees more than five of the ten digits. The nodes run without plan approval, which
is right on your own machine only.
"""

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fedbiomed.demo.hospitals import Hospital
from fedbiomed.demo.processes import Federation, interrupted_by_sigterm

SITES = 3
TAGS = ("digits",)


def write_sites(folder: Path) -> Sequence[Hospital]:
    """One csv per site: 64 pixels from 0 to 16, and the digit."""
    inputs, digits = load_digits(return_X_y=True, as_frame=True)
    table, _ = train_test_split(inputs.assign(digit=digits), test_size=0.2, stratify=digits, random_state=0)
    sites = []
    for index, part in enumerate(np.array_split(np.argsort(table["digit"].to_numpy(), kind="stable"), SITES)):
        path = folder / f"site-{index}" / "scans.csv"
        path.parent.mkdir(parents=True)
        table.iloc[part].to_csv(path, index=False)
        sites.append(Hospital(name=f"site-{index}", path=path, patients=len(part), malignant=0))
    return sites


def main() -> None:
    """Start them, say where they are, and wait for Ctrl-C."""
    with interrupted_by_sigterm(), tempfile.TemporaryDirectory(prefix="fedbiomed-digits-") as name:
        folder = Path(name)
        sites = write_sites(folder / "data")
        options = ("--no-plan-approval",)
        try:
            with Federation(folder, sites, node_options=options, dataset="digits", tags=TAGS) as federation:
                host, _, port = federation.broker.rpartition(":")
                print("Three sites are running. In the terminal of the notebook, before it is started:")
                print(f"  export MQTT_BROKER={host} MQTT_BROKER_PORT={port} UPLOADS_URL={federation.repository}")
                print("Ctrl-C ends them.", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
