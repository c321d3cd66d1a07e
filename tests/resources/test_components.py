"""Component and unit names are the project's coordinates: they must be exact and reversible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.components import PROJECTIONS, Component, components, parse_component
from resources.errors import BadInput
from resources.units import Unit, parse_unit


def test_a_64_layer_model_has_448_components_of_which_192_are_mlp() -> None:
    found = components(64)
    assert len(found) == 448
    assert sum(".mlp." in component.module for component in found) == 192


def test_components_are_layer_major_in_the_order_q_k_v_o_gate_up_down() -> None:
    assert [component.id for component in components(2)[5:9]] == [
        "L0.up_proj",
        "L0.down_proj",
        "L1.q_proj",
        "L1.k_proj",
    ]


@given(st.integers(0, 200), st.sampled_from(PROJECTIONS))
def test_a_component_is_read_back_from_its_id(layer: int, projection: str) -> None:
    assert parse_component(Component(layer, projection).id) == Component(layer, projection)


@pytest.mark.parametrize(
    "unit",
    [Unit("adapter", 3, "gate_proj", -1, -1), Unit("neuron", 2, "", 17, 1), Unit("latent", -1, "", 448, 1)],
    ids=lambda unit: unit.id,
)
def test_a_unit_is_read_back_from_its_id(unit: Unit) -> None:
    assert parse_unit(unit.id) == unit


@pytest.mark.parametrize(
    "text", ["L3", "L3.lm_head", "L3.lm_proj", "latent:-1", "adapter:L3.gate_proj", "neuron:L2:+", ""]
)
def test_what_is_no_id_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(BadInput, match="write"):
        parse_unit(text)
    with pytest.raises(BadInput, match="write"):
        parse_component(text)
