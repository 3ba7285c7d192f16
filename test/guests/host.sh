#!/bin/sh
# Runs guests as programs of this host, an x86-64 with Linux: host.sh [name ...], all that can by default. The output must
# be the expected one: computed by a real processor, from code made by other options of the compiler than the image has,
# under its sanitizers for memory and undefined behaviour.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for name in ${*:-pointers strings crypto32 selfmod blocks}; do
        sources="$name.c"
        if [ -d "$name" ]; then
                sources="$sources $name/*.c"
        fi
        flags='-O1 -fsanitize=address,undefined -fno-sanitize-recover=all'
        case $name in
        crypto32) sources="$sources crypto32-code.c" ;;
        selfmod | blocks) flags=-O1 ;;  # their code is not the compiler's
        esac
        # shellcheck disable=SC2086
        gcc $flags -std=gnu17 -DHOST -fno-builtin -fno-pie -no-pie -I. $sources lib/host.c -o "$work/$name"
        "$work/$name" | diff "$name.expected" -
        if [ -f "$name.small.expected" ]; then
                "$work/$name" divide=50 scale=2 | diff "$name.small.expected" -
        fi
        echo "$name: as expected"
done
