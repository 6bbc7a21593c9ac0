"""The models. Each is one module, named in ``chatterbex.registry`` and imported when loaded."""
