"""The native extension, Cython and C, which is built when mlhooks is installed where there is a C compiler.

Each module does in one call what the rest of mlhooks computes in several calls of numpy or torch. The headers hold the
loops in C; `any.c`, `avx2.c` and `avx512.c` build all of them for one kind of processor each, and `loops.pyx` chooses
one of these when it is imported.
"""
