/* Who was told may do anything, such as start another collective and wait for it. So it is told in threads that have
 * nothing else to do, never in the one that moves data, which it may wait for.
 *
 * One thread does it, in order, as long as it comes back soon. When it does not, because what it called waits for
 * something, another one goes on behind it: there are as many as wait inside each other, and one. All groups of a
 * process share them, and nobody waits for their end.
 */
#define _GNU_SOURCE
#include "tellers.h"

#include "shm.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#define SOON_NS INT64_C(200000)       /* so long what comes next waits for the thread that is at it */
#define IDLE_NS INT64_C(2000000000)   /* then one that has nothing to do ends, unless it is the last */
#define REST_NS INT64_C(3600000000000) /* which sleeps on */

static struct {
    pthread_mutex_t turn;
    pthread_cond_t news;
    shm_notice *first, *last;
    int64_t since_ns; /* the first one has been the first */
    int threads, idle, busy;
    pid_t owner; /* a forked child has none of the threads, and may have a lock that nobody gives back */
} tellers = {.turn = PTHREAD_MUTEX_INITIALIZER};

int shm_start_thread(pthread_t *thread, void *(*body)(void *), void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(thread, NULL, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static void begin(void) {
    pthread_condattr_t monotonic;
    pthread_mutex_init(&tellers.turn, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&tellers.news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    tellers.first = tellers.last = NULL;
    tellers.threads = tellers.idle = tellers.busy = 0;
    tellers.owner = getpid();
}

/* With the lock held; whether there was news before the time was over. */
static int nap(int64_t most_ns) {
    int64_t when_ns = shm_now_ns() + most_ns;
    struct timespec until = {when_ns / 1000000000, when_ns % 1000000000};
    tellers.idle++;
    int late = pthread_cond_timedwait(&tellers.news, &tellers.turn, &until);
    tellers.idle--;
    return late == 0;
}

static int add_one(void);

/* With the lock held, which is released during the call. */
static void tell_first(void) {
    shm_notice *notice = tellers.first;
    tellers.first = notice->next;
    tellers.since_ns = shm_now_ns();
    if (tellers.first == NULL)
        tellers.last = NULL;
    else if (tellers.idle == 0)
        add_one(); /* if there is no room for one, this thread comes back */
    tellers.busy++;
    pthread_mutex_unlock(&tellers.turn);
    notice->call(notice->context); /* the notice is gone with it */
    pthread_mutex_lock(&tellers.turn);
    tellers.busy--;
}

static void *live(void *nothing) {
    pthread_mutex_lock(&tellers.turn);
    for (;;) {
        int64_t left_ns = tellers.busy == 0 ? 0 : tellers.since_ns + SOON_NS - shm_now_ns();
        if (tellers.first != NULL && left_ns <= 0)
            tell_first();
        else if (tellers.first != NULL)
            nap(left_ns);
        else if (!nap(tellers.threads > 1 ? IDLE_NS : REST_NS) && tellers.first == NULL && tellers.threads > 1)
            break;
    }
    tellers.threads--;
    pthread_mutex_unlock(&tellers.turn);
    return nothing;
}

static int add_one(void) {
    pthread_t thread;
    int failed = shm_start_thread(&thread, live, NULL);
    if (failed == 0) {
        pthread_detach(thread);
        tellers.threads++;
    }
    return failed;
}

int shm_tellers_ready(void) {
    if (tellers.owner != getpid())
        begin();
    pthread_mutex_lock(&tellers.turn);
    int failed = tellers.threads == 0 ? add_one() : 0;
    pthread_mutex_unlock(&tellers.turn);
    return failed;
}

void shm_tell_soon(shm_notice *notice) {
    pthread_mutex_lock(&tellers.turn);
    notice->next = NULL;
    if (tellers.last != NULL) {
        tellers.last->next = notice;
    } else {
        tellers.first = notice;
        tellers.since_ns = shm_now_ns();
    }
    tellers.last = notice;
    if (tellers.idle > 0)
        pthread_cond_signal(&tellers.news);
    else
        add_one();
    pthread_mutex_unlock(&tellers.turn);
}
