from pathlib import Path

import pytest

from fedrobust.study import data_root_override, study_parser


def test_defaults_and_choices():
    parser = study_parser("What it does.", quick="one seed", data="MNIST")
    assert vars(parser.parse_args([])) == {"seeds": [0, 1, 2], "quick": False, "data_root": None}
    options = parser.parse_args(["--seeds", "4", "7", "--quick", "--data-root", "data"])
    assert (options.seeds, options.quick, options.data_root) == ([4, 7], True, Path("data"))
    assert "where MNIST lies" in parser.format_help()


def test_a_study_without_files_has_no_data_root(capsys):
    with pytest.raises(SystemExit):
        study_parser("", quick="one seed").parse_args(["--data-root", "data"])
    assert "--data-root" in capsys.readouterr().err


def test_the_override():
    assert data_root_override(None) == []
    assert data_root_override(Path("some/data")) == ["data_root=some/data"]
