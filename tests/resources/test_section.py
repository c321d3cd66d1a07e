"""What an experiment may say of a server: an address that can be asked and holds no secret."""

import pytest

from resources.section import plain_address


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:8000/v1", "https://models.example.org/v1"])
def test_an_address_is_kept_as_it_is_written(address: str) -> None:
    assert plain_address(address) == address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:8000", "write an address such as"),
        ("ftp://a/v1", "write an address such as"),
        ("http:///v1", "write an address such as"),
        ("http://a:0/v1", "write an address such as"),
        ("http://a:70000/v1", "Port out of range 0-65535"),
        ("http://a:b/v1", "Port could not be cast"),
        ("http://me@a/v1", "leave user, password and query out"),
        ("http://me:secret@a/v1", "leave user, password and query out"),
        ("https://a/v1?key=secret", "leave user, password and query out"),
    ],
)
def test_an_address_that_cannot_be_asked_or_holds_a_secret_is_refused(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plain_address(address)
