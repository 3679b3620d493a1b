"""Fast small networks and fast storage of their experience, with one switch that turns all of it off.

Most of the time of a small network's training goes into calling numpy and torch, which takes longer than what they do
to a few hundred numbers. The rest of mlhooks computes everything in plain torch and numpy. Some of its functions are
replaced from here, unless that is switched off (`switch`) or the native extension is missing (`native`):

- `kernel` replaces a function on rows of experience by a native one of the same name;
- `networks` computes small multilayer perceptrons and convolutions without torch, inside its autograd;
- `arrays` computes losses that opt in to array arithmetic;
- `memory` asks the system for huge pages, as soon as this package is imported.

`docs/fast.md` says what is replaced when, and how its equality is tested.
"""

from mlhooks.fast.memory import use_huge_pages

use_huge_pages()  # It does not wait for a run, because objects that are allocated earlier stay in small pages.
