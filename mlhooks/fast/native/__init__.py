"""The native extension: Cython and C, made when mlhooks is installed where there is a C compiler.

Each module does in one call what the rooms outside compute in several calls of numpy or torch. Headers hold the loops,
in C; `any.c`, `avx2.c` and `avx512.c` compile all of them for one kind of processor each, and `loops.pyx` chooses when
it is imported.
"""
