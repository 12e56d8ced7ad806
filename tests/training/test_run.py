import json

import jax
import pytest

from jaxcnn.training.run import environment, open_run, write_json

FILES = {"config.json": {"seed": 0, "size": (8, 6)}, "dataset.json": {"train": 10}}


def test_a_new_run_keeps_its_settings_and_never_takes_a_used_folder(tmp_path):
    first = open_run(tmp_path, None, "idx:a b", FILES, resume=False)
    second = open_run(tmp_path, None, "idx:a b", FILES, resume=False)
    assert (first.name, second.name) == ("idx-a-b", "idx-a-b-2")
    assert json.loads((first / "config.json").read_text()) == {"seed": 0, "size": [8, 6]}
    with pytest.raises(FileExistsError, match="idx-a-b exists already; go on with it by --resume"):
        open_run(tmp_path, "idx-a-b", "", FILES, resume=False)


def test_resume_finds_the_last_run_of_the_default_name(tmp_path):
    *_, last = [open_run(tmp_path, None, "digits", FILES, resume=False) for _ in range(3)]
    (tmp_path / "digits-20240101").mkdir()  # a name that a user gave
    assert open_run(tmp_path, None, "digits", FILES, resume=True) == last
    assert open_run(tmp_path, "digits", "", FILES, resume=True) == tmp_path / "digits"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": {"seed": 1, "size": (8, 6)}}, "was started with seed 0, not 1"),
        ({"config.json": {"size": (8, 6)}}, "was started with seed 0, not None"),
        ({"dataset.json": {"train": 11}}, "was started with train 10, not 11"),
    ],
)
def test_resume_refuses_other_settings_and_other_data(tmp_path, files, message):
    open_run(tmp_path, "mine", "", FILES, resume=False)
    with pytest.raises(ValueError, match=message):
        open_run(tmp_path, "mine", "", FILES | files, resume=True)


def test_resume_refuses_what_is_no_run_or_complete(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run .*digits; start it without --resume"):
        open_run(tmp_path, None, "digits", FILES, resume=True)
    with pytest.raises(FileNotFoundError, match=r"there is no run .*mine \(no config.json\)"):
        open_run(tmp_path, "mine", "", FILES, resume=True)
    run = open_run(tmp_path, "mine", "", FILES, resume=False)
    (run / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is no JSON file"):
        open_run(tmp_path, "mine", "", FILES, resume=True)
    write_json(run / "summary.json", {})
    with pytest.raises(FileExistsError, match="mine is complete"):
        open_run(tmp_path, "mine", "", FILES, resume=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_stays_inside_the_runs_folder(tmp_path, name):
    with pytest.raises(ValueError, match="name must be the name of a folder"):
        open_run(tmp_path, name, "", FILES, resume=False)
    assert not list(tmp_path.iterdir())


def test_the_environment_counts_the_devices_that_are_used():
    found = environment(jax.devices()[:1])
    assert (
        found["devices"] == 1 and found["platform"] == "cpu" and found["versions"]["jax"] == jax.__version__
    )
