"""What the tests of this folder call an installation; the tiny one is a fixture of all tests."""

from tests.installation import Installation, build_installation

__all__ = ["Installation", "build_installation"]
