"""anomaly_lab: train, score and compare methods of industrial visual anomaly detection."""

import os

# Importing albumentations asks a server for its newest version; nothing here goes to the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
