"""The base of every config section: frozen, closed, and honest about the outside files it names."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of an experiment file. Every field says unit, bounds and source in its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def sources(self) -> tuple[str, ...]:
        """Names (hub ids or folders) of outside data; the content of local ones enters the cache key."""
        return ()
