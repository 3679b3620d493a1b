from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlhooks.errors import SettingsError
from mlhooks.settings.yaml_source import Position, dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e6", 5_000_000.0),
        ("5.0e6", 5_000_000.0),
        ("-1E-3", -0.001),
        (".5e1", 5.0),
        ("5_0e1", 500.0),
        ("5_000_000", 5_000_000),
        ("1.5", 1.5),
        ("0x10", 16),
        ("yes", True),
        ("'5e6'", "5e6"),
        ("5e", "5e"),
        ("e5", "e5"),
        ("2025-01-31", "2025-01-31"),
        ("~", None),
    ],
)
def test_scalars_are_read_as_pyyaml_reads_them_except_for_exponents(text: str, value: Any) -> None:
    result = parse_yaml(text).value
    assert result == value
    assert isinstance(result, type(value))


def test_mapping_keys_stay_as_they_were_written() -> None:
    assert parse_yaml("{1e5: a, 007: b, yes: c, null: d}").value == {"1e5": "a", "007": "b", "yes": "c", "null": "d"}


def test_positions_of_keys_and_values() -> None:
    document = parse_yaml("a:\n  b: [1, {c: 2}]\n  d:\n")
    assert document.position(("a", "b")) == Position(2, 6)
    assert document.position(("a", "b"), of_key=True) == Position(2, 3)
    assert document.position(("a", "b", 1, "c")) == Position(2, 14)
    assert document.position(("a", "d")) == Position(3, 3)
    assert document.position(("a", "x")) is None
    assert document.position(("a", "b", 2)) is None


def test_merge_keys_and_aliases_are_resolved_and_keep_their_places() -> None:
    text = "base: &base\n  x: 1\n  y: 2\nmore:\n  <<: *base\n  x: 3\nsame: *base\n"
    document = parse_yaml(text)
    assert document.value["more"] == {"x": 3, "y": 2}
    assert document.value["same"] == {"x": 1, "y": 2}
    assert document.position(("more", "x")) == Position(6, 6)
    assert document.position(("more", "y")) == Position(3, 6)


def test_an_alias_of_a_mapping_with_merge_keys_repeats_no_key() -> None:
    document = parse_yaml("a: &a {x: 1}\nb: &b\n  <<: *a\n  x: 2\nc: *b\nd: *b\n")
    assert document.value["d"] == {"x": 2}
    assert document.findings == []


def test_a_repeated_key_is_found_where_it_is_repeated() -> None:
    (finding,) = parse_yaml("a:\n  b: 1\n  c: 2\n  b: 3\n", file="f.yaml").findings
    assert (finding.severity, finding.file, finding.line, finding.column) == ("error", "f.yaml", 4, 3)
    assert finding.key == "a.b"
    assert "first in line 2" in finding.message


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a:\n\tb: 1\n", (2, 1), "tabs"),
        ("a: {b: 1\n", (2, 1), "flow mapping"),
        ('a: "x\\p"\n', (1, 7), "single quotes"),
        ("a: !!python/name:os.system x\n", (1, 4), "python/name:os.system"),
        ("a: !!python/object:x.Y {}\n", (1, 4), "python/object"),
        ("a: &a [*a]\n", (1, 4), "contains itself"),
        ("a: &a {b: *a}\n", (1, 4), "contains itself"),
        ("? [1]\n: 2\n", (1, 3), "single word"),
        ("a: 1\n---\nb: 2\n", (2, 1), "another document"),
        ("a:\n  b\x01c: 1\n", (2, 4), "U+0001"),
        ("a: !!int xyz\n", (1, 4), "xyz"),
        ("a: !!bool maybe\n", (1, 4), "'maybe' is not a value of the tag !!bool"),
        ("a: !!int ''\n", (1, 4), "'' is not a value of the tag !!int"),
        ("a: !!binary aGk=\n", (1, 4), "binary is not allowed"),
        ("a: !!set {x, y}\n", (1, 4), "set is not allowed"),
        ("a: !!omap [x: 1]\n", (1, 4), "omap is not allowed"),
        ("a: !custom x\n", (1, 4), "!custom is not allowed"),
        ("a:\n  {x: " + "[" * 3000 + "]" * 3000 + "}\n", (2, 106), "deeper than 100 levels"),
        ("a: 1\n" + "".join("  " * n + "- \n" for n in range(200)), (2, 1), "block"),
        ("b:\n" + "".join("  " * n + "x:\n" for n in range(1, 200)), (101, 201), "deeper than 100 levels"),
        ("a: {<<: [1]}\n", (1, 10), "must be a mapping"),
        ("a: &a {<<: *a}\n", (1, 4), "contains itself"),
        ("a: &a {b: {<<: *a}}\n", (1, 4), "contains itself"),
        ('a: "\\uD800"\n', (1, 4), "surrogates"),
        ('a: "\\UFFFFFFFF"\n', (1, 7), "out of range"),
        ('a: "C:\\Users"\n', (1, 9), "single quotes"),
        ('a: "C:\\xylo"\n', (1, 9), "single quotes"),
        ('a: "C:\\unity"\n', (1, 9), "single quotes"),
        (f"%YAML 1.{'1' * 5000}\n---\na: 1\n", (1, 9), "out of range"),
        ("a: 1\x00\n", (1, 5), "UTF-8"),
        ("a: '\ud800'\n", (1, 5), "U+D800"),
        ("a: *nowhere\n", (1, 4), "nowhere"),
    ],
)
def test_invalid_yaml_is_refused_with_its_place(text: str, place: tuple[int, int], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_yaml(text, file="f.yaml")
    (finding,) = caught.value.findings
    assert (finding.line, finding.column) == place
    assert words in finding.message
    assert str(caught.value).startswith(f"f.yaml:{place[0]}:{place[1]}: ")


def test_findings_can_be_printed_whatever_they_name() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_yaml('{"\\ud800": 1, "\\ud800": 2}')
    for finding in caught.value.findings:
        finding.as_line().encode()
    str(caught.value).encode()


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "1" * 5000, "0x_", "0b_", "0x" + "f" * 5000, "1:" * 3000 + "1"])
def test_what_only_looks_like_a_number_is_text(number: str) -> None:
    document = parse_yaml(f"a: {number}\n")
    assert document.value == {"a": number}


def test_escapes_of_json_in_two_halves_are_one_character() -> None:
    assert parse_yaml('{"a": "\\ud83d\\ude00"}').value == {"a": "\U0001f600"}


def test_texts_that_aliases_multiply_are_cut_off() -> None:
    with pytest.raises(SettingsError, match="more than 100000 values"):
        parse_yaml(f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 200)}]\n")


def test_merges_that_multiply_stay_small() -> None:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 40)]
    assert parse_yaml("\n".join(lines)).value["a39"] == {"x": 1, "y": 2}


def test_depth_that_comes_of_aliases_is_refused_too() -> None:
    lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 400))]
    with pytest.raises(SettingsError, match="deeper than 100 levels"):
        parse_yaml("\n".join(lines))
    merges = ["k0: &k0 {x: 1}", *(f"k{n}: &k{n} {{<<: *k{n - 1}}}" for n in range(1, 2000))]
    with pytest.raises(SettingsError, match="deeper than 100 levels"):
        parse_yaml("{" + ", ".join(merges) + ", <<: *k1999}")


def test_merged_mappings_count_from_the_first_and_own_keys_first_of_all() -> None:
    document = parse_yaml("a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\n")
    assert document.value["c"] == {"x": 1, "y": 1, "z": 3}


def test_aliases_that_multiply_are_cut_off() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SettingsError, match="more than"):
        parse_yaml("\n".join(lines))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_in_unicode_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("Läufer: ü\n", encoding=encoding)
    assert read_yaml(path).value == {"Läufer": "ü"}


def test_files_in_another_encoding_are_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("a: 1\nb: Läufer\n".encode("latin-1"))
    with pytest.raises(SettingsError) as caught:
        read_yaml(path)
    (finding,) = caught.value.findings
    assert (finding.line, finding.column) == (2, 5)
    assert "0xe4" in finding.message


def test_missing_files_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.yaml: there is no such file"):
        read_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(SettingsError, match="is a folder"):
        read_yaml(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_yaml(tmp_path / ("x" * 300))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_yaml(Path("a\0b"))


def test_a_file_that_is_no_configuration_for_its_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SettingsError, match="larger than 4 MB"):
        read_yaml(tmp_path / "disk.img")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_read_where_it_is_open_and_refused_where_that_may_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="a pipe or a device"):
        read_yaml(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="a pipe or a device"):
        read_yaml(Path(os.devnull))
    if not Path("/dev/fd").exists():
        return
    end, other = os.pipe()
    os.write(other, b"a: 1")
    os.close(other)
    try:
        assert read_yaml(Path(f"/dev/fd/{end}")).value == {"a": 1}
    finally:
        os.close(end)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "1e5",
        ".5e-3",
        "yes",
        "null",
        "007",
        "2025-01-31",
        "1_000",
        "<<",
        "=",
        "a: b",
        "- x",
        "#",
        " x ",
        "a\nb",
        "\ufeff",
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(_TEXT, _VALUES, max_size=5))
def test_what_is_dumped_is_read_back_equal(value: dict[str, Any]) -> None:
    back = parse_yaml(dump_yaml(value)).value
    assert back == value
    assert repr_types(back) == repr_types(value)


def repr_types(value: Any) -> Any:
    """Return the kinds of all values, in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: repr_types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [repr_types(item) for item in value]
    return next(kind for kind in (bool, int, float, str, type(None)) if isinstance(value, kind))


def test_infinity_is_dumped_as_yaml_spells_it() -> None:
    assert parse_yaml(dump_yaml({"a": math.inf})).value == {"a": math.inf}
