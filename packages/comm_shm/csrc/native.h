/* What the two doors from Python share: native.c has groups and calls that wait, native_later.c what is started. */
#ifndef COMM_SHM_NATIVE_H
#define COMM_SHM_NATIVE_H

#include "door.h"
#include "mail.h"
#include "queue.h"

typedef struct {
    const char *name;
    shm_collective *collective;
    int reduces;
} movement;

extern const movement movements[];

PyObject *answer(shm_status status);
int hold(shm_group *group); /* shm_hold, from a thread that has the GIL */
shm_group *read_move(PyObject *const *args, Py_ssize_t nargs, const movement *kind, shm_call *given,
                     shm_patience *patience);

shm_errand *message_of(PyObject *request); /* NULL with an error set, or for a collective */

PyObject *py_launch(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_launch_late(PyObject *module, PyObject *args);
PyObject *py_refuse(PyObject *module, PyObject *args);
PyObject *py_post(PyObject *module, PyObject *args);
PyObject *py_wait(PyObject *module, PyObject *args);
PyObject *py_finished(PyObject *module, PyObject *capsule);
PyObject *py_tell(PyObject *module, PyObject *args);
PyObject *py_call_soon(PyObject *module, PyObject *callable);
PyObject *py_scene(PyObject *module, PyObject *capsule);
PyObject *py_message(PyObject *module, PyObject *capsule);
PyObject *py_regret(PyObject *module, PyObject *args);
PyObject *py_arrived(PyObject *module, PyObject *args);
PyObject *py_drain(PyObject *module, PyObject *args);

#define LATER_METHODS                                                         \
    {"launch", (PyCFunction)(void (*)(void))py_launch, METH_FASTCALL, NULL},  \
        {"launch_late", py_launch_late, METH_VARARGS, NULL},                  \
        {"refuse", py_refuse, METH_VARARGS, NULL},                            \
        {"post", py_post, METH_VARARGS, NULL},                                \
        {"wait", py_wait, METH_VARARGS, NULL},                                \
        {"finished", py_finished, METH_O, NULL},                              \
        {"tell", py_tell, METH_VARARGS, NULL},                                \
        {"call_soon", py_call_soon, METH_O, NULL},                            \
        {"scene", py_scene, METH_O, NULL},                                    \
        {"message", py_message, METH_O, NULL},                                \
        {"regret", py_regret, METH_VARARGS, NULL},                            \
        {"arrived", py_arrived, METH_VARARGS, NULL},                          \
        {"drain", py_drain, METH_VARARGS, NULL},

#endif
