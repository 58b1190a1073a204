/* Compiled into a copy of the C core with -finstrument-functions: every function of it reports when it is entered and
 * left. A test lists these moments, and has its process killed or stopped at one of them. Nothing of this is in the
 * extension that users get. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#define HIDDEN __attribute__((no_instrument_function))
#define SHOWN __attribute__((no_instrument_function, visibility("default")))
#define HOOK __attribute__((no_instrument_function, visibility("hidden"))) /* or those of libc would be found first */
#define MOST 65536

static uint32_t seen[MOST]; /* of each moment: distance of the function from phases_base, times 2, plus 1 on leaving */
static uint32_t n_seen, wanted, countdown;
static volatile int recording, armed;
static int deadly;

SHOWN void phases_base(void) {}

SHOWN void phases_record(int on) {
    if (on)
        n_seen = 0;
    recording = on;
}

SHOWN uint32_t phases_seen(const uint32_t **moments) {
    *moments = seen;
    return n_seen;
}

/* At the n-th time that this moment comes, send this process a signal. */
SHOWN void phases_arm(uint32_t moment, uint32_t nth, int number) {
    wanted = moment;
    countdown = nth;
    deadly = number;
    armed = 1;
}

HIDDEN static void come(void *function, uint32_t left) {
    uint32_t moment = (uint32_t)((intptr_t)function - (intptr_t)phases_base) * 2 + left;
    if (recording && n_seen < MOST)
        seen[n_seen++] = moment;
    if (armed && moment == wanted && --countdown == 0) {
        armed = 0;
        kill(getpid(), deadly);
    }
}

HOOK void __cyg_profile_func_enter(void *function, void *caller) {
    (void)caller;
    come(function, 0);
}

HOOK void __cyg_profile_func_exit(void *function, void *caller) {
    (void)caller;
    come(function, 1);
}
