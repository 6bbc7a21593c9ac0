"""The other way to reach Python: a process behind a Port, lines of JSON, samples in base64.

Answers each line ``{"id": n, "text": "SECONDS"}`` with that many seconds of silence.
"""

from __future__ import annotations

import base64
import json
import sys

import numpy as np

SAMPLE_RATE = 24_000

for line in sys.stdin:
    request = json.loads(line)
    samples = np.zeros(int(float(request["text"]) * SAMPLE_RATE), np.float32)
    answer = {"id": request["id"], "samples": base64.b64encode(samples.tobytes()).decode("ascii")}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
