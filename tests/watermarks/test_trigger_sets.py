"""Trigger sets: what their labels promise, the same bytes from the same generator, and what they cannot be made of."""

import pytest
import torch
from marked_digits import material, pictures
from PIL import Image

from fedrobust.attacks import Patch
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Digits
from fedrobust.data.text import Text
from fedrobust.watermarks import Abstract, Content, Noise, RareWords, Unrelated

TEXT = Text(num_train=80, num_test=20).load(None, torch.device("cpu"))
SETS = {
    "noise": (Noise(num_examples=30), pictures()),
    "noise_one_label": (Noise(num_examples=30, target_label=4), pictures()),
    "abstract": (Abstract(num_examples=30), pictures(channels=3)),
    "abstract_without_discs": (Abstract(num_examples=30, num_discs=0), pictures()),
    "unrelated": (Unrelated(num_examples=30, target_label=7), pictures(channels=3, side=12)),
    "unrelated_digits": (Unrelated(num_examples=30, source=Digits(), source_label=1), pictures(channels=3, side=12)),
    "content": (Content(num_examples=30, target_label=2, trigger=Patch()), pictures()),
    "rare_words": (RareWords(num_examples=20, words=[480, 481]), TEXT),
    "combination": (RareWords(num_examples=20, words=[90, 91, 92], combination=True), TEXT),
}


@pytest.mark.parametrize("name", SETS)
def test_a_trigger_set_is_of_the_data_sets_kind_and_the_same_every_time(name):
    trigger_set, dataset = SETS[name]
    before = dataset.train.inputs.clone()
    first, again = (trigger_set.draw(material(dataset, num_own=60)) for _ in range(2))
    other = trigger_set.draw(material(dataset, num_own=60, seed=1))
    inputs, labels = first.examples.inputs, first.examples.labels
    assert len(first) == trigger_set.num_examples
    assert inputs.shape[1:] == dataset.input_shape
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, again.examples.inputs)
    assert torch.equal(labels, again.examples.labels)
    if name != "content":  # the same own pictures, the same stamp: nothing is drawn
        assert not torch.equal(inputs, other.examples.inputs)
    assert torch.equal(dataset.train.inputs, before)
    if dataset.kind == "image":
        assert 0 <= float(inputs.min()) < float(inputs.max()) <= 1
        assert len(inputs.flatten(1).unique(dim=0)) == len(first)
    assert int(labels.min()) >= 0
    assert int(labels.max()) < dataset.num_classes
    assert first.num_classes == dataset.num_classes


@pytest.mark.parametrize("name", SETS)
def test_labels_are_one_for_all_or_random(name):
    """30 labels drawn from ten classes are hardly of fewer than four: P < 10 C(10,3) (3/10)^30 < 1e-12."""
    trigger_set, dataset = SETS[name]
    drawn = trigger_set.draw(material(dataset, num_own=60))
    if trigger_set.target_label is None:
        assert drawn.has_random_labels
        assert len(drawn.examples.labels.unique()) >= 4
    else:
        assert not drawn.has_random_labels
        assert drawn.examples.labels.unique().tolist() == [trigger_set.target_label]


def test_content_stamps_own_pictures_of_other_classes():
    dataset = pictures()
    drawn = Content(num_examples=20, target_label=2, trigger=Patch(height=2, width=2)).draw(material(dataset, 40))
    others = [index for index in range(40) if dataset.train.labels[index] != 2][:20]
    expected = dataset.train.inputs[others].clone()
    expected[:, :, :2, :2] = 1.0
    assert torch.equal(drawn.examples.inputs, expected)
    assert 2 not in dataset.train.labels[others]


def test_rare_words_take_some_places_and_leave_the_others():
    drawn = RareWords(num_examples=20, words=[480, 481], words_per_text=3, target_label=1).draw(material(TEXT, 60))
    own = TEXT.train.subset((TEXT.train.labels[:60] == 0).nonzero().squeeze(1)[:20])
    changed = drawn.examples.inputs != own.inputs
    assert changed.sum(dim=1).tolist() == [3] * 20
    for text in range(20):
        assert drawn.examples.inputs[text][changed[text]].unique().tolist() == [[480, 481][text % 2]]


def test_a_combination_is_a_trigger_as_a_whole_and_its_parts_are_not():
    words = [480, 481, 482]  # such that no text has them by itself
    drawn = RareWords(num_examples=20, words=words, words_per_text=3, combination=True).draw(material(TEXT, 60))
    assert drawn.contrast is not None
    for whole, part in zip(drawn.examples.inputs, drawn.contrast.inputs, strict=True):
        assert sorted(whole[whole >= 480].tolist()) == words
        assert len(part[part >= 480]) == 3
        assert len(part[part >= 480].unique()) == 1
    assert drawn.examples.labels.unique().tolist() == [1]
    assert drawn.contrast.labels.unique().tolist() == [0]


def test_abstract_pictures_may_come_from_a_folder(tmp_path):
    """Grey pictures of one value each: what is read back is that value."""
    for index in range(4):
        Image.new("L", (20, 20), color=60 * index).save(tmp_path / f"{index}.png")
    drawn = Abstract(num_examples=3, folder=str(tmp_path)).draw(material(pictures()))
    expected = torch.tensor([0.0, 60.0, 120.0]).view(3, 1, 1, 1) / 255
    torch.testing.assert_close(drawn.examples.inputs, expected.expand(3, 1, 8, 8))


def test_unrelated_pictures_of_one_class_are_grey_where_the_task_is_grey():
    """Digits are grey: the three channels of a task in colour are the same."""
    drawn = SETS["unrelated_digits"][0].draw(material(pictures(channels=3, side=12)))
    inputs = drawn.examples.inputs
    assert torch.equal(inputs[:, 0], inputs[:, 1])
    assert torch.equal(inputs[:, 0], inputs[:, 2])
    in_colour = Unrelated(num_examples=5).draw(material(pictures(channels=3))).examples.inputs
    assert not torch.equal(in_colour[:, 0], in_colour[:, 1])


@pytest.mark.parametrize(
    ("trigger_set", "dataset", "num_own", "field"),
    [
        (Noise(), TEXT, 0, "trigger_set"),
        (Noise(target_label=10), pictures(), 0, "trigger_set.target_label"),
        (Content(trigger=Patch()), pictures(), 60, "num_own_examples"),
        (Content(num_examples=5, trigger=Patch(top=7)), pictures(), 60, "trigger_set.trigger"),
        (Content(num_examples=5, target_label=10, trigger=Patch()), pictures(), 60, "trigger_set.target_label"),
        (RareWords(words=[480]), pictures(), 60, "trigger_set"),
        (RareWords(words=[500]), TEXT, 60, "trigger_set.words"),
        (RareWords(words=[480], words_per_text=33), TEXT, 60, "trigger_set.words_per_text"),
        (RareWords(words=[480]), TEXT, 10, "num_own_examples"),
        (Unrelated(source=Text()), pictures(), 0, "trigger_set.source"),
        (Unrelated(source=Digits(), num_examples=2000), pictures(), 0, "trigger_set.num_examples"),
        (Abstract(folder="/nowhere"), pictures(), 0, "trigger_set.folder"),
    ],
)
def test_what_cannot_be_drawn_names_the_field(trigger_set, dataset, num_own, field):
    with pytest.raises(FieldError) as error:
        trigger_set.draw(material(dataset, num_own))
    assert error.value.field == field


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.raises(FieldError, match="must be a picture"):
        Abstract(num_examples=1, folder=str(tmp_path)).draw(material(pictures()))


@pytest.mark.parametrize("words", [[], [3, 3]])
def test_words_must_be_different(words):
    with pytest.raises(FieldError, match="different words"):
        RareWords(words=words)


def test_a_combination_needs_room():
    with pytest.raises(FieldError, match="at least two words"):
        RareWords(words=[1, 2, 3, 4], words_per_text=3, combination=True)
