/* What the doors from Python share. Arguments come as an array: a group, then integers, then a number of seconds. */
#ifndef COMM_SHM_DOOR_H
#define COMM_SHM_DOOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "shm.h"

#define AT_ONCE_BYTES 65536 /* what a call works on without letting other Python threads run meanwhile */

/* Signal handlers run between two slices of waiting, with the GIL taken for just that long. */
typedef struct {
    PyThreadState *thread; /* NULL while this thread has the GIL */
} released;

shm_group *group_of(PyObject *capsule);
int read_counts(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t expected, uint64_t *counts);
int read_patience(PyObject *seconds, shm_patience *patience);
int check_memory(uint64_t numel, const void *in, const void *out);
int check_reduction(uint64_t dtype, uint64_t reduce_op);
PyObject *perform(shm_group *group, shm_collective *collective, shm_call *call, shm_patience *patience);
/* The same for what goes through shm_run, which says when it lasts. */
PyObject *perform_at_once(shm_group *group, shm_collective *collective, shm_call *call, shm_patience *patience);

/* native_symmetric.c: adds its functions and its type to the module */
int add_symmetric(PyObject *module);

/* tensors.c */
PyObject *py_know_tensors(PyObject *module, PyObject *args);
PyObject *py_all_reduce_tensor(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* native_hosts.c: adds its functions */
int add_hosts(PyObject *module);

#endif
