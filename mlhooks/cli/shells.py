"""Completion in shells by click, and in bash also of words with : and =, such as `--env gymnasium:CartPole-v1`."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from mlhooks.cli.group import VARIABLE

_BASH = """\
%(complete_func)s() {
    local response kind value
    COMPREPLY=()
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value")
                   [[ $value == *[:=./] ]] && compopt -o nospace ;;
        esac
    done <<< "$response"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class Bash(BashComplete):
    """Completion for bash, which itself sees only the part of a word behind the last : or =."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the word to complete."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        incomplete = "" if not words or line[-1:].isspace() else words.pop()
        breaks = set(os.environ.get("COMP_WORDBREAKS", ":=")) & set(":=")
        self._seen_from = max((incomplete.rfind(char) for char in breaks), default=-1) + 1
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return the part of a completed word that bash sees."""
        return f"{item.type},{str(item.value)[self._seen_from :]}"


def script(shell: str) -> str:
    """Return the completion script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    nothing = click.Command(None)  # The script is the same for all commands.
    source: str = kind.source_template % kind(nothing, {}, "mlhooks", VARIABLE).source_vars()
    return source
