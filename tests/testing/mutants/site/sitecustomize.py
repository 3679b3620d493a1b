"""Python imports this first in the processes that a mutant starts, so that they are mutated, too."""

import os

from tests.testing.mutants.applying import apply

apply(os.environ["MUTANT"])
