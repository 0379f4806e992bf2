/* The shared memory of an observed process, as stallscope/agent/layout.py describes it.
 * tests/pulse/test_layout.py holds the two against each other. */
#ifndef PULSE_LAYOUT_H
#define PULSE_LAYOUT_H

#define CELL 8
#define H_SIZE 2
#define H_LOOPS 12
#define H_UNSEEN_LOOPS 14
#define H_STOP 15

#define SUB_BITS 5
#define SUB_BUCKETS (1 << SUB_BITS)
#define OCTAVES 40
#define MAX_NS ((1ull << (OCTAVES + SUB_BITS)) - 1)

#define LOOPS 64
#define L_STATE 0
#define L_EPOCH 1
#define L_TID 2
#define L_STARTED 3
#define L_ZERO_WAITS 4
#define L_DRAINED 7
#define L_OPENED 8
#define L_CALL 9
#define L_CALL_SINCE 10
#define L_HELD_SINCE 11
#define L_LONG 12
#define L_WAITS_FROM 14
#define LOOP_TEXT_AT 128
#define LOOP_HISTOGRAM_AT 8192
#define LONG_NS (1 << 20)
#define LOOP_BYTES 20480
#define LOOP_FREE 0
#define LOOP_OPEN 1
#define LOOP_CLOSED 2
#define UNDECLARED 48 /* slots from here on are given out by the pulse itself */

#define LOOPS_AT 4096

#endif
