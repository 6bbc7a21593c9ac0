"""Reports why the tests of the Chatterbox models are missing, if they are."""

import pytest
from needed import LACKING


@pytest.mark.skipif(bool(LACKING), reason=f"not installed, so no Chatterbox model runs: {', '.join(LACKING)}")
def test_the_models_packages_are_installed() -> None:
    assert not LACKING
