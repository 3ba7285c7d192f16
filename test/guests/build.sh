#!/bin/sh
# Builds the guest programs: build.sh [name ...], all by default. Needs gcc and binutils for x86-64.
# The same tools give the same bytes: no time stamps, build ids or paths go into an image.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C SOURCE_DATE_EPOCH=0

flags='-m64 -march=x86-64 -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fcf-protection=none
       -fno-asynchronous-unwind-tables -fno-strict-aliasing -mno-red-zone -mgeneral-regs-only -mcmodel=small
       -fno-ident -Wall -Wextra -Wa,--noexecstack'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p images

# compile source object [flags]
compile() { # shellcheck disable=SC2086
        gcc $flags ${3-} -O2 -I. -c "$1" -o "$2"
}

# link output source...: always the start code, then what the guest names
link() {
        output=$1
        shift
        ld -m elf_x86_64 -n -static --build-id=none -z noexecstack --no-warn-rwx-segments -T lib/guest.ld -o "$output" "$@"
        strip --strip-all "$output"
}

common="$work/trap.o $work/guest.o"
compile lib/start.S "$work/start.o"
compile lib/trap.S "$work/trap.o"
compile lib/guest.c "$work/guest.o"
compile lib/svm.c "$work/svm.o"
compile lib/svm-run.S "$work/svm-run.o"

for name in ${*:-hello64 faults nested compute exits nested-timer realmode pic-pit smp lost-wakeup intercepts paravirt avic pointers strings crypto32 paging selfmod blocks tenant torture}; do
        objects="$work/$name.o"
        compile "$name.c" "$work/$name.o"
        case $name in
        realmode)       # 16-bit code, linked at offset 0 of its segment, carried as data
                gcc -m32 -c realmode16.S -o "$work/realmode16.o" -I. -Wa,--noexecstack
                ld -m elf_i386 -Ttext 0 -e 0 --build-id=none --oformat binary -o "$work/realmode16.bin" "$work/realmode16.o"
                compile realmode-switch.S "$work/realmode-switch.o" "-Wa,-I$work"
                objects="$objects $work/realmode-switch.o"
                ;;
        faults) compile faults-probes.S "$work/probes.o"; objects="$objects $work/probes.o" ;;
        intercepts)
                for part in intercepts/*.c; do
                        # a trial names only what it needs, and macros give defaults that it may change
                        compile "$part" "$work/intercepts-$(basename "$part" .c).o" \
                                "-Wno-missing-field-initializers -Wno-override-init"
                done
                objects="$objects $work/intercepts-"*.o" $work/svm.o $work/svm-run.o"
                ;;
        crypto32)       # code for i386, assembled as such amid 64-bit code
                # shellcheck disable=SC2086
                gcc $flags -m32 -march=i686 -mcmodel=32 -O2 -S crypto32-code.c -o "$work/crypto32-code.s"
                { echo .code32; cat "$work/crypto32-code.s"; } >"$work/crypto32-code32.s"
                gcc -m64 -c "$work/crypto32-code32.s" -o "$work/crypto32-code.o" -Wa,--noexecstack
                compile crypto32-switch.S "$work/crypto32-switch.o"
                objects="$objects $work/crypto32-code.o $work/crypto32-switch.o"
                ;;
        pointers | strings | paging)
                for part in "$name"/*.c; do
                        compile "$part" "$work/$name-$(basename "$part" .c).o"
                done
                objects="$objects $work/$name-"*.o
                ;;
        nested | nested-timer | exits | paravirt | torture)
                compile "$name-l2.S" "$work/$name-l2.o"
                objects="$objects $work/$name-l2.o $work/svm.o $work/svm-run.o"
                ;;
        tenant)         # the program of `pointers`, as what L2 runs
                compile pointers.c "$work/tenant-pointers.o" -Dguest_main=tenant_main
                for part in pointers/*.c; do
                        compile "$part" "$work/tenant-$(basename "$part" .c).o"
                done
                compile tenant-l2.S "$work/tenant-l2.o"
                objects="$objects $work/tenant-"*.o" $work/svm.o $work/svm-run.o"
                ;;
        lost-wakeup | avic)
                compile smp-start.S "$work/smp-start.o"
                compile "$name-l2.S" "$work/$name-l2.o"
                objects="$objects $work/smp-start.o $work/$name-l2.o $work/svm.o $work/svm-run.o"
                ;;
        smp)
                compile smp-start.S "$work/smp-start.o"
                compile exits-l2.S "$work/exits-l2.o"
                objects="$objects $work/smp-start.o $work/exits-l2.o $work/svm.o $work/svm-run.o"
                ;;
        esac
        # shellcheck disable=SC2086
        link "$work/$name.elf64" "$work/start.o" $common $objects
        objcopy -O elf32-i386 "$work/$name.elf64" "images/$name.elf"
        if [ "$name" = hello64 ]; then  # the same program in the two other containers that a loader meets
                cp "$work/$name.elf64" images/hello64-elf64.elf
                compile lib/start.S "$work/start-flat.o" -DFLAT
                # shellcheck disable=SC2086
                link "$work/flat.elf64" "$work/start-flat.o" $common $objects
                objcopy -O binary "$work/flat.elf64" images/hello64-flat.bin
        fi
done
chmod 644 images/*
