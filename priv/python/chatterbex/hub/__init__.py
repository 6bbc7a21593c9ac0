"""Downloads a model's files from a Hugging Face hub into the user's hub cache.

huggingface_hub handles the hub itself: addresses, tokens, proxies, errors, locks, and the layout of the
cache. This package transfers the bytes. huggingface_hub does that less safely: its later releases restart a
file that was cut off, none of them compares checksums, and all wait as long as a hub asks. A file appears in
the cache only when it is complete and its checksum is correct.

This runs in its own process (``provision/model_files.py``), never in that of the models.
"""

import os

# Must be set before huggingface_hub is imported: no telemetry, no progress bars, and no further packages.
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_VERBOSITY="error",
)
