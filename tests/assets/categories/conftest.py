"""Fixtures of the rooms that categories read."""

from tests.assets.contexts.conftest import world as world
from tests.assets.interpretations.conftest import explained as explained
