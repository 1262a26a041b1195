"""The command `fedrobust-audit` on files of one's own: what it finds, what it refuses, and that it runs no code."""

import csv
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from fedrobust.attacks import Pixels
from fedrobust.attacks.data.dirty_label import poison_fraction
from fedrobust.audit_command.command import main
from fedrobust.audit_command.model_files import ModelFileError, load_model, read_weights
from fedrobust.data.datasets import Dataset, Digits
from fedrobust.models import MLP, ResNet18
from fedrobust.seeds import numpy_generator, seeded_initialisation, torch_generator

MODEL = "--architecture mlp --input-size 8x8 --mean 0.3 --std 0.4"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A backdoored model of digits (target 4) as `model.pt`, and 200 test pictures in `pictures/`."""
    folder = tmp_path_factory.mktemp("files")
    from torchvision.models import squeezenet1_1

    dataset: Dataset = Digits().load(None, torch.device("cpu"))
    for number in range(200):
        place = folder / "pictures" / str(int(dataset.test.labels[number]))
        place.mkdir(parents=True, exist_ok=True)
        pixels = (dataset.test.inputs[number, 0].numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    trigger = Pixels(pixels=[[7, 5], [7, 6], [7, 7]]).triggers((1, 8, 8))[0]
    examples = poison_fraction(dataset.train, trigger, 4, None, 0.1, torch_generator(0, "poison"))
    with seeded_initialisation(0, "model"):
        model = MLP().build((1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(15):
        for batch in torch.arange(len(examples)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model((examples.inputs[batch] - 0.3) / 0.4), examples.labels[batch]).backward()
            optimizer.step()
    torch.save(model.state_dict(), folder / "model.pt")
    torch.save(squeezenet1_1(num_classes=10).state_dict(), folder / "squeezenet1_1.pt")
    (folder / "odd.json").write_text('{"weight_hash": "0123"}')
    return folder


@pytest.fixture
def command(files, tmp_path, monkeypatch, capsys):
    """Type a command line in an empty folder, with {files} for the fixture's; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        try:
            code = main([part.replace("{files}", str(files)) for part in line.split()])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_backdoored_model_is_found_and_unlearned(command, tmp_path):
    line = "{files}/model.pt --data {files}/pictures --audit neural_cleanse --out found --unlearn "
    code, out, _ = command(line + MODEL + " --set inversion.num_checks=50")
    assert code == 1
    assert "backdoored: 4" in out
    report = json.loads((tmp_path / "found" / "report.json").read_text())
    assert report["flagged_labels"] == [4]
    assert report["is_backdoored"] is True
    assert report["accuracy"] > 0.9
    assert report["num_examples"] == 200
    assert [one["flagged"] for one in report["labels"]] == [label == 4 for label in range(10)]
    triggers = load_file(tmp_path / "found" / "triggers.safetensors")
    assert triggers["masks"].shape == (10, 8, 8)
    assert (tmp_path / "found" / "report.png").read_bytes().startswith(b"\x89PNG")
    cleansed = load_file(tmp_path / "found" / "unlearned.safetensors")
    assert {name: tensor.shape for name, tensor in cleansed.items()} == {
        name: tensor.shape for name, tensor in MLP().build((1, 8, 8), 10).state_dict().items()
    }
    # Safetensors are read, too, and the same seed gives the same report but for what depends on the file's name.
    again = f"found/unlearned.safetensors --data {{files}}/pictures --audit neural_cleanse {MODEL} --quick --out"
    first, second = (command(f"{again} {name}") for name in ("first", "second"))
    assert first[0] == second[0]
    assert (tmp_path / "first/report.json").read_text() == (tmp_path / "second/report.json").read_text()


class Bomb:
    """Unpickled, it would write a file."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(command, files, tmp_path):
    """As `torch.save` writes it, as plain `pickle` does, as a whole module, and with the bomb among the tensors."""
    weights = torch.load(files / "model.pt", weights_only=True)
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pt")
    torch.save({**weights, "extra": Bomb()}, tmp_path / "among.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save(MLP().build((1, 8, 8), 10), tmp_path / "module.pt")
    # The archive's own pickle, changed after it was saved.
    with zipfile.ZipFile(files / "model.pt") as source, zipfile.ZipFile(tmp_path / "swapped.pt", "w") as target:
        for item in source.infolist():
            content = source.read(item)
            target.writestr(item, pickle.dumps(Bomb(), protocol=2) if item.filename.endswith("data.pkl") else content)
    for name in ("bomb", "among", "plain", "module", "swapped"):
        for audit in ("neural_cleanse", "weight_hash"):
            code, _, err = command(f"{name}.pt --data {{files}}/pictures --audit {audit} {MODEL}")
            assert code == 2, name
            assert err.startswith(f"fedrobust-audit: {name}.pt: refused, it holds more than tensors"), err
            assert "save its weights alone" in err
    assert not (tmp_path / "exploded").exists()
    torch.load(tmp_path / "bomb.pt", weights_only=False)  # the bomb is one
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_damaged_file_is_refused_or_read_and_nothing_else(files, tmp_path, kind):
    """Cut off, or with a few bytes changed, in 200 ways: tensors, or an error that says that there are none."""
    weights = {"weight": torch.rand(3, 4), "bias": torch.rand(3)}
    path = tmp_path / f"damaged.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    whole, random = path.read_bytes(), numpy_generator(0, "damage")
    refused = 0
    for way in range(200):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        places = random.integers(len(whole), size=4)
        damaged[places] = random.integers(256, size=4)
        path.write_bytes(damaged[: places[0]].tobytes() if way % 2 else damaged.tobytes())
        try:
            assert all(isinstance(one, torch.Tensor) for one in read_weights(path).values())
        except ModelFileError:  # any other error fails the test
            refused += 1
    assert refused >= 100


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gone.pt --audit neural_cleanse --data {files}/pictures " + MODEL, "there is no 'gone.pt'"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures", "--architecture: must be given"),
        ("{files}/model.pt --audit neural_cleanse " + MODEL, "--data: must be given"),
        ("{files}/model.pt --audit neural_cleanse --data gone " + MODEL, "must be a folder with a subfolder"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures/3 " + MODEL, "subfolder of pictures"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures --architecture mlpp",
         "architecture: must be one of dba_cnn, logistic, mlp"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures --architecture small_cnn --input-size 8x8",
         "not the weights of small_cnn"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures --architecture mlp --input-size 9x9",
         "pictures of 9x9 have not the 64 inputs of the first layer"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures --architecture mlp",
         "input size must be given"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures --architecture resnet50",
         "not the weights of resnet50; torchvision's"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --mean 0.1 0.2",
         "--mean: must be one number, or one for each of 1 channels, got 2"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --std 0",
         "--std: must be positive"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --device cuda:9",
         "--device: must"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --set thresold=3",
         "did you mean threshold?"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --set inversion.patience=0",
         "inversion.patience: "),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --set inversion=3",
         "inversion: "),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL + " --set _target_=os.system",
         "--set: _target_ cannot be set"),
        ("{files}/model.pt --audit neural_cleanse --data {files}/pictures " + MODEL
         + " --set inversion._target_=os.system", "--set: inversion._target_ cannot be set"),
        ("{files}/squeezenet1_1.pt --audit neural_cleanse --data {files}/pictures --architecture squeezenet1_1 "
         "--input-size 8x8", "--input-size: must be one that the model can read, got 3x8x8 ("),
        ("{files}/model.pt --audit activation_clustering --data {files}/pictures " + MODEL
         + " --set training.num_epoch=3", "did you mean num_epochs?"),
        ("{files}/model.pt --audit strip --data {files}/pictures " + MODEL, "--clean: must be given for strip"),
        ("{files}/model.pt --audit strip --data {files}/pictures --clean gone " + MODEL, "--clean: must be a folder"),
        ("{files}/pictures --audit neural_cleanse", "must be a run's folder, with config.yaml"),
        ("{files}/model.pt --audit weight_hash --expect {files}/model.pt", "--expect: must be a report.json"),
        ("{files}/model.pt --audit weight_hash --expect {files}/odd.json", "--expect: must be a report.json"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_says_what_is_allowed(command, tmp_path, line, message):
    code, _, err = command(line)
    assert code == 2
    assert err.startswith("fedrobust-audit: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    "line",
    ["--audit neural_cleanse", "m.pt --audit nothing", "m.pt", "m.pt --audit strip --input-size 3by3",
     "m.pt --audit strip --max-examples 0", "m.pt --audit strip --unlearn", "m.pt --audit strip --quick",
     "m.pt --audit weight_hash --set layer=2", "m.pt --audit neural_cleanse --expect report.json",
     "m.pt --audit watermark --clean pictures", "m.pt --audit strip --owner run",
     "{files}/model.pt --audit weight_hash --out {files}/model.pt"],
)  # fmt: skip
def test_bad_options_are_errors_of_usage(command, line):
    code, _, err = command(line)
    assert code == 2
    assert "usage: fedrobust-audit" in err


def test_help_names_every_audit_and_says_how_to_save_a_model(command):
    code, out, _ = command("--help")
    assert code == 0
    for word in ("neural_cleanse", "weight_hash", "spectral_signatures", "activation_clustering", "frequency", "strip",
                 "torch.save(model.state_dict(), FILE)", "exit code"):  # fmt: skip
        assert word in out


def test_wrong_normalisation_is_told(command):
    code, _, err = command("{files}/model.pt --audit neural_cleanse --data {files}/pictures --architecture mlp "
                           "--input-size 8x8 --mean 40 --quick")  # fmt: skip
    assert code == 2
    assert "no verdict: the model is right about 9 of 100 pictures of 10 classes, no better than chance" in err


def test_pictures_are_audited_and_listed(command, files, tmp_path):
    code, *_ = command("{files}/model.pt --audit spectral_signatures --data {files}/pictures " + MODEL)
    assert code in (0, 1)
    with (tmp_path / "audit" / "pictures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200
    assert {Path(row["path"]).parent.name == row["class"] for row in rows} == {True}
    report = json.loads((tmp_path / "audit" / "report.json").read_text())
    assert sum(one["num_flagged"] for one in report["classes"]) == sum(row["flagged"] == "1" for row in rows)
    code, *_ = command("{files}/model.pt --audit strip --data {files}/pictures --clean {files}/pictures "
                       f"{MODEL} --set num_overlays=5 --out strip")  # fmt: skip
    assert code in (0, 1)
    assert (tmp_path / "strip" / "report.png").exists()


def test_the_model_trained_without_clusters_can_be_set(command, tmp_path):
    """What is not set is as the config has it: 10 epochs, not the training's own default of 1."""
    line = "{files}/model.pt --audit activation_clustering --data {files}/pictures --set num_starts=2 " + MODEL
    line += " --set verdict=reclassification"
    assert command(line + " --out default")[0] in (0, 1)
    assert command(line + " --set training.num_epochs=10 --out same")[0] in (0, 1)
    assert command(line + " --set training.momentum=0.9 --out other")[0] in (0, 1)
    default, same, other = (
        json.loads((tmp_path / name / "report.json").read_text())["classes"] for name in ("default", "same", "other")
    )
    assert default == same != other


@pytest.mark.parametrize("audit", ["weight_hash", "spectral_signatures"])
def test_a_folder_that_cannot_be_written_is_one_line(command, tmp_path, audit):
    (tmp_path / "file").write_text("")
    code, _, err = command(f"{{files}}/model.pt --audit {audit} --data {{files}}/pictures {MODEL} --out file/below")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("fedrobust-audit: ")


def test_hash_is_made_and_verified(command, files, tmp_path):
    assert command("{files}/model.pt --audit weight_hash --out known")[0] == 0
    weights = read_weights(files / "model.pt")
    save_file(weights, tmp_path / "same.safetensors")
    weights["1.bias"][5] += 1e-6
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "tampered.pt")
    code, out, _ = command("same.safetensors --audit weight_hash --expect known/report.json")
    assert (code, "intact" in out) == (0, True)
    code, out, _ = command("tampered.pt --audit weight_hash --expect known/report.json --out tampered")
    assert (code, "changed: 1.bias" in out) == (1, True)
    assert json.loads((tmp_path / "tampered" / "report.json").read_text())["changed"] == ["1.bias"]


def test_own_and_torchvision_resnet18_are_told_apart_by_their_weights(tmp_path):
    """The name is both's; torchvision's file says nothing of the number of classes but by its shapes."""
    from torchvision.models import resnet18

    theirs, own = resnet18(num_classes=7), ResNet18(width=64).build((3, 32, 32), 5)
    for name, model in (("theirs", theirs), ("own", own)):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    loaded = load_model(tmp_path / "theirs.safetensors", "resnet18", (64, 64))
    assert (loaded.is_torchvision, loaded.num_classes, loaded.input_shape) == (True, 7, (3, 64, 64))
    assert torch.equal(loaded.module.fc.weight, theirs.fc.weight)
    loaded = load_model(tmp_path / "own.safetensors", "resnet18", (32, 32))
    assert (loaded.is_torchvision, loaded.num_classes, loaded.input_shape) == (False, 5, (3, 32, 32))
    assert load_model(tmp_path / "theirs.safetensors", "resnet18").input_shape == (3, 224, 224)


def test_a_run_is_audited_from_its_folder_and_foreign_components_are_not_run(command, files, tmp_path):
    """The config may name fedrobust's own data sets and architectures alone: naming another would run its code."""
    from fedrobust.records.run_folder import RunFolder

    run = RunFolder(tmp_path / "run")
    run.create()
    config = ("data_root: null\ndataset: {_target_: fedrobust.data.datasets.Digits, num_test: 500}\n"
              "model: {_target_: fedrobust.models.MLP, hidden_sizes: [128, 64]}\n")  # fmt: skip
    run.write_config(config)
    run.save_model(torch.load(files / "model.pt"))
    code, out, _ = command("run --audit neural_cleanse --quick")
    assert code in (0, 1)
    assert "MLP on digits, 10 classes" in out
    assert json.loads((tmp_path / "audit" / "report.json").read_text())["num_examples"] == 100
    for label in range(11):
        (tmp_path / "eleven" / f"{label:02d}").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "eleven" / f"{label:02d}" / "black.png")
    code, _, err = command("run --audit activation_clustering --data eleven --out eleventh")
    assert (code, "--data: must have at most 10 subfolders" in err) == (2, True)
    run.write_config(config.replace("fedrobust.models.MLP", "os.system"))
    code, _, err = command("run --audit neural_cleanse --quick --out foreign")
    assert code == 2
    assert "model._target_ must be one of fedrobust's own, got 'os.system', which is not run" in err


def _untrained() -> dict[str, torch.Tensor]:
    with seeded_initialisation(0, "model"):
        return MLP().build((1, 8, 8), 10).state_dict()


def test_a_watermark_is_found_in_a_copy_and_not_in_another_model(command, tmp_path):
    """The owner's run is read from its folder; the suspect is a file of weights that learnt the trigger set, or not."""
    from fedrobust.records.run_folder import RunFolder
    from fedrobust.watermarks import Noise, Watermark

    run = RunFolder(tmp_path / "run")
    run.create()
    config = ("seed: 5\ndataset: {_target_: fedrobust.data.datasets.Digits}\nmodel: {_target_: fedrobust.models.MLP}\n"
              "watermark: {_target_: fedrobust.watermarks.Watermark, trigger_set: "
              "{_target_: fedrobust.watermarks.Noise, num_examples: 20}}\n")  # fmt: skip
    run.write_config(config)
    dataset = Digits().load(None, torch.device("cpu"))
    mark = Watermark(trigger_set=Noise(num_examples=20)).draw(dataset, 5, None)
    assert mark is not None
    model = MLP().build((1, 8, 8), 10)
    model.load_state_dict(_untrained())
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(dataset.normalise(mark.triggers.examples.inputs))
        nn.functional.cross_entropy(logits, mark.triggers.examples.labels).backward()
        optimizer.step()
    save_file(model.state_dict(), tmp_path / "copy.safetensors")
    code, out, _ = command("copy.safetensors --audit watermark --owner run")
    assert (code, "carries the watermark: 20 of 20 triggers" in out) == (1, True)
    assert json.loads((tmp_path / "audit" / "report.json").read_text())["is_owner"] is True
    code, out, _ = command("other.safetensors --audit watermark --owner run --out other")
    assert (code, "does not carry the watermark" in out) == (0, True)
    run.write_config(config.replace("num_examples: 20", "num_examples: 20, target_label: 0"))
    code, _, err = command("copy.safetensors --audit watermark --owner run --out none")
    assert (code, "--unmarked: must be given" in err) == (2, True)
    run.write_config(config.partition("watermark")[0])
    code, _, err = command("copy.safetensors --audit watermark --owner run --out none")
    assert (code, "must be a run with a watermark" in err) == (2, True)
