"""What connecting to torch's store asks the system: docs/do/find_a_hang.md and rank_process.py say it of 127.0.0.1."""

import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from comm_core.testing import run_ranks

# Stands before the C library's function of that name and tells of each address whose host name is wanted.
ASKED = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>

typedef int (*function)(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);

int getnameinfo(const struct sockaddr *of, socklen_t size, char *host, socklen_t room, char *service, socklen_t space,
                int flags) {
    char address[INET6_ADDRSTRLEN] = "an address of another family";
    if (of->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)of)->sin6_addr, address, sizeof address);
    if (host != NULL && !(flags & NI_NUMERICHOST))
        fprintf(stderr, "asked for the name of %s\\n", address);
    return ((function)dlsym(RTLD_NEXT, "getnameinfo"))(of, size, host, room, service, space, flags | NI_NUMERICHOST);
}
"""

CONNECTS = """
import torch.distributed as dist

host = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
dist.TCPStore("127.0.0.1", host.port, is_master=False, wait_for_workers=False).set("key", "value")
print(host.get("key"))
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_a_store_asks_for_the_name_of_this_machine_as_an_address_that_hosts_files_lack(tmp_path):
    source, library = tmp_path / "asked.c", tmp_path / "asked.so"
    source.write_text(ASKED)
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True, timeout=60)
    seen = subprocess.run(
        [sys.executable, "-c", CONNECTS],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert seen.stdout.split() == ["b'value'"]
    assert "asked for the name of ::ffff:127.0.0.1" in seen.stderr


def first_wait(group):
    """Return how many seconds this thread of this rank waits for a name server's first answer."""
    state = ctypes.CDLL(None)["__res_state"]
    state.restype = ctypes.POINTER(ctypes.c_int)
    return state()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library reads RES_OPTIONS")
@pytest.mark.skipif("RES_OPTIONS" in os.environ, reason="RES_OPTIONS is set, and stands")
def test_ranks_of_tests_wait_a_second_for_a_name():
    assert run_ranks(first_wait, 2, backend="gloo") == [1, 1]
