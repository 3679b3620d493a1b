from __future__ import annotations

import pytest

from mlhooks.names import file_name


@pytest.mark.parametrize("name", ["3DBall", "My Behavior", "Läufer日本", "a.b-c_d", "under_score-1"])
def test_safe_name_stays_as_it_is(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Team/Blue", "Team%2FBlue"),
        ("Team\\Blue", "Team%5CBlue"),
        ("..", ".%2E"),
        ("dot.", "dot%2E"),
        ("space ", "space%20"),
        ("nul", "%6Eul"),
        ("COM1.x", "%43OM1.x"),
        ("a\nb", "a%0Ab"),
        ("50%", "50%25"),
        ("", "%"),
    ],
)
def test_unsafe_name_is_encoded(name, expected):
    assert file_name(name) == expected


def test_encoded_name_differs_from_the_name_that_looks_like_it():
    assert file_name("a/b") != file_name("a%2Fb")


def test_encoded_name_makes_one_folder_below_its_parent(tmp_path):
    for name in ("../up", "/root", "C:\\x", "a/../..", ".", "..", "tab\t", "?*<>|"):
        folder = tmp_path / file_name(name)
        folder.mkdir()
        assert folder.resolve().parent == tmp_path.resolve()
