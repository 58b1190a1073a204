/* Threads that tell who wants to know that something has finished. */
#ifndef COMM_SHM_TELLERS_H
#define COMM_SHM_TELLERS_H

#include <pthread.h>

/* Something to be called, once. It may wait for whatever the threads of the groups do: those are never kept by it. */
typedef struct shm_notice {
    struct shm_notice *next;
    void (*call)(void *context);
    void *context;
} shm_notice;

/* There will be one to tell; one thread at a time asks. 0, or what pthread_create answered */
int shm_tellers_ready(void);
void shm_tell_soon(shm_notice *notice); /* after shm_tellers_ready(); the memory is the notice's own, to the end */

/* A thread that takes no signals: those are for the threads that Python knows. 0, or what pthread_create answered */
int shm_start_thread(pthread_t *thread, void *(*body)(void *), void *argument);

#endif
