"""What the room leaves on disk: the taxonomy, the category of every unit, densities and class shares."""

from collections.abc import Iterable
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from resources.artifact import Artifact
from resources.columns import described

CATEGORIES_FILE = "categories.parquet"
TAXONOMY_FILE = "taxonomy.json"
DENSITIES_FILE = "densities.parquet"
CLASSES_FILE = "classes.parquet"

UNCATEGORIZED = "uncategorized"
"""Category of a unit that no answer put into the taxonomy."""

CATEGORIES_SCHEMA = pa.schema(
    [
        described("unit", pa.string(), "unit id"),
        described("kind", pa.string(), "adapter, neuron or latent"),
        described("string_id", pa.string(), "entry of the taxonomy, such as 3.1; empty when uncategorized"),
        described("category", pa.string(), "name of the category, or uncategorized"),
        described("subcategory", pa.string(), "name of the entry; empty when uncategorized"),
        described("assigned_by", pa.string(), "statistical or provider/model"),
        described("detail", pa.string(), "why uncategorized"),
    ]
)
DENSITIES_SCHEMA = pa.schema(
    [
        described("kind", pa.string(), "adapter, neuron or latent"),
        described("category", pa.string(), "name of the category"),
        described("subcategory", pa.string(), "name of the entry"),
        described("string_id", pa.string(), "entry of the taxonomy, such as 3.1"),
        described("units", pa.int32(), "units of the kind in this entry"),
        described("unit_share", pa.float64(), "their share of the kind's categorized units"),
        described("density", pa.float64(), "sum of their firing activations; elsewhere a density is a share of tokens"),
        described("share", pa.float64(), "density over that of all categorized units of the kind"),
    ]
)
CLASSES_SCHEMA = pa.schema(
    [
        described("kind", pa.string(), "adapter, neuron or latent"),
        described("explainer", pa.string(), "statistical or provider/model"),
        described("label", pa.int8(), "0 monosemantic, 1 broad but consistent, 2 polysemantic"),
        described("n", pa.int32(), "labelled units of the class"),
        described("share", pa.float64(), "their share of the kind's labelled units"),
        described("ci_low", pa.float64(), "95 % interval of the share, lower end: Wilson's"),
        described("ci_high", pa.float64(), "upper end"),
    ]
)
SCHEMAS = {
    "feature_categories": {CATEGORIES_FILE: CATEGORIES_SCHEMA},
    "category_densities": {DENSITIES_FILE: DENSITIES_SCHEMA, CLASSES_FILE: CLASSES_SCHEMA},
}
"""Asset -> file -> its columns."""


class Subcategory(BaseModel, frozen=True):
    """One entry that units are put into."""

    string_id: str
    """`<category number>.<number>`, such as 3.1."""
    name: str
    description: str


class Category(BaseModel, frozen=True):
    """A group of entries."""

    id: str
    name: str
    description: str
    subcategories: tuple[Subcategory, ...]


class Taxonomy(BaseModel, frozen=True):
    """Categories and their subcategories (shape of the paper's B.2)."""

    categories: tuple[Category, ...]

    @classmethod
    def numbered(cls, named: Iterable[tuple[str, str, Iterable[tuple[str, str]]]]) -> Self:
        """From (name, description, its entries' names and descriptions): each id is there once."""
        return cls(
            categories=tuple(
                Category(
                    id=str(number),
                    name=name,
                    description=description,
                    subcategories=tuple(
                        Subcategory(string_id=f"{number}.{place}", name=entry, description=meaning)
                        for place, (entry, meaning) in enumerate(entries, 1)
                    ),
                )
                for number, (name, description, entries) in enumerate(named, 1)
            )
        )

    def find(self, string_id: str) -> tuple[Category, Subcategory] | None:
        """The entry of a string_id, or None."""
        for category in self.categories:
            for entry in category.subcategories:
                if entry.string_id == string_id:
                    return category, entry
        return None


class Categories(Artifact):
    """Which category every unit belongs to."""

    def table(self) -> pa.Table:
        """One row per unit, see `CATEGORIES_SCHEMA`."""
        return pq.read_table(self.path / CATEGORIES_FILE)

    def taxonomy(self) -> Taxonomy:
        """The taxonomy that the units were put into."""
        return Taxonomy.model_validate_json((self.path / TAXONOMY_FILE).read_bytes())


class Densities(Artifact):
    """How much activation each category holds, and how the classes are spread."""

    def table(self) -> pa.Table:
        """One row per kind and entry of the taxonomy, see `DENSITIES_SCHEMA`."""
        return pq.read_table(self.path / DENSITIES_FILE)

    def classes(self) -> pa.Table:
        """One row per kind and class, see `CLASSES_SCHEMA`."""
        return pq.read_table(self.path / CLASSES_FILE)


def category_row(row: dict, taxonomy: Taxonomy, entry_id: str, by: str, detail: str) -> dict:
    """One row of the categories table; an id outside the taxonomy gives `uncategorized`."""
    entry = taxonomy.find(entry_id)
    return {
        "unit": row["unit"],
        "kind": row["kind"],
        "string_id": entry_id if entry else "",
        "category": entry[0].name if entry else UNCATEGORIZED,
        "subcategory": entry[1].name if entry else "",
        "assigned_by": by,
        "detail": detail,
    }
