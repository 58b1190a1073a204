/* The thread that finishes what was started. */
#define _GNU_SOURCE
#include "hand.h"

#include <time.h>

#define LINGER_NS INT64_C(5000000) /* after that long without work the thread has to be woken */
#define LOOK_NS INT64_C(500000)    /* until then it looks by itself this often, which costs callers nothing */

static struct timespec at(int64_t when_ns) {
    struct timespec when = {when_ns / 1000000000, when_ns % 1000000000};
    return when;
}

int shm_hand_init(shm_hand *hand, int64_t (*due_in)(shm_hand *, int64_t), void (*work)(shm_hand *)) {
    pthread_condattr_t monotonic;
    hand->due_in = due_in;
    hand->work = work;
    int failed = pthread_mutex_init(&hand->turn, NULL);
    if (failed != 0)
        return failed;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&hand->news, &monotonic);
    pthread_cond_init(&hand->due, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

void shm_hand_lock(shm_hand *hand) { pthread_mutex_lock(&hand->turn); }

void shm_hand_unlock(shm_hand *hand) { pthread_mutex_unlock(&hand->turn); }

static void *live(void *argument) {
    shm_hand *hand = argument;
    shm_hand_lock(hand);
    while (!hand->stopping) {
        int64_t now = shm_now_ns(), wait_ns = hand->due_in(hand, now);
        if (wait_ns <= 0) {
            hand->work(hand);
            hand->active_ns = shm_now_ns();
            shm_hand_unlock(hand);
            shm_hand_lock(hand);
            continue;
        }
        hand->asleep = wait_ns == INT64_MAX && now - hand->active_ns > LINGER_NS;
        if (hand->asleep) {
            pthread_cond_wait(&hand->due, &hand->turn);
        } else {
            struct timespec until = at(now + (wait_ns < LOOK_NS ? wait_ns : LOOK_NS));
            pthread_cond_timedwait(&hand->due, &hand->turn, &until);
        }
        hand->asleep = 0;
    }
    shm_hand_unlock(hand);
    return NULL;
}

static int start(shm_hand *hand) {
    int failed = shm_start_thread(&hand->thread, live, hand);
    hand->started = failed == 0;
    return failed;
}

int shm_hand_call(shm_hand *hand, int at_once) {
    hand->active_ns = shm_now_ns();
    if (hand->stopping)
        return 0;
    if (!hand->started)
        return start(hand);
    if (hand->asleep || at_once)
        pthread_cond_signal(&hand->due);
    return 0;
}

void shm_hand_stop(shm_hand *hand) {
    shm_hand_lock(hand);
    int started = hand->started;
    hand->stopping = 1;
    hand->started = 0;
    pthread_cond_signal(&hand->due);
    shm_hand_unlock(hand);
    if (started)
        pthread_join(hand->thread, NULL);
}

void shm_hand_nap(shm_hand *hand, int64_t most_ns) {
    struct timespec until = at(shm_now_ns() + most_ns);
    hand->waiters++;
    pthread_cond_timedwait(&hand->news, &hand->turn, &until);
    hand->waiters--;
}

static void tell(void *context) {
    shm_request *request = context;
    request->notify(request->context);
    shm_drop(request);
}

void shm_finish(shm_hand *hand, shm_request *request, shm_status status) {
    request->status = status;
    atomic_store_explicit(&request->finished, 1, memory_order_release);
    if (request->notify != NULL) { /* the reference that the list had goes to the notice */
        request->notice = (shm_notice){.call = tell, .context = request};
        shm_tell_soon(&request->notice);
    } else {
        shm_drop(request);
    }
    if (hand->waiters > 0)
        pthread_cond_broadcast(&hand->news);
}

int shm_is_finished(const shm_request *request) {
    return atomic_load_explicit(&((shm_request *)(uintptr_t)request)->finished, memory_order_acquire);
}

void shm_drop(shm_request *request) {
    if (atomic_fetch_sub(&request->references, 1) == 1)
        request->destroy(request);
}

int shm_tell(shm_hand *hand, shm_request *request, void (*notify)(void *), void *context) {
    shm_hand_lock(hand);
    int waits = !shm_is_finished(request);
    if (waits) {
        request->notify = notify;
        request->context = context;
        shm_hand_call(hand, 1);
    }
    shm_hand_unlock(hand);
    return waits;
}
