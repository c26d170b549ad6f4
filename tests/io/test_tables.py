"""Data as people have it: tables in .csv files, .npy files, frames; and messages that say what is wrong where."""

import csv
from types import SimpleNamespace

import numpy as np
import pandas
import pytest

import analytic_vae as av
from analytic_vae.cli.commands import main
from analytic_vae.io.source_files import read_source
from analytic_vae.io.tables import read_table
from analytic_vae.model.columns import columns_of, said_of_columns

RNG = np.random.default_rng(0)
DATA = RNG.laplace(size=(40, 3)) @ RNG.normal(size=(3, 3))
NAMES = ["sepal length", 'petal, "wide"', "petal"]
KINDS = ["setosa", "virginica"]


def written(path, delimiter=",", header=True, labels=True, data=DATA):
    """By the standard library's writer, which quotes what needs it."""
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        if header:
            writer.writerow([NAMES[0], *["species"] * labels, *NAMES[1:]])
        for i, row in enumerate(data):
            cells = list(map(repr, map(float, row)))
            writer.writerow([cells[0], *[KINDS[i % 2]] * labels, *cells[1:]])
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("labels", [True, False])
def test_a_table_comes_back_number_for_number(tmp_path, delimiter, labels):
    path = written(tmp_path / "a.CSV", delimiter, labels=labels)
    for given in (None, delimiter):
        table = read_table(path, label="species" if labels else None, delimiter=given)
        np.testing.assert_array_equal(table.values, DATA)
        assert table.columns == NAMES


def test_a_header_is_where_not_all_are_numbers(tmp_path):
    bare = read_table(written(tmp_path / "bare.csv", header=False, labels=False))
    np.testing.assert_array_equal(bare.values, DATA)
    assert bare.columns == ["0", "1", "2"]
    one = tmp_path / "one.csv"
    one.write_text("x\n\n1e3\n -2\n")  # one column, an empty line, a space
    np.testing.assert_array_equal(read_table(one).values, [[1000.0], [-2.0]])
    np.testing.assert_array_equal(
        read_table(written(tmp_path / "c.csv", labels=False), label=1).values, DATA[:, [0, 2]]
    )


def text_of(tmp_path, text, **options):
    path = tmp_path / "a.csv"
    path.write_text(text)
    return read_table(path, **options)


def test_a_first_line_of_numbers_that_count_is_not_guessed_about(tmp_path):
    """What pandas writes of an array: its names look like data."""
    bare, indexed = "0,1,2\n5.1,3.5,1.4\n4.9,3.0,1.4\n", ",0,1,2\n0,5.1,3.5,1.4\n1,4.9,3.0,1.4\n"
    for text in (bare, indexed):
        with pytest.raises(ValueError, match=r"header: expected True or False .*0, 1, 2"):
            text_of(tmp_path, text)
        named = text_of(tmp_path, text, header=True)
        assert named.columns == ["0", "1", "2"] and named.values.tolist() == [[5.1, 3.5, 1.4], [4.9, 3.0, 1.4]]
        assert len(text_of(tmp_path, text, header=False).values) == 3


def test_labels_without_a_header_cost_no_row(tmp_path):
    """The layout of UCI's iris.data."""
    text = "5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n"
    with pytest.raises(ValueError, match=r"got 'Iris-setosa' in line 1 .*column 2; .*label='2'"):
        text_of(tmp_path, text)
    for label in (2, "2"):
        assert text_of(tmp_path, text, label=label).values.tolist() == [[5.1, 3.5], [4.9, 3.0]]
    named = text_of(tmp_path, "a,b,kind\n" + text, label="kind")
    assert named.columns == ["a", "b"] and named.values.tolist() == [[5.1, 3.5], [4.9, 3.0]]


def test_an_index_of_pandas_is_left_out_and_no_other_column(tmp_path):
    assert text_of(tmp_path, ",a\n0,7\n1,8\n").values.tolist() == [[7.0], [8.0]]
    assert text_of(tmp_path, ",a\n3,7\n1,8\n").values.tolist() == [[3.0, 7.0], [1.0, 8.0]]
    assert text_of(tmp_path, ",a,kind\n0,7,x\n1,8,y\n", label="kind").columns == ["a"]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "path: expected lines of numbers, got none"),
        ("a,b\n", {}, "path: expected lines of numbers below the header"),
        ("a,b\n1,2\n3\n", {"delimiter": ","}, "path: expected 2 fields in line 3 of .*, as in the first, got 1"),
        ("a,b\n1,x y\n", {}, r"data: expected numbers, got 'x y' in line 2 of .*, column b; .* label='b'"),
        ("a;b\n1,5;2\n", {}, r"data: expected numbers, got '1,5' in line 2 .*decimals need a point"),
        ("a,b\n1,1_0\n", {}, "data: expected numbers, got '1_0'"),
        ("a,b\n1,2\n", {"label": "c"}, "label: expected a column among a, b, got 'c'"),
        ("a,a\n1,2\n", {"label": "a"}, "label: expected one column of that name"),
        ("a,b\n1,2\n", {"delimiter": "ab"}, "delimiter: expected one character"),
        ("a,b\n1,2\n", {"max_bytes": 7}, "path: expected at most 7 bytes"),
        ("1,2\n" * 4, {"max_bytes": 32}, "path: expected at most 32 bytes of numbers"),
        ("a,b\n1," + "2" * 200_000 + "\n", {}, "path: cannot read .* field larger than field limit"),
    ],
)
def test_tables_that_are_none_say_where(tmp_path, text, options, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_table(path, **options)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(ValueError, match=r"path: expected a .csv file in UTF-8"):
        av.load_source(path, 2)
    with pytest.raises(FileNotFoundError, match="path: expected a file, found none"):
        av.load_source(tmp_path / "none.csv", 2)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .npz, .npy, .csv or .safetensors"):
        av.load_source(tmp_path / "a.xlsx", 2)
    with pytest.raises(ValueError, match="features: expected how many to find"):
        av.load_source(written(tmp_path / "b.csv", labels=False))
    np.save(tmp_path / "c.npy", DATA)
    with pytest.raises(ValueError, match=r"label: expected None but for a .csv file, got 'x'"):
        av.load_source(tmp_path / "c.npy", 2, label="x")


def test_an_npy_file_is_bounded_and_never_unpickled(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, DATA)
    np.testing.assert_array_equal(read_source(path), DATA)
    with pytest.raises(ValueError, match="expected arrays of at most 100 bytes"):
        read_source(path, max_bytes=100)
    whole = path.read_bytes()
    for bad in (whole[:-1], whole + b"x", whole[:20], b""):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"path: cannot read .* as a whole .npy file"):
            read_source(path)
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="never unpickled"):
        read_source(path)


def frame(values, columns):
    """What is used of a pandas frame."""
    return SimpleNamespace(columns=columns, to_numpy=lambda: values)


def test_every_way_in_is_the_same_source(tmp_path):
    whole = av.source_from_data(DATA, 2, atoms=3)
    np.save(tmp_path / "a.npy", DATA)
    for found in (
        av.load_source(written(tmp_path / "a.csv"), 2, atoms=3, label="species"),
        av.load_source(tmp_path / "a.npy", 2, atoms=3),
        av.source_from_data(frame(DATA, NAMES), 2, atoms=3),
        av.source_from_data(frame(DATA.astype(object), NAMES), 2, atoms=3),
    ):
        np.testing.assert_array_equal(found.decoder, whole.decoder)
        np.testing.assert_array_equal(found.mean, whole.mean)
    found = av.source_from_data(pandas.DataFrame(DATA, columns=NAMES), 2, atoms=3)
    np.testing.assert_array_equal(found.decoder, whole.decoder)
    assert columns_of(pandas.Series(DATA[:, 0], name="x"))[1] == ["'x'"]


def test_messages_name_rows_and_columns():
    holes = DATA.copy()
    holes[3, 1], holes[7, 2] = np.nan, np.inf
    for data, first in ((frame(holes, NAMES), "row 3 of column 'petal, \"wide\"'"), (holes, "row 3 of column 1")):
        with pytest.raises(
            ValueError, match=r"got 2 NaN or infinite of 120: .*rows from 0. Leave out these rows"
        ) as said:
            av.source_from_data(data, 2)
        assert first in str(said.value)
    mixed = DATA.astype(object)
    mixed[2, 0] = "?"
    with pytest.raises(ValueError, match=r"data: expected numbers, got '\?' in row 2 of column 'sepal length'"):
        av.source_from_data(frame(mixed, NAMES), 2)
    mixed[2, 0] = None
    with pytest.raises(ValueError, match=r"got 1 NaN or infinite of 120: row 2 of column 'sepal length'"):
        av.source_from_data(frame(mixed, NAMES), 2)


def test_idle_columns_stay_and_are_named_where_they_matter():
    """A network wants all of its inputs. Moments of the model are those of the data."""
    wide = np.concatenate([DATA, np.full((40, 1), 2.5), DATA[:, :1], DATA[:, 2:]], axis=1)
    assert said_of_columns(wide, list("abcdef")) == [
        "columns that never vary: d", "columns that repeat others: e repeats a, f repeats c"
    ]  # fmt: skip
    assert said_of_columns(DATA, NAMES) == []
    source = av.source_from_data(wide, 3, atoms=3)
    mean, covariance = source.moments()
    np.testing.assert_allclose(mean, wide.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(wide.T, bias=True), atol=1e-3)
    with pytest.raises(ValueError, match=r"features: expected at most 3, .*never vary: 3.*4 repeats 0, 5 repeats 2"):
        av.source_from_data(wide, 4)


def test_the_command_reads_tables(tmp_path, capsys):
    """Everything up to the run itself, which is refused for its folder."""
    np.savez(tmp_path / "net.npz", **{"0.weight": np.eye(3)})
    (tmp_path / "file").touch()
    start = ["learn", "--network", str(tmp_path / "net.npz"), "--folder", str(tmp_path / "file"), "--atoms", "3"]
    path = str(written(tmp_path / "a.csv", ";"))
    assert main([*start, "--source", path]) == 2
    assert "column species; leave that column out by label='species' (--label)" in capsys.readouterr().err
    assert main([*start, "--source", path, "--label", "species"]) == 2
    said = capsys.readouterr().err
    assert "3 neurons, 3 features" in said and "folder: expected a folder" in said
    assert main(["learn", "--label", "species"]) == 2
    assert "--label: expected a .csv file by --source" in capsys.readouterr().err
