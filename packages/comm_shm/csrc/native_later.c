/* The door from Python to what is started and waited for later: requests in capsules that keep their group alive. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CAPSULE "comm_shm._native.request"

/* A call whose arguments are known when its turn comes: what is asked for them, NULL for all other calls. */
typedef struct {
    PyObject *arguments;
    const movement *kind;
} late_call;

typedef struct {
    PyObject *group; /* the capsule */
    shm_errand *errand;
    shm_job *job; /* one of the two is NULL */
    late_call late;
} handle;

static shm_request *request_of(const handle *it) {
    return it->errand != NULL ? &it->errand->request : &it->job->request;
}

static handle *handle_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, CAPSULE); }

shm_errand *message_of(PyObject *request) {
    handle *it = handle_of(request);
    return it == NULL ? NULL : it->errand;
}

static void free_handle(PyObject *capsule) {
    handle *it = handle_of(capsule);
    if (it == NULL)
        return;
    shm_drop(request_of(it));
    Py_DECREF(it->group);
    Py_XDECREF(it->late.arguments);
    PyMem_Free(it);
}

static PyObject *wrap(PyObject *group, shm_errand *errand, shm_job *job) {
    handle *it = PyMem_Malloc(sizeof *it);
    PyObject *capsule = NULL;
    if (it != NULL) {
        *it = (handle){.group = group, .errand = errand, .job = job};
        capsule = PyCapsule_New(it, CAPSULE, free_handle);
    }
    if (capsule == NULL) {
        PyMem_Free(it);
        shm_drop(errand != NULL ? &errand->request : &job->request);
        return it == NULL ? PyErr_NoMemory() : NULL;
    }
    Py_INCREF(group);
    return capsule;
}

static PyObject *no_thread(int failed) {
    errno = failed;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static int usable(const shm_group *group) { return !shm_foreign(group) && !group->closed; }

/* An answer where a request is expected: what makes a group unusable. */
static PyObject *unusable(const shm_group *group) {
    return PyLong_FromLong(shm_foreign(group) ? SHM_FORKED : SHM_CLOSED);
}

static int follow(shm_job *job, PyObject *before) {
    if (before == Py_None)
        return 0;
    handle *it = handle_of(before);
    if (it == NULL)
        return -1;
    job->before = it->job;
    atomic_fetch_add(&it->job->request.references, 1);
    return 0;
}

static const movement *movement_called(PyObject *name) {
    const movement *kind = movements;
    while (kind->name != NULL && PyUnicode_CompareWithASCIIString(name, kind->name) != 0)
        kind++;
    if (kind->name == NULL)
        PyErr_SetString(PyExc_ValueError, "no such collective");
    return kind->name == NULL ? NULL : kind;
}

/* What a call is asked to do, as launch() is given it from the group on. */
static int read_late(PyObject *given, const movement *kind, shm_call *call) {
    PyObject *items[9];
    shm_patience patience;
    if (given == NULL)
        return -1;
    if (!PyTuple_Check(given) || PyTuple_Size(given) != 9) {
        PyErr_SetString(PyExc_TypeError, "a tuple of 9 arguments expected");
        return -1;
    }
    for (Py_ssize_t i = 0; i < 9; i++)
        items[i] = PyTuple_GetItem(given, i); /* borrowed */
    return read_move(items, 9, kind, call, &patience) == NULL ? -1 : 0;
}

/* A rank that cannot say what it is to do tells the others, in place of the collective. */
static shm_status ask(shm_job *job) {
    const late_call *late = job->asked;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *given = PyObject_CallNoArgs(late->arguments);
    if (read_late(given, late->kind, &job->call) < 0) {
        PyErr_WriteUnraisable(late->arguments);
        job->body = shm_agree;
    }
    Py_XDECREF(given);
    PyGILState_Release(state);
    return SHM_OK;
}

static PyObject *start(PyObject *group_capsule, shm_collective *body, const shm_call *call, int64_t limit_ns,
                       PyObject *before, const late_call *late) {
    shm_group *group = group_of(group_capsule);
    if (!usable(group))
        return unusable(group);
    shm_job *job = shm_job_new(group, body, call, limit_ns);
    if (job == NULL)
        return PyErr_NoMemory();
    PyObject *capsule = wrap(group_capsule, NULL, job);
    if (capsule == NULL)
        return NULL;
    if (late != NULL) { /* the handle lives until the job is done: the caller keeps it, as it keeps the tensors */
        handle *it = handle_of(capsule);
        it->late = *late;
        Py_INCREF(late->arguments);
        job->late = ask;
        job->asked = &it->late;
    }
    int failed = follow(job, before) < 0 ? -1 : shm_launch(group->queue, job);
    if (failed != 0)
        Py_DECREF(capsule);
    return failed == 0 ? capsule : failed < 0 ? NULL : no_thread(failed);
}

/* launch(name, request of the same call before it or None, group, op, dtype, numel, detail, in, out,
          width or reduce_op, timeout_s) -> request, or a status */
PyObject *py_launch(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    shm_call call;
    shm_patience patience;
    int64_t now = shm_now_ns();
    if (nargs < 3) {
        PyErr_SetString(PyExc_TypeError, "11 arguments expected");
        return NULL;
    }
    const movement *kind = movement_called(args[0]);
    if (kind == NULL || read_move(args + 2, nargs - 2, kind, &call, &patience) == NULL)
        return NULL;
    return start(args[2], kind->collective, &call, patience.deadline_ns - now, args[1], NULL);
}

/* launch_late(name, request of the same call before it or None, group, what gives the arguments of launch() from the
               group on when its turn comes, op and refusal that the others are told where it cannot, timeout_s)
   -> request, or a status */
PyObject *py_launch_late(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *name, *before, *group, *arguments, *seconds;
    unsigned int op, refusal;
    shm_patience patience;
    int64_t now = shm_now_ns();
    if (!PyArg_ParseTuple(args, "OOOOIIO", &name, &before, &group, &arguments, &op, &refusal, &seconds) ||
        group_of(group) == NULL || read_patience(seconds, &patience) < 0)
        return NULL;
    late_call late = {arguments, movement_called(name)};
    shm_call call = {.header = {.op = op, .dtype = UINT8_MAX, .refusal = refusal}};
    if (late.kind == NULL)
        return NULL;
    return start(group, late.kind->collective, &call, patience.deadline_ns - now, before, &late);
}

/* refuse(group, op, dtype, numel, refusal, timeout_s) -> request, or a status: in its turn the others are told */
PyObject *py_refuse(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *group, *seconds;
    unsigned int op, dtype, refusal;
    unsigned long long numel;
    shm_patience patience;
    int64_t now = shm_now_ns();
    if (!PyArg_ParseTuple(args, "OIIKIO", &group, &op, &dtype, &numel, &refusal, &seconds) || group_of(group) == NULL ||
        read_patience(seconds, &patience) < 0)
        return NULL;
    shm_call call = {.header = {.op = op, .dtype = dtype, .numel = numel, .refusal = refusal}};
    return start(group, shm_agree, &call, patience.deadline_ns - now, Py_None, NULL);
}

/* post(group, receives, peer, tag, dtype, numel, bytes, address) -> request, or a status, see regret(); peer -1: from anyone */
PyObject *py_post(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *group_capsule;
    int receives, peer, tag;
    unsigned int dtype;
    unsigned long long numel, bytes, address;
    if (!PyArg_ParseTuple(args, "OiiiIKKK", &group_capsule, &receives, &peer, &tag, &dtype, &numel, &bytes, &address))
        return NULL;
    shm_group *group = group_of(group_capsule);
    if (group == NULL)
        return NULL;
    if (!usable(group))
        return unusable(group);
    if (check_memory(bytes, (void *)(uintptr_t)address, (void *)(uintptr_t)address) < 0)
        return NULL;
    if (peer >= (int)group->world || peer < (receives ? SHM_ANY_SOURCE : 0)) {
        PyErr_SetString(PyExc_ValueError, "no such rank");
        return NULL;
    }
    if (!receives && atomic_load(&shm_lane_between(group->mail, group->rank, (uint32_t)peer)->regretted) != 0)
        return PyLong_FromLong(SHM_MISFIT);
    shm_errand *errand = shm_errand_new(group->mail, receives, peer);
    if (errand == NULL)
        return PyErr_NoMemory();
    errand->data = (unsigned char *)(uintptr_t)address;
    errand->envelope = (shm_envelope){.bytes = bytes, .numel = numel, .tag = tag, .dtype = dtype};
    PyObject *capsule = wrap(group_capsule, errand, NULL);
    if (capsule == NULL)
        return NULL;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = shm_post(group->mail, errand);
    Py_END_ALLOW_THREADS
    if (failed != 0) {
        Py_DECREF(capsule);
        return no_thread(failed);
    }
    return capsule;
}

/* wait(request, timeout_s, help) -> status; with `help`, started collectives may run in this thread */
PyObject *py_wait(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *seconds;
    int help;
    shm_patience patience;
    if (!PyArg_ParseTuple(args, "OOi", &capsule, &seconds, &help))
        return NULL;
    handle *it = handle_of(capsule);
    if (it == NULL || read_patience(seconds, &patience) < 0)
        return NULL;
    shm_request *request = request_of(it);
    if (shm_is_finished(request))
        return PyLong_FromLong(request->status);
    shm_group *group = group_of(it->group);
    if (shm_foreign(group))
        return PyLong_FromLong(SHM_FORKED);
    released gil = {PyEval_SaveThread()};
    patience.context = &gil;
    shm_status status = it->errand != NULL ? shm_await(group->mail, it->errand, &patience)
                                           : shm_catch_up(group->queue, it->job, &patience, help);
    if (it->job != NULL && status == SHM_OK)
        status = request->status;
    PyEval_RestoreThread(gil.thread);
    return answer(status);
}

/* finished(request) -> bool */
PyObject *py_finished(PyObject *module, PyObject *capsule) {
    (void)module;
    handle *it = handle_of(capsule);
    if (it == NULL)
        return NULL;
    shm_group *group = group_of(it->group);
    int finished = shm_is_finished(request_of(it));
    if (!finished && it->errand != NULL && !shm_foreign(group)) {
        Py_BEGIN_ALLOW_THREADS
        finished = shm_probe(group->mail, it->errand);
        Py_END_ALLOW_THREADS
    }
    return PyBool_FromLong(finished);
}

static void call_and_forget(void *context) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *callable = context, *result = PyObject_CallNoArgs(callable);
    if (result == NULL)
        PyErr_WriteUnraisable(callable);
    Py_XDECREF(result);
    Py_DECREF(callable);
    PyGILState_Release(state);
}

/* tell(request, callable) -> bool: whether the callable will be called, once, in a thread of its own; else it has finished */
PyObject *py_tell(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *callable;
    if (!PyArg_ParseTuple(args, "OO", &capsule, &callable))
        return NULL;
    handle *it = handle_of(capsule);
    if (it == NULL)
        return NULL;
    shm_group *group = group_of(it->group);
    shm_hand *hand = it->errand != NULL ? &group->mail->hand : &group->queue->hand;
    int waits = 0;
    if (!shm_is_finished(request_of(it)) && !shm_foreign(group)) {
        int failed = shm_tellers_ready();
        if (failed != 0)
            return no_thread(failed);
        Py_INCREF(callable);
        Py_BEGIN_ALLOW_THREADS
        waits = shm_tell(hand, request_of(it), call_and_forget, callable);
        Py_END_ALLOW_THREADS
        if (!waits)
            Py_DECREF(callable);
    }
    return PyBool_FromLong(waits);
}

typedef struct {
    shm_notice notice;
    PyObject *callable;
} call_later;

static void call_once(void *context) {
    call_later *later = context;
    PyObject *callable = later->callable;
    free(later);
    call_and_forget(callable);
}

/* call_soon(callable): as `tell` of what has finished, in the same threads */
PyObject *py_call_soon(PyObject *module, PyObject *callable) {
    (void)module;
    int failed = shm_tellers_ready();
    if (failed != 0)
        return no_thread(failed);
    call_later *later = malloc(sizeof *later);
    if (later == NULL)
        return PyErr_NoMemory();
    *later = (call_later){.notice = {.call = call_once, .context = later}, .callable = callable};
    Py_INCREF(callable);
    shm_tell_soon(&later->notice);
    Py_RETURN_NONE;
}

/* scene(request) -> (states as in states(group), (status, rank), pair) of a collective that failed, or None */
PyObject *py_scene(PyObject *module, PyObject *capsule) {
    (void)module;
    handle *it = handle_of(capsule);
    if (it == NULL)
        return NULL;
    const shm_scene *scene = it->job == NULL ? NULL : it->job->scene;
    if (scene == NULL)
        Py_RETURN_NONE;
    PyObject *states = PyList_New(0);
    for (uint32_t rank = 0; states != NULL && rank < scene->world; rank++) {
        const shm_sight *sight = &scene->ranks[rank];
        PyObject *one = Py_BuildValue(
            "(iiiKIIIKKI)", sight->behind, sight->dead, sight->left, (unsigned long long)sight->said.serial,
            sight->said.op, sight->said.dtype, sight->said.reduce_op, (unsigned long long)sight->said.numel,
            (unsigned long long)sight->said.detail, sight->said.refusal);
        if (one == NULL || PyList_Append(states, one) < 0)
            Py_CLEAR(states);
        Py_XDECREF(one);
    }
    if (states == NULL)
        return NULL;
    const uint64_t *pair = scene->pair;
    return Py_BuildValue("(N(II)(KKKK))", states, scene->broken >> 16, scene->broken & 0xffff,
                         (unsigned long long)pair[0], (unsigned long long)pair[1], (unsigned long long)pair[2],
                         (unsigned long long)pair[3]);
}

static PyObject *describe(const shm_envelope *envelope, int source) {
    return Py_BuildValue("(iiIKIK)", source, envelope->tag, envelope->dtype, (unsigned long long)envelope->numel,
                         envelope->wanted_dtype, (unsigned long long)envelope->wanted_numel);
}

/* message(request) -> (rank, tag, dtype, numel, wanted dtype, wanted numel) */
PyObject *py_message(PyObject *module, PyObject *capsule) {
    (void)module;
    handle *it = handle_of(capsule);
    if (it == NULL)
        return NULL;
    return describe(&it->errand->envelope, it->errand->source);
}

/* regret(group, peer) -> as `message`, of a message to that rank which it put aside and then could not use; or None */
PyObject *py_regret(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    unsigned int peer;
    if (!PyArg_ParseTuple(args, "OI", &capsule, &peer))
        return NULL;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    if (peer >= group->world || !hold(group))
        Py_RETURN_NONE;
    shm_lane *lane = shm_lane_between(group->mail, group->rank, peer);
    int regretted = atomic_load(&lane->regretted) != 0;
    PyObject *answer = regretted ? describe(&lane->regret, (int)peer) : Py_NewRef(Py_None);
    if (regretted)
        atomic_store(&lane->regretted, 0);
    shm_let_go(group);
    return answer;
}

/* arrived(group) -> what nobody has asked for yet, as `message`s */
PyObject *py_arrived(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    if (!PyArg_ParseTuple(args, "O", &capsule))
        return NULL;
    shm_group *group = group_of(capsule);
    PyObject *all = group == NULL ? NULL : PyList_New(0);
    if (all == NULL || !hold(group))
        return all;
    shm_envelope found[16];
    int sources[16];
    int count;
    Py_BEGIN_ALLOW_THREADS
    count = shm_mail_arrived(group->mail, found, sources, 16);
    shm_let_go(group);
    Py_END_ALLOW_THREADS
    for (int i = 0; all != NULL && i < count; i++) {
        PyObject *one = describe(&found[i], sources[i]);
        if (one == NULL || PyList_Append(all, one) < 0)
            Py_CLEAR(all);
        Py_XDECREF(one);
    }
    return all;
}

/* drain(group, timeout_s) -> status: run what was started, and write what was sent into the rings */
PyObject *py_drain(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *seconds;
    shm_patience patience;
    if (!PyArg_ParseTuple(args, "OO", &capsule, &seconds))
        return NULL;
    shm_group *group = group_of(capsule);
    if (group == NULL || read_patience(seconds, &patience) < 0)
        return NULL;
    if (!usable(group))
        return PyLong_FromLong(SHM_OK);
    released gil = {PyEval_SaveThread()};
    patience.context = &gil;
    shm_status status = shm_catch_up(group->queue, NULL, &patience, 1);
    if (status == SHM_OK)
        status = shm_mail_flush(group->mail, &patience);
    PyEval_RestoreThread(gil.thread);
    return answer(status);
}
