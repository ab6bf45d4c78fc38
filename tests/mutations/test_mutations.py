"""The mutations themselves are not tried here, as that takes long: ``python -m tests.mutations``."""

from pathlib import Path

import pytest

from tests.mutations.mutation import Mutation
from tests.mutations.redis import REDIS
from tests.mutations.worker import WORKER

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = (*WORKER, *REDIS)

pytestmark = pytest.mark.once


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_every_mutation_still_applies(mutation: Mutation) -> None:
    assert mutation.applied(ROOT) != (ROOT / mutation.file).read_text(encoding="utf-8")
    for test in mutation.tests:
        assert (ROOT / test.partition("::")[0]).exists()


def test_names_are_each_given_once() -> None:
    assert len({one.name for one in MUTATIONS}) == len(MUTATIONS)


def test_text_that_changed_is_told_by_name() -> None:
    gone = MUTATIONS[0]._replace(name="gone", old="what nobody ever wrote")
    with pytest.raises(ValueError, match=r"mutation 'gone': its old text is 0 times in"):
        gone.applied(ROOT)
