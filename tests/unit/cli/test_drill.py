"""The drill's judgement: which numbered files can be of one instant."""

import pytest

from anyon.cli.drill import is_of_one_instant


@pytest.mark.parametrize("generations", [[7, 7, 7], [8, 7, 7], [8, 8, 7]])
def test_files_of_one_instant(generations: list[int]) -> None:
    """A writer in the middle of its turn has some files of the next generation, from the first on."""
    assert is_of_one_instant(generations)


@pytest.mark.parametrize("generations", [[7, 8, 7], [7, 7, 8], [9, 8, 7], [9, 7, 7]])
def test_a_mixture_is_seen(generations: list[int]) -> None:
    """Files that were read one after the other, while the writer went on, are told apart."""
    assert not is_of_one_instant(generations)
