"""The Python side of Chatterbex: text-to-speech models behind one step loop.

``chatterbex.engine.Engine`` is the only door. Importing this package is cheap: numpy, torch and
the models are imported when a model is loaded, never before, so that the environment variables
that those libraries read once (thread counts, fallbacks) can still be set.
"""

__version__ = "0.1.0"
