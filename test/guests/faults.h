/* Addresses that faults.c and its probes share. */
#ifndef FAULTS_H
#define FAULTS_H

#define USER_BASE 0x40000000
#define USER_STACK_TOP (USER_BASE + 2 * 4096 - 16)

#endif
