/* What smp.c and smp-start.S share. */
#ifndef SMP_H
#define SMP_H

#define MAX_PROCESSORS 64
#define STACK_BYTES 8192

#endif
