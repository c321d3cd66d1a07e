"""What a request costs: genai-prices for the vendors, nothing for an endpoint of one's own."""

from dataclasses import dataclass

from resources.errors import BadInput
from resources.llm.endpoint import Endpoint

BATCH_DISCOUNT = 0.5
"""Both vendors charge half in their Batch APIs (their documentation)."""


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def dollars(self, input_tokens: int, output_tokens: int) -> float:
        """Cost of one request at list price; cached prompt tokens cost less, so this never says too little."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


def price_of(endpoint: Endpoint, mode: str) -> Price:
    """List price of an endpoint's model.

    Raises:
        BadInput: when a vendor's model has no known price, since no cap could be kept then.
    """
    if endpoint.provider == "openai-compatible":
        return Price(0.0, 0.0)
    from genai_prices import Usage, calc_price

    factor = BATCH_DISCOUNT if mode == "batch" else 1.0
    million = 1_000_000
    try:
        # Priced per small request: some vendors charge more beyond a context length, which no prompt here reaches.
        inward = calc_price(Usage(input_tokens=1000), endpoint.model, provider_id=endpoint.provider).total_price
        outward = calc_price(Usage(output_tokens=1000), endpoint.model, provider_id=endpoint.provider).total_price
    except LookupError as error:
        raise BadInput(
            f"no price is known of {endpoint.name}, so no cap can be kept: check its name, or update genai-prices"
        ) from error
    return Price(float(inward) * million / 1000 * factor, float(outward) * million / 1000 * factor)
