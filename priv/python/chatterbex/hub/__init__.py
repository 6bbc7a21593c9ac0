"""Fetches the files of a model from a Hugging Face hub into the user's hub cache.

huggingface_hub knows the hub: addresses, tokens, proxies, errors, locks, and the layout of the cache.
The bytes are moved here: its later releases begin a file anew that was cut off, none compares
checksums, and all wait as long as a hub tells them to. A file takes its place in the cache only when
it is whole and its checksum is right.

It runs in a process of its own (``provision/model_files.py``), never in that of the models.
"""

import os

# To be set before huggingface_hub is imported: it counts nobody, draws nothing, and needs no other package.
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_VERBOSITY="error",
)
