"""What makes small networks and their experience fast: one wing, with one switch to leave it.

Most of the time of a small network's training goes into calling numpy and torch, which takes longer than what they do
to a few hundred numbers. The rooms outside compute everything in plain torch and numpy, and a few of their functions
are replaced from here, where that is not switched off (`switch`) and the native extension is there (`native`):

- `kernel` replaces a function on rows of experience by a native one of the same name;
- `networks` computes small multilayer perceptrons and convolutions without torch, inside its autograd;
- `arrays` computes the losses that opt in on arrays.

`docs/fast.md` says what is replaced when, and how its equality is tested.
"""
