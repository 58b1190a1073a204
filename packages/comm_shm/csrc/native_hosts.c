/* What a group on several hosts asks of the C core beside its collectives: see hosts.py and spanning.py. */
#include "native.h"

#include <stdlib.h>

/* break_group(group, status): whoever waits, here and on the other ranks of this host, is told that this one has failed */
static PyObject *py_break_group(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    unsigned int status;
    if (!PyArg_ParseTuple(args, "OI", &capsule, &status))
        return NULL;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    if (hold(group)) {
        shm_break(group, (shm_status)status);
        shm_let_go(group);
    }
    Py_RETURN_NONE;
}

/* reduce_here(address of the result, addresses, numel, dtype, reduce_op): in the order of the list, in this thread */
static PyObject *py_reduce_here(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long out, numel;
    unsigned int dtype, reduce_op;
    PyObject *list;
    if (!PyArg_ParseTuple(args, "KOKII", &out, &list, &numel, &dtype, &reduce_op) ||
        check_reduction(dtype, reduce_op) < 0)
        return NULL;
    Py_ssize_t count = PyList_Size(list);
    const void **sources = count < 1 ? NULL : malloc((size_t)count * sizeof *sources);
    if (sources == NULL)
        return count < 1 ? NULL : PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++)
        sources[i] = (const void *)(uintptr_t)PyLong_AsUnsignedLongLong(PyList_GetItem(list, i));
    if (!PyErr_Occurred() && numel != 0) {
        Py_BEGIN_ALLOW_THREADS
        shm_reduce((void *)(uintptr_t)out, NULL, sources, (uint32_t)count, (size_t)numel, dtype, reduce_op);
        Py_END_ALLOW_THREADS
    }
    free(sources);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* take_back(request) -> bool: whether nothing had come for this receive; then its status is SHM_ELSEWHERE */
static PyObject *py_take_back(PyObject *module, PyObject *request) {
    (void)module;
    int taken;
    shm_errand *errand = message_of(request);
    if (errand == NULL)
        return PyErr_Occurred() ? NULL : PyBool_FromLong(0);
    Py_BEGIN_ALLOW_THREADS
    taken = shm_take_back(errand->mail, errand);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(taken);
}

/* elsewhere(group, ranks, left): how many ranks of other hosts may answer receives from anyone, and how many have left */
static PyObject *py_elsewhere(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    unsigned int ranks, left;
    if (!PyArg_ParseTuple(args, "OII", &capsule, &ranks, &left))
        return NULL;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    if (!shm_foreign(group) && !group->closed) {
        Py_BEGIN_ALLOW_THREADS
        shm_mail_elsewhere(group->mail, ranks, left);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"break_group", py_break_group, METH_VARARGS, NULL},
    {"reduce_here", py_reduce_here, METH_VARARGS, NULL},
    {"take_back", py_take_back, METH_O, NULL},
    {"elsewhere", py_elsewhere, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int add_hosts(PyObject *module) { return PyModule_AddFunctions(module, functions); }
